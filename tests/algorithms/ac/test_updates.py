"""Every update is the one of the textbook: a slow version in double precision, with autograd, replays a training."""

import copy

import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, RandomEnv
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_pg_ext import ActorCritic
from sb3_pg_ext.functional import returns

GAMMA, LAMBDA = 0.9, 0.7
N_STEPS = 23


class Recorder(BaseCallback):
    """Notes what every step gave."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def _on_step(self):
        now = {name: copy.deepcopy(self.locals[name]) for name in ("actions", "rewards", "dones", "new_obs")}
        now["obs"] = self.locals["inputs"].observations.copy()
        now["finals"] = [dict(info) for info in self.locals["infos"]]
        self.steps.append(now)
        return True


def train(space="Box", n_envs=1, n_steps=N_STEPS, env=RandomEnv, **kwargs):
    """A model that has learned, its policy and Q before, and what happened."""
    vec_env = DummyVecEnv([lambda: env(ACTION_SPACES[space])] * n_envs)
    arguments = {"gamma": GAMMA, "trace_lambda": LAMBDA, "learning_rate": 0.02, "seed": 1}
    arguments |= {"policy_kwargs": {"net_arch": [6]}, **kwargs}
    model = ActorCritic("MlpPolicy", vec_env, n_steps=10, device="cpu", **arguments)
    policy, q_net = (in_double_precision(part) for part in (model.policy, model.memory.q_net))
    recorder = Recorder()
    model.learn(n_steps * n_envs, recorder)
    return model, policy, q_net, recorder.steps


def in_double_precision(net):
    """A copy; SB3 makes observations float32, which holds those of the environment exactly."""
    if net is not None:
        net = copy.deepcopy(net).double()
        net.features_extractor.forward = lambda obs: obs.flatten(1).double()
    return net


def transitions(steps, i=0):
    """Of one environment: s, a, r, whether s' is terminal, s', whether the episode ends."""
    for step in steps:
        info, done = step["finals"][i], bool(step["dones"][i])
        truncated = info.get("TimeLimit.truncated", False)
        next_obs = info["terminal_observation"] if done else step["new_obs"][i]
        yield step["obs"][i], step["actions"][i], float(step["rewards"][i]), done and not truncated, next_obs, done


def tensor(array):
    return th.as_tensor(np.asarray(array)[None], dtype=th.float64)


def action_of(policy, action):
    given = th.as_tensor(np.reshape(action, (1, -1)), dtype=th.float64)
    return given.flatten().long() if policy.action_space.__class__.__name__ == "Discrete" else given


def log_prob_and_entropy(policy, obs, action):
    _, log_prob, entropy = policy.evaluate_actions(tensor(obs), action_of(policy, action))
    return log_prob.sum(), entropy.sum()


def gradient(output, parameters):
    found = th.autograd.grad(output, parameters, allow_unused=True)
    return [th.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def move(parameters, scale, directions):
    with th.no_grad():
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter += scale * direction


def compare(model, policy, tolerance=2e-5):
    expected, actual = (th.nn.utils.parameters_to_vector(p.parameters()).detach() for p in (policy, model.policy))
    assert th.allclose(actual.double(), expected, rtol=0, atol=tolerance)


class Bounded:
    """What ObGD and its adaptive version make of a trace, by their equations."""

    def __init__(self, kappa, adaptive):
        self.kappa, self.adaptive, self.t, self.v = kappa, adaptive, 0, None

    def __call__(self, delta, trace, rate):
        self.t += 1
        if self.adaptive:
            self.v = [th.zeros_like(z) for z in trace] if self.v is None else self.v
            self.v = [0.999 * v + 0.001 * (delta * z) ** 2 for v, z in zip(self.v, trace, strict=True)]
            pairs = zip(trace, self.v, strict=True)
            trace = [z / (v / (1 - 0.999**self.t) + 1e-8).sqrt() for z, v in pairs]
        bound = rate * self.kappa * max(abs(delta), 1) * sum(float(z.abs().sum()) for z in trace)
        return rate / max(1, bound) * delta, trace


@pytest.mark.parametrize("engine", ["array", "autograd"])
@pytest.mark.parametrize("optimizer", ["sgd", "obgd", "adaptive_obgd"])
@pytest.mark.parametrize("space", ["Box", "MultiDiscrete"])
def test_td_lambda_with_several_environments(space, optimizer, engine):
    n_envs, ent_coef, rate = 2, 0.05, 0.02 if optimizer == "sgd" else 1.0
    arguments = {"optimizer": optimizer, "ent_coef": ent_coef, "learning_rate": rate, "engine": engine}
    model, policy, _, steps = train(space, n_envs, discount_state_distribution=True, **arguments)
    parameters = list(policy.parameters())
    zero = [th.zeros_like(p) for p in parameters]
    traces = [{"actor": zero, "critic": zero, "discount": 1.0} for _ in range(n_envs)]
    adaptive = optimizer == "adaptive_obgd"
    rules = {"actor": Bounded(3.0, adaptive), "critic": Bounded(2.0, adaptive)}
    for rows in zip(*(transitions(steps, i) for i in range(n_envs)), strict=True):
        for z, (obs, action, reward, terminal, next_obs, ends) in zip(traces, rows, strict=True):
            value, next_value = (policy.predict_values(tensor(each)).sum() for each in (obs, next_obs))
            delta = reward + GAMMA * (0.0 if terminal else next_value.item()) - value.item()
            log_prob, entropy = log_prob_and_entropy(policy, obs, action)
            of_actor = gradient(log_prob + ent_coef * np.sign(delta) * entropy, parameters)
            of_critic = gradient(value, parameters)
            z["critic"] = [GAMMA * LAMBDA * e + g for e, g in zip(z["critic"], of_critic, strict=True)]
            pairs = zip(z["actor"], of_actor, strict=True)
            z["actor"] = [GAMMA * LAMBDA * e + z["discount"] * g for e, g in pairs]
            z["discount"] *= GAMMA
            for name, rule in rules.items():
                move(parameters, *((rate * delta, z[name]) if optimizer == "sgd" else rule(delta, z[name], rate)))
            if ends:
                z.update(actor=zero, critic=zero, discount=1.0)
    compare(model, policy, 1e-4 if adaptive else 2e-5)


def test_lambda_0_is_the_td_actor_critic():
    """Without traces: θ ← θ + αδ∇log π, v ← v + βδ∇V."""
    model, policy, _, steps = train(trace_lambda=0.0, actor_learning_rate=0.03, critic_learning_rate=0.01)
    parameters = list(policy.parameters())
    for obs, action, reward, terminal, next_obs, _ in transitions(steps):
        value, next_value = (policy.predict_values(tensor(each)).sum() for each in (obs, next_obs))
        delta = reward + GAMMA * (0.0 if terminal else next_value.item()) - value.item()
        log_prob, _ = log_prob_and_entropy(policy, obs, action)
        of_actor, of_critic = gradient(log_prob, parameters), gradient(value, parameters)
        move(parameters, 0.01 * delta, of_critic)
        move(parameters, 0.03 * delta, of_actor)
    compare(model, policy)


def test_averaged_updates_are_the_mean_of_all():
    """With λ = 0, of the updates that every environment alone would have made."""
    model, policy, _, steps = train(n_envs=3, n_steps=9, trace_lambda=0.0, env_updates="averaged")
    parameters = list(policy.parameters())
    for rows in zip(*(transitions(steps, i) for i in range(3)), strict=True):
        updates = [th.zeros_like(p) for p in parameters]
        for obs, action, reward, terminal, next_obs, _ in rows:
            value, next_value = (policy.predict_values(tensor(each)).sum() for each in (obs, next_obs))
            delta = reward + GAMMA * (0.0 if terminal else next_value.item()) - value.item()
            total = gradient(value + log_prob_and_entropy(policy, obs, action)[0], parameters)
            updates = [u + delta * g / 3 for u, g in zip(updates, total, strict=True)]
        move(parameters, 0.02, updates)
    compare(model, policy)


@pytest.mark.parametrize("net_arch", [[6], {"shared": [6]}])
@pytest.mark.parametrize("engine", ["compiled", "array", "autograd"])
def test_one_trace_for_all_parameters_with_rmsprop(engine, net_arch):
    """z ← γλz + ∇(V + ½ log π); g = δz + τ∇H; w ← w + αg/√(EMA(g²) + ε)."""
    if engine == "compiled":
        pytest.importorskip("numba")
    rate, tau = 0.01, 0.1
    arguments = {"optimizer": "rmsprop", "ent_coef": tau, "learning_rate": rate, "engine": engine}
    model, policy, _, steps = train("Discrete", policy_kwargs={"net_arch": net_arch}, **arguments)
    parameters = list(policy.parameters())
    trace = zero = [th.zeros_like(p) for p in parameters]
    squares = zero
    for obs, action, reward, terminal, next_obs, ends in transitions(steps):
        value, next_value = (policy.predict_values(tensor(each)).sum() for each in (obs, next_obs))
        delta = reward + GAMMA * (0.0 if terminal else next_value.item()) - value.item()
        log_prob, entropy = log_prob_and_entropy(policy, obs, action)
        of_entropy = gradient(entropy, parameters)
        log_prob, _ = log_prob_and_entropy(policy, obs, action)
        of_both = gradient(value + 0.5 * log_prob, parameters)
        trace = [GAMMA * LAMBDA * z + g for z, g in zip(trace, of_both, strict=True)]
        total = [delta * z + tau * h for z, h in zip(trace, of_entropy, strict=True)]
        squares = [0.999 * v + 0.001 * g**2 for v, g in zip(squares, total, strict=True)]
        move(parameters, rate, [g / (v + 1e-4).sqrt() for g, v in zip(total, squares, strict=True)])
        trace = zero if ends else trace
    compare(model, policy, 1e-4)


class Terminates(RandomEnv):
    """Every episode terminates."""

    def reset(self, **kwargs):
        obs, info = super().reset(**kwargs)
        self.n_episodes = 2
        return obs, info


@pytest.mark.parametrize("target", ["sarsa", "expected", "max"])
@pytest.mark.parametrize("critic", ["q", "q_minus_v"])
def test_q_actor_critics(critic, target):
    """The critic first, with sarsa and expected targets; the actor first, with max."""
    model, policy, q_net, steps = train("Discrete", env=Terminates, critic=critic, critic_target=target)
    parameters, of_q = list(policy.parameters()), list(q_net.parameters())
    trace, v_trace = [th.zeros_like(p) for p in of_q], [th.zeros_like(p) for p in parameters]
    recorded = list(transitions(steps))
    next_actions = [row[1] for row in recorded[1:]] + [None]
    for (obs, action, reward, terminal, next_obs, ends), next_action in zip(recorded, next_actions, strict=True):
        if next_action is None and not terminal and target == "sarsa":
            return  # the training ended before the next action was taken
        one = th.as_tensor([[int(action)]])
        q_value = q_net(tensor(obs), one).sum()
        q_next = q_net.outputs(tensor(next_obs))[0].detach()
        probs = policy.get_distribution(tensor(next_obs)).distribution.probs[0].detach()
        chosen = 0 if next_action is None else int(next_action)
        bootstrap = {"sarsa": q_next[chosen], "expected": probs @ q_next, "max": q_next.max()}[target]
        delta = reward + GAMMA * (0.0 if terminal else bootstrap.item()) - q_value.item()
        trace = [GAMMA * LAMBDA * z + g for z, g in zip(trace, gradient(q_value, of_q), strict=True)]
        value, next_value = (policy.predict_values(tensor(each)).sum() for each in (obs, next_obs))
        v_delta = reward + GAMMA * (0.0 if terminal else next_value.item()) - value.item()
        v_trace = [GAMMA * LAMBDA * z + g for z, g in zip(v_trace, gradient(value, parameters), strict=True)]

        def improve_critics(delta=delta, v_delta=v_delta, trace=trace, v_trace=v_trace):
            move(of_q, 0.02 * delta, trace)
            if critic == "q_minus_v":
                move(parameters, 0.02 * v_delta, v_trace)

        if target != "max":
            improve_critics()
        weight = q_net(tensor(obs), one).sum().item()
        if critic == "q_minus_v":
            weight -= policy.predict_values(tensor(obs)).sum().item()
        log_prob, _ = log_prob_and_entropy(policy, obs, action)
        move(parameters, 0.02 * weight, gradient(log_prob, parameters))
        if target == "max":
            improve_critics()
        if ends:
            trace, v_trace = [th.zeros_like(p) for p in of_q], [th.zeros_like(p) for p in parameters]
    compare(model, policy)


def test_a_compatible_critic():
    """Q = V + ωᵀψ, ψ = ∇log π; the target is r + γV(s')."""
    model, policy, _, steps = train("Discrete", critic="compatible")
    parameters = list(policy.parameters())
    weights = zero = [th.zeros_like(p) for p in parameters]
    trace = v_trace = zero
    for obs, action, reward, terminal, next_obs, ends in transitions(steps):
        value, next_value = (policy.predict_values(tensor(each)).sum() for each in (obs, next_obs))
        score = gradient(log_prob_and_entropy(policy, obs, action)[0], parameters)
        advantage = sum(float((w * s).sum()) for w, s in zip(weights, score, strict=True))
        delta = reward + GAMMA * (0.0 if terminal else next_value.item()) - value.item() - advantage
        trace = [GAMMA * LAMBDA * z + g for z, g in zip(trace, score, strict=True)]
        v_trace = [GAMMA * LAMBDA * z + g for z, g in zip(v_trace, gradient(value, parameters), strict=True)]
        move(parameters, 0.02 * delta, v_trace)
        weights = [w + 0.02 * delta * z for w, z in zip(weights, trace, strict=True)]
        advantage = sum(float((w * s).sum()) for w, s in zip(weights, score, strict=True))
        move(parameters, 0.02 * advantage, score)
        trace, v_trace = (zero, zero) if ends else (trace, v_trace)
    compare(model, policy)


class TraceRecorder(Recorder):
    """Notes the actor's trace, too, as it was before this step."""

    def _on_step(self):
        self.steps.append(self.model.memory.actor_traces[0].double().clone())
        return True


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
def test_with_frozen_parameters_the_sum_of_updates_is_that_of_gae(lam):
    """Σ δ_t e_t = Σ A_t ∇log π_t, over several episodes, terminated and truncated."""
    env = DummyVecEnv([RandomEnv])
    kwargs = {"net_arch": [6]}
    model = ActorCritic(
        "MlpPolicy", env, 0.0, gamma=GAMMA, trace_lambda=lam, seed=1, device="cpu", policy_kwargs=kwargs
    )
    policy, recorder, traces = in_double_precision(model.policy), Recorder(), TraceRecorder()
    model.learn(40, [recorder, traces])
    all_traces = [*traces.steps[1:], model.memory.actor_traces[0].double()]
    rows = list(transitions(recorder.steps))
    parameters = [p for n, p in policy.named_parameters() if n.startswith(("log_std", "mlp_extractor.pol", "action"))]
    with th.no_grad():
        values = np.array([float(policy.predict_values(tensor(row[0])).sum()) for row in rows])
        next_values = np.array([0.0 if row[3] else float(policy.predict_values(tensor(row[4])).sum()) for row in rows])
    rewards, ends = np.array([row[2] for row in rows]), np.array([row[5] for row in rows])
    deltas = rewards + GAMMA * next_values - values
    advantages = returns.discounted_sum(deltas[:, None], GAMMA * lam * ~ends[:, None])[:, 0]
    scores = [
        th.cat([g.flatten() for g in gradient(log_prob_and_entropy(policy, row[0], row[1])[0], parameters)])
        for row in rows
    ]
    expected = sum(a * score for a, score in zip(advantages, scores, strict=True))
    actual = sum(delta * trace for delta, trace in zip(deltas, all_traces, strict=True))
    assert 5 < ends.sum() < 10
    assert float((actual - expected).abs().max()) <= 1e-6 * float(expected.abs().max())
