"""One update of REINFORCE against a gradient calculated by hand, step by step, in double precision.

The policies are linear in the observation and the optimiser is plain gradient descent with learning rate 1: the
parameters move by the negative gradient.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from scripted import Script, ScriptedEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_pg_ext import REINFORCE

ACTION_SPACES = {"softmax": spaces.Discrete(3), "Gaussian": spaces.Box(-100, 100, (2,), np.float32)}

FOUR_STEPS = Script((5.0, 1.0, 2.0, -1.5))
TWO_STEPS = Script((0.5, 3.0))
ONE_STEP = Script((-2.0,))
CUT = Script((1.0, -1.0, 4.0), truncated=True)


@dataclass
class Piece:
    """An episode, or a piece of one, and V of the observation after it, where it is to be continued."""

    observations: list[np.ndarray]
    actions: list[np.ndarray]
    rewards: list[float]
    continuation: float = 0.0


class Softmax:
    """π(a|s) ∝ exp(w_a·s + b_a)."""

    def __init__(self, parameters):
        self.weight, self.bias = parameters["action_net.weight"], parameters["action_net.bias"]

    def probabilities(self, obs):
        odds = np.exp(self.weight @ obs + self.bias)
        return odds / odds.sum()

    def score(self, obs, action):
        """∇ log π(a|s)."""
        return self.chain(obs, np.eye(3)[int(action)] - self.probabilities(obs))

    def entropy_gradient(self, obs):
        p = self.probabilities(obs)
        entropy = -(p * np.log(p)).sum()
        return self.chain(obs, -p * (np.log(p) + entropy))

    def chain(self, obs, wrt_logits):
        return {"action_net.weight": np.outer(wrt_logits, obs), "action_net.bias": wrt_logits}


class Gaussian:
    """π(a|s) = N(w·s + b, diag(σ²))."""

    def __init__(self, parameters):
        self.weight, self.bias = parameters["action_net.weight"], parameters["action_net.bias"]
        self.std = np.exp(parameters["log_std"])

    def score(self, obs, action):
        """∇ log π(a|s)."""
        z = (action - self.weight @ obs - self.bias) / self.std
        return {
            "action_net.weight": np.outer(z / self.std, obs),
            "action_net.bias": z / self.std,
            "log_std": z**2 - 1,
        }

    def entropy_gradient(self, obs):
        return {"log_std": np.ones(2)}


class Critic:
    """V(s) = w·s + b."""

    def __init__(self, parameters):
        self.weight, self.bias = parameters["value_net.weight"][0], parameters["value_net.bias"][0]

    def __call__(self, obs):
        return self.weight @ obs + self.bias

    def squared_error_gradient(self, obs, target):
        error = self(obs) - target
        return {"value_net.weight": 2 * error * obs[None], "value_net.bias": np.array([2 * error])}


def add(total, gradient, factor):
    for name, array in gradient.items():
        total[name] = total.get(name, 0.0) + factor * array


def clip(gradient, max_norm):
    norm = np.sqrt(sum((array**2).sum() for array in gradient.values()))
    return {name: array * min(1.0, max_norm / norm) for name, array in gradient.items()}


def discounted(rewards, continuation, gamma):
    return sum(gamma**k * reward for k, reward in enumerate([*rewards, continuation]))


def optimal_numbers(g, x, per_component):
    """By parameter, b = E⟨X, g⟩/E‖g‖² over the pieces: one number for all, or one for every component."""
    products = {name: sum(b[name] * a[name] for a, b in zip(g, x, strict=True)) for name in g[0]}
    squares = {name: sum(a[name] ** 2 for a in g) for name in g[0]}
    if per_component:
        return {name: products[name] / squares[name] for name in products}
    b = sum(array.sum() for array in products.values()) / sum(array.sum() for array in squares.values())
    return dict.fromkeys(products, b)


def descent(actor, critic, pieces, per_step, arguments):
    """The negative gradient of what REINFORCE minimises, by parameter."""
    gamma = arguments.get("gamma", 0.99)
    ent_coef, vf_coef = arguments.get("ent_coef", 0.0), arguments.get("vf_coef", 0.5)
    max_norm = arguments.get("max_grad_norm", np.inf)
    baseline, returns = arguments.get("baseline", "none"), arguments.get("returns", "reward_to_go")
    steps, to_go, weights, clock, piece_of = [], [], [], [], []
    for i, piece in enumerate(pieces):
        for t in range(len(piece.rewards)):
            steps.append((piece.observations[t], piece.actions[t]))
            clock.append(t)
            piece_of.append(i)
            to_go.append(discounted(piece.rewards[t:], piece.continuation, gamma))
            weights.append(to_go[-1] if returns == "reward_to_go" else to_go[-1 - t])
    if baseline == "mean":
        total = [discounted(piece.rewards, piece.continuation, gamma) for piece in pieces]
        weights = np.array(weights) - np.mean(total if returns == "total" else to_go)
    if baseline == "value":
        weights = [weight - critic(obs) for weight, (obs, _) in zip(weights, steps, strict=True)]
    discounts = gamma ** np.array(clock) if arguments.get("discount_state_distribution") else np.ones(len(clock))
    scores = [actor.score(obs, action) for obs, action in steps]
    optima = {}
    if baseline.startswith("optimal"):
        g, x = ([{} for _ in pieces] for _ in range(2))
        for i, score, weight, discount in zip(piece_of, scores, weights, discounts, strict=True):
            add(g[i], score, discount)
            add(x[i], score, discount * weight)
        optima = optimal_numbers(g, x, per_component=baseline.endswith("per_component"))
    if arguments.get("normalize_advantage"):
        weights = (np.array(weights) - np.mean(weights)) / np.std(weights, ddof=1)

    denominator = len(steps) if per_step else len(pieces)
    actor_gradient, critic_gradient = {}, {}
    for (obs, _), score, weight, discount, target in zip(steps, scores, weights, discounts, to_go, strict=True):
        minus_optima = {name: array * (weight - optima.get(name, 0.0)) for name, array in score.items()}
        add(actor_gradient, minus_optima, discount / denominator)
        add(actor_gradient, actor.entropy_gradient(obs), discount * ent_coef / denominator)
        add(critic_gradient, critic.squared_error_gradient(obs, target), -vf_coef / len(steps))
    if not (baseline == "value" or per_step or arguments.get("bootstrap_truncated")):
        critic_gradient = {}
    return {**clip(actor_gradient, max_norm), **clip(critic_gradient, max_norm)}


def complete_episodes(envs, critic, n_episodes, bootstrap_truncated):
    for env in envs:
        for played in env.played[: n_episodes // len(envs)]:
            assert played.complete
            cut = bootstrap_truncated and played.script.truncated
            yield Piece(
                played.observations, played.actions, played.rewards, critic(played.observations[-1]) if cut else 0.0
            )


def first_steps(envs, critic, n_steps, bootstrap_truncated):
    for env in envs:
        missing = n_steps
        for played in env.played:
            n = min(missing, len(played.rewards))
            missing -= n
            if n:
                incomplete = n < len(played.script.rewards)
                cut = bootstrap_truncated and played.script.truncated
                yield Piece(
                    played.observations,
                    played.actions,
                    played.rewards[:n],
                    critic(played.observations[n]) if incomplete or cut else 0.0,
                )
        assert missing == 0


def make_model(kind, envs, **arguments):
    if arguments.get("baseline") == "value" or "n_steps" in arguments or arguments.get("bootstrap_truncated"):
        arguments = {"n_critic_updates": 0, **arguments}
    model = REINFORCE(
        "MlpPolicy",
        DummyVecEnv([lambda env=env: env for env in envs]),
        learning_rate=1.0,
        seed=4,
        device="cpu",
        policy_kwargs={"net_arch": [], "optimizer_class": th.optim.SGD},
        **arguments,
    )
    rng = np.random.default_rng(0)
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.copy_(th.as_tensor(rng.normal(size=parameter.shape) / 2))
    return model


def parameters_of(model):
    return {name: p.detach().double().numpy().copy() for name, p in model.policy.named_parameters()}


def assert_moves_along_the_gradient(kind, envs, **arguments):
    model = make_model(kind, envs, **arguments)
    before = parameters_of(model)
    model.learn(1)
    critic, actor = Critic(before), {"softmax": Softmax, "Gaussian": Gaussian}[kind](before)
    bootstraps = arguments.get("bootstrap_truncated", False)
    per_step = "n_steps" in arguments
    if per_step:
        pieces = list(first_steps(envs, critic, arguments["n_steps"], bootstraps))
    else:
        pieces = list(complete_episodes(envs, critic, arguments.get("n_episodes", 10), bootstraps))
    expected = descent(actor, critic, pieces, per_step, arguments)
    for name, now in parameters_of(model).items():
        np.testing.assert_allclose(now - before[name], expected.get(name, 0.0), rtol=2e-5, atol=2e-5, err_msg=name)


def make_envs(kind, n_envs=1):
    scripts = [FOUR_STEPS, TWO_STEPS, CUT, ONE_STEP]
    return [
        ScriptedEnv(ACTION_SPACES[kind], *scripts[i:], *scripts[:i], first=10 * i) for i in range(n_envs)
    ]  # every environment begins with another episode


EPISODES = {
    "reward to go": {},
    "default number of episodes": {"n_episodes": None},
    "total": {"returns": "total"},
    "undiscounted": {"gamma": 1.0},
    "discounted": {"gamma": 0.5},
    "discounted to nothing": {"gamma": 0.0},
    "discounted total": {"gamma": 0.5, "returns": "total"},
    "mean": {"baseline": "mean"},
    "mean of totals": {"baseline": "mean", "returns": "total"},
    "value": {"baseline": "value"},
    "value, total": {"baseline": "value", "returns": "total"},
    "optimal": {"baseline": "optimal"},
    "optimal, total": {"baseline": "optimal", "returns": "total"},
    "optimal per component": {"baseline": "optimal_per_component"},
    "optimal per component, total": {"baseline": "optimal_per_component", "returns": "total"},
    "optimal per component, entropy": {"baseline": "optimal_per_component", "ent_coef": 0.3, "max_grad_norm": 0.25},
    "states discounted": {"discount_state_distribution": True, "gamma": 0.5},
    "states discounted, entropy": {"discount_state_distribution": True, "gamma": 0.5, "ent_coef": 0.3},
    "states discounted, normalized": {"discount_state_distribution": True, "gamma": 0.5, "normalize_advantage": True},
    "states discounted, optimal": {"discount_state_distribution": True, "gamma": 0.5, "baseline": "optimal"},
    "states discounted, optimal per component": {
        "discount_state_distribution": True,
        "gamma": 0.5,
        "baseline": "optimal_per_component",
    },
    "normalized": {"normalize_advantage": True},
    "normalized, value": {"normalize_advantage": True, "baseline": "value"},
    "entropy": {"ent_coef": 0.3},
    "entropy, normalized": {"ent_coef": 0.3, "normalize_advantage": True},
    "bootstrapped": {"bootstrap_truncated": True},
    "bootstrapped total": {"bootstrap_truncated": True, "returns": "total", "gamma": 0.9},
    "weak critic": {"baseline": "value", "vf_coef": 0.125},
    "clipped": {"max_grad_norm": 0.25},
    "clipped apart": {"max_grad_norm": 0.25, "baseline": "value", "ent_coef": 0.1},
    "loosely clipped": {"max_grad_norm": 1e6, "baseline": "value"},
}
STEPS = {
    "steps": {},
    "one step": {"n_steps": 1},
    "steps up to an end": {"n_steps": 4},
    "discounted": {"gamma": 0.5},
    "mean": {"baseline": "mean"},
    "value": {"baseline": "value"},
    "normalized": {"normalize_advantage": True},
    "entropy": {"ent_coef": 0.3},
    "bootstrapped": {"bootstrap_truncated": True, "n_steps": 11},
    "optimal": {"baseline": "optimal"},
    "optimal per component": {"baseline": "optimal_per_component"},
    "states discounted": {"discount_state_distribution": True, "gamma": 0.5},
    "clipped apart": {"max_grad_norm": 0.25, "baseline": "value"},
}
each_kind = pytest.mark.parametrize("kind", ACTION_SPACES)
each_number_of_envs = pytest.mark.parametrize("n_envs", [1, 2])


@each_kind
@each_number_of_envs
@pytest.mark.parametrize("arguments", EPISODES.values(), ids=EPISODES.keys())
def test_episodes(kind, n_envs, arguments):
    arguments = {"n_episodes": 6, **arguments}
    if arguments["n_episodes"] is None:
        del arguments["n_episodes"]
    assert_moves_along_the_gradient(kind, make_envs(kind, n_envs), **arguments)


@each_kind
@each_number_of_envs
@pytest.mark.parametrize("arguments", STEPS.values(), ids=STEPS.keys())
def test_steps(kind, n_envs, arguments):
    assert_moves_along_the_gradient(kind, make_envs(kind, n_envs), **{"n_steps": 8, **arguments})


def test_the_return_from_every_step_on():
    env = ScriptedEnv(ACTION_SPACES["softmax"], Script((5.0, 1.0, 2.0)))
    model = make_model("softmax", [env], n_episodes=1, gamma=1.0).learn(1)
    assert model.rollout_buffer.returns.flatten().tolist() == [8.0, 3.0, 2.0]


@each_kind
def test_the_second_rollout_goes_on_where_the_first_ended(kind):
    env, arguments = make_envs(kind)[0], {"n_steps": 3, "gamma": 0.9}
    model = make_model(kind, [env], **arguments).learn(3)
    before = parameters_of(model)
    model.learn(3, reset_num_timesteps=False)
    first, second = env.played[:2]
    critic, actor = Critic(before), {"softmax": Softmax, "Gaussian": Gaussian}[kind](before)
    pieces = [
        Piece(first.observations[3:], first.actions[3:], first.rewards[3:]),
        Piece(second.observations, second.actions, second.rewards),
    ]
    expected = descent(actor, critic, pieces, True, arguments)
    for name, now in parameters_of(model).items():
        np.testing.assert_allclose(now - before[name], expected.get(name, 0.0), rtol=2e-5, atol=2e-5, err_msg=name)


@each_kind
@pytest.mark.parametrize("baseline", ["value", "optimal_per_component"])
def test_chunks_change_nothing(kind, baseline, monkeypatch):
    monkeypatch.setattr("sb3_pg_ext.policies.evaluation.CHUNK_BYTES", 40)  # five observations
    monkeypatch.setattr("sb3_pg_ext.baselines.episodes.CHUNK_BYTES", 100)  # two score functions
    assert_moves_along_the_gradient(
        kind, make_envs(kind), n_episodes=6, baseline=baseline, ent_coef=0.1, max_grad_norm=0.5
    )
