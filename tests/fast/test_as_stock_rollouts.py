"""The rollouts of the fast twins, against those of the stock classes and against a slow reference."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch as th
from comparison import A2C, PPO, AskedItself, assert_trains_alike, each_pair, vec_env
from envs import ACTION_SPACES, OBSERVATION_SPACES, VECTOR, RandomEnv, SpoiltEnv
from gymnasium import spaces
from scripted import Script, ScriptedEnv
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecCheckNan,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from sb3_pg_ext.envs.fast_dummy import FastDummyVecEnv

pytestmark = pytest.mark.thorough


class KnownValues(AskedItself):
    """Its ``forward()``, from which a rollout takes values, gives a constant; ``predict_values()`` is SB3's."""

    constant = 0.75

    def forward(self, obs, deterministic=False):
        actions, values, log_probs = super().forward(obs, deterministic)
        return actions, th.full_like(values, self.constant), log_probs


class KnownPredictions(AskedItself):
    """The other way round: only the values with which a rollout bootstraps are constant."""

    def predict_values(self, obs):
        return 0 * super().predict_values(obs) - 1.25  # TRPO differentiates it


class Valued(KnownValues, KnownPredictions):
    """Both are, and differ."""


class OwnLogProbs(AskedItself):
    """An update's log-probabilities are not those of its rollouts."""

    def forward(self, obs, deterministic=False):
        actions, values, log_probs = super().forward(obs, deterministic)
        return actions, values, log_probs - 0.5


SCRIPTS = (
    (
        Script((1.0, -2.0, 0.5)),
        Script((3.0, 1.0), truncated=True),
        Script((0.25,), truncated=True),
        Script((-1.0,) * 5),
    ),
    (Script((2.0,), truncated=True), Script((-0.5, 4.0, 0.0, 1.5)), Script((1.0, 1.0, 1.0, 2.0), truncated=True)),
)


def scripted_env(action_space="Discrete"):
    return DummyVecEnv(
        [
            lambda n=n, scripts=scripts: ScriptedEnv(ACTION_SPACES[action_space], *scripts, first=100 * n)
            for n, scripts in enumerate(SCRIPTS)
        ]
    )


def history(env):
    """Every step of an environment: observation, reward, terminated, truncated, next observation."""
    for episode in env.played:
        for t, reward in enumerate(episode.rewards):
            ends = episode.complete and t == len(episode.rewards) - 1
            truncated = ends and episode.script.truncated
            yield episode.observations[t], reward, ends and not truncated, truncated, episode.observations[t + 1]


def slow_gae(policy, steps, gamma, gae_lambda):
    """Σ_k (γλ)^k δ_{t+k} to the end of the episode or of the rollout, sum by sum, in double precision."""

    observations, next_observations = (th.as_tensor(np.stack([step[k] for step in steps])) for k in (0, -1))
    state = th.get_rng_state()
    with th.no_grad():
        values = policy(observations)[1].flatten().tolist()  # as at a step of the rollout
        predicted = policy.predict_values(next_observations).flatten().tolist()  # as where it, or an episode, is cut
    th.set_rng_state(state)
    deltas = []
    for t, (_, reward, terminated, truncated, _) in enumerate(steps):
        next_value = 0.0 if terminated else predicted[t]
        if not (terminated or truncated or t == len(steps) - 1):
            next_value = values[t + 1]
        deltas.append(reward + gamma * next_value - values[t])
    advantages = []
    for t in range(len(steps)):
        total, k = 0.0, 0
        while t + k < len(steps):
            total += (gamma * gae_lambda) ** k * deltas[t + k]
            if steps[t + k][2] or steps[t + k][3]:
                break
            k += 1
        advantages.append(total)
    return np.array(advantages), np.array(values)


