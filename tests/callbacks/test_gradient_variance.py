"""What GradientVarianceCallback measures, against loops in double precision; and that training does not notice it."""

import random
from copy import deepcopy
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from conformance.algorithms import record
from envs import ACTION_SPACES, OBSERVATION_SPACES, MaskedEnv, RandomEnv, SpoiltEnv
from gymnasium import spaces
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_pg_ext import NPG, REINFORCE, fast, make_baseline
from sb3_pg_ext.callbacks import GradientVarianceCallback

GAMMA, GAE_LAMBDA = 0.8, 0.7


class Walk(gym.Env):
    """Three states, two actions; every step may be the last, and the fourth is. It keeps a record of its episodes.

    They are recorded in batches: one begins with every reset that does not follow the end of an episode.
    """

    observation_space = spaces.Discrete(3)
    action_space = spaces.Discrete(2)

    def __init__(self):
        self.batches = []
        self.ended = False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if not self.ended:
            self.batches.append([])
        self.state, self.ended = 0, False
        self.batches[-1].append({"states": [0], "actions": [], "rewards": [], "terminated": False})
        return self.state, {}

    def step(self, action):
        episode = self.batches[-1][-1]
        reward = float(self.state + 2 * action + self.np_random.normal())
        self.state = int(self.np_random.integers(3))
        terminated = bool(self.np_random.random() < 0.3)
        episode["states"].append(self.state)
        episode["actions"].append(int(action))
        episode["rewards"].append(reward)
        episode["terminated"] = terminated
        truncated = not terminated and len(episode["actions"]) == 4
        self.ended = terminated or truncated
        return self.state, reward, terminated, truncated, {}


def softmax_score(weight, bias, state, action):
    """∇ log π(a|s) of π(a|s) ∝ exp(w_as + b_a), with respect to w and b."""
    odds = np.exp(weight[:, state] + bias)
    wrt_logits = np.eye(len(bias))[action] - odds / odds.sum()
    return np.concatenate([np.outer(wrt_logits, np.eye(3)[state]).ravel(), wrt_logits])


def rewards_to_go(episode):
    rewards = episode["rewards"]
    return [sum(GAMMA**k * r for k, r in enumerate(rewards[t:])) for t in range(len(rewards))]


def gae(episode, values):
    states, rewards = episode["states"], episode["rewards"]
    deltas = []
    for t, reward in enumerate(rewards):
        terminal = episode["terminated"] and t == len(rewards) - 1
        deltas.append(reward + (0 if terminal else GAMMA * values[states[t + 1]]) - values[states[t]])
    return [sum((GAMMA * GAE_LAMBDA) ** k * d for k, d in enumerate(deltas[t:])) for t in range(len(deltas))]


def weights_of(batch, values):
    """By the name of the estimator: what ∇log π is multiplied with, episode by episode, step by step."""
    to_go = [rewards_to_go(episode) for episode in batch]
    total = [[returns[0]] * len(returns) for returns in to_go]
    mean, total_mean = np.mean(np.concatenate(to_go)), np.mean([returns[0] for returns in to_go])
    value = [[values[state] for state in episode["states"][:-1]] for episode in batch]
    return {
        "none": to_go,
        "mean": [np.subtract(returns, mean) for returns in to_go],
        "value": [np.subtract(*pair) for pair in zip(to_go, value, strict=True)],
        "total_none": total,
        "total_mean": [np.subtract(returns, total_mean) for returns in total],
        "gae": [gae(episode, values) for episode in batch],
    }


def gradients_of(batch, weights, weight, bias):
    """Σ_t ∇log π(a_t|s_t)·w_t of every episode, [m, n]."""
    return np.array(
        [
            sum(
                softmax_score(weight, bias, state, action) * w
                for state, action, w in zip(episode["states"], episode["actions"], row, strict=False)
            )
            for episode, row in zip(batch, weights, strict=True)
        ]
    )


def minus_optimum(g, x):
    """X − b g with the number b that minimises the variance over these episodes."""
    return x - (x * g).sum() / (g * g).sum() * g if g.any() else x