class CheckAdvantages(BaseCallback):
    """Compares every rollout with the slow reference."""

    n_rollouts = 0

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        buffer, model = self.model.rollout_buffer, self.model
        first = self.n_rollouts * model.n_steps
        for n, env in enumerate(self.training_env.envs):
            steps = list(history(env))[first : first + model.n_steps]
            advantages, values = slow_gae(model.policy, steps, model.gamma, model.gae_lambda)
            np.testing.assert_allclose(buffer.values[:, n], values, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(buffer.advantages[:, n], advantages, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(buffer.returns[:, n], advantages + values, rtol=1e-4, atol=1e-5)
        self.n_rollouts += 1


@each_pair
@pytest.mark.parametrize("policy", ["MlpPolicy", AskedItself, KnownValues, KnownPredictions, Valued])
@pytest.mark.parametrize(("gamma", "gae_lambda"), [(0, 0.9), (0.9, 0), (0.99, 0.95), (1, 1)])
def test_advantages(pair, policy, gamma, gae_lambda):
    """Rollouts of 8 steps that begin and end anywhere in an episode."""
    model = pair.make_ours(scripted_env(), policy, n_steps=8, gamma=gamma, gae_lambda=gae_lambda)
    check = CheckAdvantages()
    model.learn(3 * 16, check)
    assert check.n_rollouts == 3


@pytest.mark.parametrize("policy", [AskedItself, KnownPredictions])
def test_the_reference_is_that_of_the_stock_class(policy):
    """So that the test above could fail for no other reason."""
    model = PPO.make(stable_baselines3.PPO, scripted_env(), policy, n_steps=8, gamma=0.9, gae_lambda=0.8)
    check = CheckAdvantages()
    model.learn(3 * 16, check)
    assert check.n_rollouts == 3


@each_pair
@pytest.mark.parametrize("policy", [KnownValues, KnownPredictions, Valued, OwnLogProbs])
@pytest.mark.parametrize("space", ["Box", "Discrete"])
def test_policies_with_a_forward_of_their_own(pair, policy, space):
    """Actions, values and log-probabilities of a rollout are what it says."""
    assert_trains_alike(pair, lambda: scripted_env(space), policy, total_timesteps=64)


class Ring(gym.Env):
    """Pays 1 at each step, for ever."""

    observation_space = spaces.Discrete(4)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0
        return self.place, {}

    def step(self, action):
        self.place = (self.place + 1) % 4
        return self.place, 1.0, False, False, {}


@each_pair
def test_time_limits_do_not_end_an_infinite_horizon(pair):
    """V approaches 1/(1 − γ) = 10, where Σ γ^t over the 8 steps of an episode is 5.7 at most."""
    kwargs = {"learning_rate": 0.05, "gamma": 0.9}
    model = pair.make_ours(gym.wrappers.TimeLimit(Ring(), 8), **kwargs).learn(800)
    for place in range(4):
        value = model.policy.predict_values(model.policy.obs_to_tensor(place)[0]).item()
        assert value == pytest.approx(10, abs=1)


@each_pair
@pytest.mark.parametrize("name", ACTION_SPACES)
def test_action_spaces(pair, name):
    assert_trains_alike(pair, lambda: vec_env(action_space=ACTION_SPACES[name]))


POLICIES = {"image": "CnnPolicy", "Dict": "MultiInputPolicy"}
SMALL = {"image": {"features_dim": 8}, "Dict": {"cnn_output_dim": 8}}
OBSERVATIONS = {
    **OBSERVATION_SPACES,
    "Dict of vectors": spaces.Dict({"one": VECTOR, "two": spaces.Box(-1, 1, (2, 2), np.float64)}),
}


@pytest.mark.parametrize("pair", [PPO, A2C], ids=["PPO", "A2C"])
@pytest.mark.parametrize("name", OBSERVATIONS)
def test_observation_spaces(pair, name):
    policy = "MultiInputPolicy" if name.startswith("Dict") else POLICIES.get(name, AskedItself)
    kwargs = {"features_extractor_kwargs": SMALL[name]} if name in SMALL else {}
    assert_trains_alike(
        pair, lambda: vec_env(observation_space=OBSERVATIONS[name]), policy, total_timesteps=64, policy_kwargs=kwargs
    )


def make_certain(model):
    """Let a policy take its most probable action, whatever the random numbers."""
    with th.no_grad():
        model.policy.action_net.weight *= 1e10


@pytest.mark.parametrize("pair", [PPO, A2C], ids=["PPO", "A2C"])
@pytest.mark.parametrize("name", ["Discrete", "MultiDiscrete"])
@pytest.mark.parametrize("observations", ["Box", "Box of two dimensions", "float64"])
def test_plain_networks_that_are_certain(pair, name, observations):
    """Where nothing depends on random numbers, the shortcuts for plain MLPs train the critic as SB3 does.

    With stochastic gradient descent, since others would make steps of rounding errors.
    """

    def make_env():
        return vec_env(action_space=ACTION_SPACES[name], observation_space=OBSERVATIONS[observations])

    kwargs = {"optimizer_class": th.optim.SGD}
    assert_trains_alike(pair, make_env, "MlpPolicy", 96, make_certain, policy_kwargs=kwargs, learning_rate=0.01)


VEC_ENVS = {
    "one": lambda: vec_env(1),
    "three": lambda: vec_env(3),
    "VecNormalize": lambda: VecNormalize(vec_env(), gamma=0.9),
    "VecNormalize of rewards": lambda: VecNormalize(vec_env(), norm_obs=False),
    "VecFrameStack": lambda: VecFrameStack(vec_env(), 3),
    "VecFrameStack in VecNormalize": lambda: VecNormalize(VecFrameStack(vec_env(), 2)),
    "VecCheckNan": lambda: VecCheckNan(vec_env(), raise_exception=True),
    "VecMonitor": lambda: VecMonitor(vec_env()),
    "Monitor": lambda: DummyVecEnv([lambda: Monitor(RandomEnv())] * 2),
    "TimeLimit": lambda: DummyVecEnv([lambda: gym.wrappers.TimeLimit(RandomEnv(length=9), 3)] * 2),
    "RescaleAction": lambda: gym.wrappers.RescaleAction(RandomEnv(), np.float32(-3), np.float32(3)),
    "FastDummyVecEnv": lambda: FastDummyVecEnv([RandomEnv, RandomEnv]),
    "VecExtractDictObs": lambda: VecExtractDictObs(vec_env(observation_space=OBSERVATIONS["Dict of vectors"]), "one"),
}


@pytest.mark.parametrize("pair", [PPO, A2C], ids=["PPO", "A2C"])
@pytest.mark.parametrize("name", VEC_ENVS)
def test_vectorised_environments(pair, name):
    assert_trains_alike(pair, VEC_ENVS[name], total_timesteps=64)


@each_pair
def test_time_limits_in_normalised_environments(pair):
    stock, twin = assert_trains_alike(pair, lambda: VecNormalize(vec_env(3)), total_timesteps=96)
    expected, actual = stock.env, twin.env
    for name in ("mean", "var", "count"):
        np.testing.assert_allclose(getattr(actual.obs_rms, name), getattr(expected.obs_rms, name), rtol=1e-6)
        np.testing.assert_allclose(getattr(actual.ret_rms, name), getattr(expected.ret_rms, name), rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_processes():
    def make_env():
        factory = partial(RandomEnv, observation_space=OBSERVATIONS["Dict of vectors"])
        return SubprocVecEnv([factory, factory], start_method="fork")

    assert_trains_alike(A2C, make_env, "MultiInputPolicy")


STACKED = {"vector": None, "number": None, "image": "last"}


@pytest.mark.parametrize("wrap", [VecNormalize, lambda env: VecFrameStack(env, 2, STACKED)])
def test_dict_observations_in_wrappers(wrap):
    space = spaces.Dict({**OBSERVATIONS["Dict"], "number": VECTOR})
    keys = {"norm_obs_keys": ["vector"]} if wrap is VecNormalize else {}
    assert_trains_alike(
        PPO,
        lambda: wrap(vec_env(observation_space=space), **keys),
        "MultiInputPolicy",
        total_timesteps=64,
        policy_kwargs={"features_extractor_kwargs": {"cnn_output_dim": 8}},
    )


@each_pair
def test_a_refusal_of_nan_ends_training(pair):
    """VecCheckNan raises before the collector could drop the rollout."""
    for model in pair.make_both(
        lambda: VecCheckNan(DummyVecEnv([lambda: SpoiltEnv("reward", np.nan, {0})]), raise_exception=True)
    ):
        with pytest.raises(ValueError, match="found nan in rewards"):
            model.learn(32)


class Locals(BaseCallback):
    def __init__(self):
        super().__init__()
        self.at_steps, self.at_ends = set(), set()

    def _on_step(self):
        self.at_steps |= self.locals.keys()
        return True

    def _on_rollout_end(self):
        self.at_ends |= self.locals.keys()


@pytest.mark.parametrize("policy", ["MlpPolicy", AskedItself])
def test_what_callbacks_see(policy):
    stock, twin = Locals(), Locals()
    for model, callback in zip(PPO.make_both(policy=policy), (stock, twin), strict=True):
        model.learn(32, callback)
    missing = {"obs_tensor", "values", "log_probs", "idx", "done", "terminal_obs", "terminal_value"}
    assert stock.at_steps - twin.at_steps <= missing
    assert stock.at_ends - twin.at_ends <= missing


@pytest.mark.parametrize("name", ["Box", "Box of two dimensions", "Discrete", "MultiDiscrete"])
def test_actions_of_plain_networks_look_like_those_of_stock_classes(name):
    """Their types and shapes, as callbacks and environments see them."""
    seen = []
    for model in PPO.make_both(lambda: vec_env(action_space=ACTION_SPACES[name])):

        def look(local_variables, _):
            seen.append(
                [(local_variables[key].dtype, local_variables[key].shape) for key in ("actions", "clipped_actions")]
            )
            return True

        model.learn(1, look)
    assert all(one == seen[0] for one in seen)


@each_pair
def test_rewards_that_a_callback_changes_are_learned_from(pair):
    def pay(local_variables, _):
        local_variables["rewards"] += 5
        return True

    sums = []
    for model in pair.make_both(policy=AskedItself):
        set_random_seed(5)
        model.learn(16, pay)
        sums.append(model.rollout_buffer.rewards.sum())
    assert sums[1] == pytest.approx(sums[0], rel=1e-5)
    assert sums[0] > 40


@each_pair
def test_rollouts_by_hand(pair):
    """``collect_rollouts`` and ``train``, called by whoever steers the training."""
    models = pair.make_both(policy=AskedItself)
    for model in models:
        set_random_seed(5)
        _, callback = model._setup_learn(64)
        for _ in range(2):
            assert model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
            model.train()
    stock, twin = models
    for name in ("observations", "actions", "rewards", "values", "log_probs", "advantages", "returns"):
        np.testing.assert_allclose(
            getattr(twin.rollout_buffer, name), getattr(stock.rollout_buffer, name), rtol=1e-4, atol=1e-5
        )