def optimal_gradients_of(batch, weight, bias):
    """By the name of the estimator: the mean over the episodes, after the subtraction of an optimal baseline."""
    to_go = [rewards_to_go(episode) for episode in batch]
    total = [[returns[0]] * len(returns) for returns in to_go]
    g, x, total_x = (gradients_of(batch, w, weight, bias) for w in ([[1] * 4] * len(batch), to_go, total))
    of_others = [
        x_i - g_i * np.delete(x * g, i, axis=0).sum() / np.delete(g * g, i, axis=0).sum()
        for i, (x_i, g_i) in enumerate(zip(x, g, strict=True))
    ]
    return {
        "optimal": minus_optimum(g, x).mean(axis=0),
        "of others": np.mean(of_others, axis=0),
        "components": np.mean([minus_optimum(*pair) for pair in zip(g.T, x.T, strict=True)], axis=1),
        "total_optimal": minus_optimum(g, total_x).mean(axis=0),
    }


def statistics_of(gradients, reference):
    """Variance, signal-to-noise ratio and cosine by name, of gradients by name."""
    expected = {}
    for name, values_of in gradients.items():
        variance = np.cov(np.transpose(values_of)).trace()
        pairs = [g @ h for i, g in enumerate(values_of) for j, h in enumerate(values_of) if i != j]
        cosines = []
        for i, g in enumerate(values_of):
            others = np.mean(gradients[reference][:i] + gradients[reference][i + 1 :], axis=0)
            cosines.append(g @ others / np.linalg.norm(g) / np.linalg.norm(others))
        expected[name] = (variance, np.mean(pairs) / variance, np.mean(cosines))
    return expected


def assert_agree(measured, expected):
    assert list(measured) == list(expected)
    for name, statistics in measured.items():
        found = (statistics.variance, statistics.snr, statistics.cosine)
        np.testing.assert_allclose(found, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def parameters_of(model):
    """Weight and bias of the actor, V of the three states."""
    parameters = {name: p.detach().double().numpy() for name, p in model.policy.named_parameters()}
    values = parameters["value_net.weight"][0] + parameters["value_net.bias"]
    return parameters["action_net.weight"], parameters["action_net.bias"], values


def randomize(model):
    rng = np.random.default_rng(0)
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.copy_(th.as_tensor(rng.normal(size=parameter.shape) / 2))


def tabular(algorithm, **kwargs):
    model = algorithm("MlpPolicy", Walk(), gamma=GAMMA, policy_kwargs={"net_arch": []}, seed=0, device="cpu", **kwargs)
    randomize(model)
    return model


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("reference", ["mean", "gae"])
def test_statistics_are_those_of_a_brute_force_computation(n_envs, reference, monkeypatch):
    monkeypatch.setattr("sb3_pg_ext.policies.evaluation.CHUNK_BYTES", 40)  # five observations
    model = tabular(A2C, gae_lambda=GAE_LAMBDA)
    envs = [Walk() for _ in range(n_envs)]
    callback = GradientVarianceCallback(
        DummyVecEnv([lambda env=env: env for env in envs]),
        baselines=["none", "mean", "value"],
        total_return_baselines=["none", "mean"],
        advantage_estimators=["gae"],
        n_batches=6,
        n_episodes=4,
        reference=reference,
    )
    callback.init_callback(model)
    measured = callback.measure()
    batches = [[e for env in envs for e in env.batches[b][: 4 // n_envs]] for b in range(6)]
    assert {episode["terminated"] for batch in batches for episode in batch} == {True, False}
    weight, bias, values = parameters_of(model)
    gradients = {}
    for batch in batches:
        for name, weights in weights_of(batch, values).items():
            gradients.setdefault(name, []).append(gradients_of(batch, weights, weight, bias).mean(axis=0))
    assert_agree(measured, statistics_of(gradients, reference))


def test_baselines_may_read_score_functions():
    env, model = Walk(), tabular(A2C)
    callback = GradientVarianceCallback(
        env,
        baselines={
            "optimal": make_baseline("optimal"),
            "of others": make_baseline("optimal", cross_fit=True),
            "components": make_baseline("optimal_per_component"),
        },
        total_return_baselines=["optimal"],
        n_batches=6,
        n_episodes=4,
        reference="of others",
    )
    callback.init_callback(model)
    measured = callback.measure()
    weight, bias, _ = parameters_of(model)
    by_batch = [optimal_gradients_of(batch[:4], weight, bias) for batch in env.batches[:6]]
    gradients = {name: [of_batch[name] for of_batch in by_batch] for name in by_batch[0]}
    assert_agree(measured, statistics_of(gradients, "of others"))


def test_states_are_discounted_where_the_model_does_so():
    env, model = Walk(), tabular(REINFORCE, discount_state_distribution=True)
    callback = GradientVarianceCallback(env, ["none"], ["none"], n_batches=4, n_episodes=3, reference="none")
    callback.init_callback(model)
    measured = callback.measure()
    weight, bias, _ = parameters_of(model)
    gradients = {"none": [], "total_none": []}
    for batch in env.batches[:4]:
        to_go = [rewards_to_go(episode) for episode in batch[:3]]
        discounted = [np.multiply(returns, GAMMA ** np.arange(len(returns))) for returns in to_go]
        total = [[returns[0]] * len(returns) for returns in to_go]
        gradients["none"].append(gradients_of(batch[:3], discounted, weight, bias).mean(axis=0))
        gradients["total_none"].append(gradients_of(batch[:3], total, weight, bias).mean(axis=0))
    assert_agree(measured, statistics_of(gradients, "none"))


def test_a_baseline_that_learns_starts_anew_with_every_measurement():
    by_hand = make_baseline("moving_average", decay=0.5)
    callback = GradientVarianceCallback(Walk(), {"none": make_baseline("none"), "mine": by_hand}, reference="none")
    callback.init_callback(tabular(A2C))
    first, second = callback.measure(), callback.measure()
    assert first == second
    assert by_hand == make_baseline("moving_average", decay=0.5)
    assert first["mine"].variance < first["none"].variance  # from the first batch on


class Coin(gym.Env):
    """One step: heads pays 3, tails 1."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action):
        return np.ones(1, np.float32), (1.0, 3.0)[action], True, False, {}


def test_the_variance_is_the_exact_one():
    """With a fair coin, g = ±½ in each of the four components, times the reward: all can be enumerated."""
    model = REINFORCE("MlpPolicy", Coin(), policy_kwargs={"net_arch": []}, device="cpu")
    with th.no_grad():
        model.policy.action_net.weight.zero_()
    callback = GradientVarianceCallback(Coin(), ["none"], n_batches=400, n_episodes=1, reference="none")
    callback.init_callback(model)
    outcomes = np.array([-0.5 * 1, 0.5 * 3])  # of one component, each with probability ½
    # Between two equally probable numbers, even a skewed sample has nearly the exact variance.
    assert callback.measure()["none"].variance == pytest.approx(4 * outcomes.var(), rel=0.02)


def test_a_good_baseline_removes_variance():
    model = REINFORCE("MlpPolicy", Walk(), policy_kwargs={"net_arch": []}, device="cpu")
    callback = GradientVarianceCallback(Walk(), ["none", "mean"], total_return_baselines=["none"], n_batches=40)
    callback.init_callback(model)
    measured = callback.measure()
    assert measured["mean"].variance < measured["none"].variance < measured["total_none"].variance
    assert measured["mean"].snr > measured["none"].snr


def train(algorithm, make_env, callback_env=None, policy="MlpPolicy", **kwargs):
    """Train a little, with the callback if it gets an environment; return the model, its log and all random states."""
    chosen = {"baselines": ["none", "mean"], "n_batches": 2, "n_episodes": 2, "update_freq": 2}
    callback = None
    if callback_env is not None:
        if algorithm is not REINFORCE:
            chosen |= {"baselines": ["mean", "value"], "advantage_estimators": ["gae", "n_step", "vtrace"]}
        callback = GradientVarianceCallback(callback_env, **chosen)
    model = algorithm(policy, make_env(), seed=1, device="cpu", **kwargs)
    log = record(model)
    model.learn(120, callback, log_interval=1)
    return model, log.latest, (random.getstate(), np.random.get_state()[1].tolist(), th.get_rng_state().tolist())


def on(action_space, observation_space="Box"):
    return lambda: RandomEnv(ACTION_SPACES[action_space], OBSERVATION_SPACES[observation_space])


def normalized():
    return VecNormalize(DummyVecEnv([on("Box")]))


SMALL = {"n_steps": 20, "policy_kwargs": {"net_arch": [4]}}
SMALL_PPO = {**SMALL, "batch_size": 10, "n_epochs": 2}
SMALL_CNN = {"net_arch": [4], "features_extractor_kwargs": {"features_dim": 8}}
SMALL_COMBINED = {"net_arch": [4], "features_extractor_kwargs": {"cnn_output_dim": 8}}
RUNS = {
    "REINFORCE": (REINFORCE, on("Discrete"), {"n_episodes": 4}),
    "REINFORCE, gSDE": (REINFORCE, on("Box"), {"n_episodes": 4, "use_sde": True, "sde_sample_freq": 2}),
    "A2C": (A2C, on("Box of two dimensions"), SMALL),
    "PPO": (PPO, on("MultiDiscrete"), SMALL_PPO),
    "PPO, gSDE": (PPO, on("Box"), {**SMALL_PPO, "use_sde": True, "sde_sample_freq": 4}),
    "PPO, normalized": (PPO, normalized, SMALL_PPO),
    "PPO, image": (PPO, on("Discrete", "image"), {**SMALL_PPO, "policy": "CnnPolicy", "policy_kwargs": SMALL_CNN}),
    "A2C, Dict": (
        A2C,
        on("MultiBinary", "Dict"),
        {**SMALL, "policy": "MultiInputPolicy", "policy_kwargs": SMALL_COMBINED},
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_training_goes_on_as_without_it(name):
    algorithm, make_env, kwargs = RUNS[name]
    runs = [train(algorithm, make_env, env, **deepcopy(kwargs)) for env in (None, make_env())]
    (without, _, states), (model, log, states_with) = runs
    assert all(map(th.equal, without.policy.state_dict().values(), model.policy.state_dict().values()))
    assert states == states_with
    measured = {key: value for key, value in log.items() if key.startswith("gradient/")}
    assert len(measured) == 3 * (2 if algorithm is REINFORCE else 5)
    assert np.isfinite(list(measured.values())).all()


def test_the_same_policy_gives_the_same_numbers():
    measured = []
    for _ in range(2):
        model = REINFORCE("MlpPolicy", Walk(), seed=0, device="cpu")
        callback = GradientVarianceCallback(Walk(), n_batches=3)
        callback.init_callback(model)
        measured.append([callback.measure(), callback.measure()])
        th.rand(1)
    assert measured[0][0] == measured[0][1] == measured[1][0]


def test_it_measures_before_every_so_many_rollouts(monkeypatch):
    calls = []
    monkeypatch.setattr(GradientVarianceCallback, "measure", lambda self: calls.append(self.num_timesteps) or {})
    A2C("MlpPolicy", Walk(), n_steps=5, device="cpu").learn(50, GradientVarianceCallback(Walk(), update_freq=4))
    assert calls == [0, 20, 40]


def test_bad_numbers_do_not_end_the_training():
    env = SpoiltEnv("reward", float("nan"), range(100))
    model = A2C("MlpPolicy", RandomEnv(), n_steps=5, device="cpu")
    with pytest.warns(RuntimeWarning, match="not measured: reward nan"):
        model.learn(5, GradientVarianceCallback(env))


def test_a_bad_baseline_does_not_end_the_training():
    bad = {"bad": lambda episodes: np.full_like(episodes.returns, np.nan)}
    model = A2C("MlpPolicy", Walk(), n_steps=5, device="cpu")
    with pytest.warns(RuntimeWarning, match="not measured: gradient by 'bad' with NaN"):
        model.learn(5, GradientVarianceCallback(Walk(), bad, reference="bad"))


@pytest.mark.parametrize("b", [0.0, np.zeros(1, np.float32), [0.0, 0.0], np.zeros((1, 1))])
def test_nothing_of_a_baseline_is_broadcast(b):
    model = A2C("MlpPolicy", Walk(), n_steps=5, device="cpu")
    with pytest.raises(ValueError, match=r"it returned the shape .*; allowed"):
        model.learn(5, GradientVarianceCallback(Walk(), {"mine": lambda episodes: b}, reference="mine"))


def test_baselines_in_double_precision():
    class Numbers(GradientVarianceCallback):
        def _on_rollout_start(self):
            self.measured = self.measure()

    statistics = []
    for dtype in (np.float32, np.float64):
        baselines = {"mine": lambda episodes, dtype=dtype: np.ones(len(episodes.t), dtype)}
        callback = Numbers(Walk(), baselines, reference="mine")
        A2C("MlpPolicy", Walk(), n_steps=5, device="cpu", seed=0).learn(5, callback)
        statistics.append(callback.measured)
    assert statistics[0] == statistics[1]


BAD_ARGUMENTS = {
    "update_freq": ({"update_freq": 0}, "update_freq=0; allowed: an integer ≥ 1"),
    "n_batches": ({"n_batches": 1}, "n_batches=1; allowed: an integer ≥ 2"),
    "n_episodes": ({"n_episodes": 0}, "n_episodes=0; allowed: an integer ≥ 1"),
    "shares": ({"n_episodes": 3}, "n_episodes=3 cannot be shared equally by 2 environments"),
    "seed": ({"seed": -1}, "seed=-1; allowed: an integer ≥ 0"),
    "baseline": ({"baselines": ["men"]}, "men.*mean"),
    "reference": ({"reference": "men"}, r"reference='men' \(did you mean 'mean'\?\); allowed: 'none', 'mean'"),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments_say_what_is_allowed(name):
    arguments, message = BAD_ARGUMENTS[name]
    with pytest.raises(ValueError, match=message):
        GradientVarianceCallback(DummyVecEnv([Walk, Walk]), **arguments)


def test_the_reference_is_one_of_those_measured():
    assert GradientVarianceCallback(Walk(), ["none", "value"]).reference == "none"
    assert GradientVarianceCallback(Walk(), ["none", "mean"]).reference == "mean"
    assert GradientVarianceCallback(Walk(), [], advantage_estimators=["gae"]).reference == "gae"
    with pytest.raises(ValueError, match=r"baselines=\(\).*allowed: at least one"):
        GradientVarianceCallback(Walk(), [])


UNFIT = {
    "off-policy": (DQN, on("Discrete"), {}, {}, "in DQN; allowed: on-policy"),
    "recurrent": (RecurrentPPO, on("Discrete"), {"policy": "MlpLstmPolicy"}, {}, "allowed: no recurrence"),
    "other spaces": (A2C, on("Discrete", "Discrete"), {}, {}, "spaces do not match"),
    "not normalized": (A2C, lambda: VecNormalize(DummyVecEnv([on("Discrete")])), {}, {}, "differs.*VecNormalize"),
    "no critic": (REINFORCE, on("Discrete"), {}, {"baselines": ["value"]}, "'value'; allowed where.*critic"),
    "no critic for an estimator": (
        REINFORCE,
        on("Discrete"),
        {},
        {"advantage_estimators": ["gae"]},
        "'gae'; allowed where.*critic",
    ),
    "estimator": (A2C, on("Discrete"), {}, {"advantage_estimators": ["gea"]}, "gea.*gae"),
    "single episode": (
        A2C,
        on("Discrete"),
        {},
        {"baselines": ["leave_one_out"], "n_episodes": 1},
        "'leave_one_out' together with n_episodes=1; allowed: n_episodes ≥ 2",
    ),
    "image": (
        PPO,
        on("Discrete", "image"),
        {"policy": "CnnPolicy"},
        {"baselines": ["linear"]},
        "'linear' with observations of .* numbers; allowed: at most 1000",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_is_refused_before_training(name):
    algorithm, make_env, kwargs, arguments, message = UNFIT[name]
    model = algorithm(kwargs.get("policy", "MlpPolicy"), make_env(), device="cpu")
    reference = {"reference": arguments["baselines"][0]} if "baselines" in arguments else {}
    callback = GradientVarianceCallback(make_env() if name == "image" else on("Discrete")(), **arguments, **reference)
    with pytest.raises(ValueError, match=message):
        model.learn(10, callback)
    assert model.num_timesteps == 0


class Endless(Walk):
    """No episode ends."""

    def step(self, action):
        obs, reward, *_ = super().step(action)
        return obs, reward, False, False, {}


def test_an_environment_without_an_end_is_told_of():
    model = A2C("MlpPolicy", Walk(), device="cpu")
    with pytest.raises(RuntimeWarning, match=r"no episode has ended in .*TimeLimit"):
        model.learn(5, GradientVarianceCallback(Endless(), n_batches=2, n_episodes=1))


# ---- action masks ---------------------------------------------------------------------------------------------------


class OneAction(MaskedEnv):
    """Allows a single action in every state."""

    def _choose_masks(self):
        self.masks = [np.arange(size) == self.np_random.integers(size) for size in self.sizes]


MASKED = {
    "REINFORCE": partial(REINFORCE, n_episodes=4, baseline="value"),
    "NPG": partial(NPG, n_steps=16),
    "fast.MaskablePPO": partial(fast.MaskablePPO, n_steps=16, batch_size=16),
    "MaskablePPO": partial(MaskablePPO, n_steps=16, batch_size=16),
}


@pytest.mark.parametrize("make", MASKED.values(), ids=MASKED.keys())
def test_masks(make):
    """The environment refuses a forbidden action; where there is no choice, there is no gradient."""
    for env_class, space in ((MaskedEnv, "MultiBinary"), (OneAction, "Discrete")):
        envs = [env_class(ACTION_SPACES[space]) for _ in range(2)]
        callback = GradientVarianceCallback(envs[0], ["none", "value"], n_batches=2, n_episodes=3)
        model = make("MlpPolicy", envs[1], seed=0, device="cpu")
        records = record(model)
        model.learn(16, callback)
        variances = [records.latest[f"gradient/{name}/variance"] for name in ("none", "value")]
        assert all(variance == 0 for variance in variances) == (env_class is OneAction)
        assert np.isfinite(variances).all()


def test_masks_are_ignored_as_in_the_training():
    class AllowsAll(MaskedEnv):
        step = RandomEnv.step

        def action_masks(self):
            raise AssertionError("asked for masks")

    for name in ("NPG", "MaskablePPO"):
        model = MASKED[name]("MlpPolicy", AllowsAll(), seed=0, device="cpu")
        model.learn(16, GradientVarianceCallback(AllowsAll(), n_batches=2, n_episodes=2), use_masking=False)
    PPO("MlpPolicy", AllowsAll(), n_steps=16, batch_size=16).learn(
        16, GradientVarianceCallback(AllowsAll(), n_batches=2, n_episodes=2)
    )


def test_an_environment_without_the_masks_of_the_training_is_refused():
    model = MASKED["NPG"]("MlpPolicy", MaskedEnv(), seed=0, device="cpu")
    with pytest.raises(ValueError, match="use_masking=True, but the environment does not support action masking"):
        model.learn(16, GradientVarianceCallback(RandomEnv(ACTION_SPACES["Discrete"]), n_batches=2, n_episodes=2))


def test_baselines_that_see_the_action_estimate_the_same_gradient():
    """From the same batches: what they take away, and give back, differs by noise alone."""
    model = REINFORCE("MlpPolicy", Walk(), baseline="value", gamma=GAMMA, seed=0, device="cpu").learn(200)
    names = ["value", "q_prop", "action_factorized", "value_time"]
    callback = GradientVarianceCallback(Walk(), names, n_batches=30, n_episodes=20, reference="value")
    callback.init_callback(model)
    measured = callback.measure()
    assert measured["action_factorized"] == measured["value"]
    for name in ("q_prop", "value_time"):
        assert measured[name] != measured["value"]
        assert measured[name].variance == pytest.approx(measured["value"].variance, rel=0.1)
        assert measured[name].cosine == pytest.approx(measured["value"].cosine, rel=0.05)
