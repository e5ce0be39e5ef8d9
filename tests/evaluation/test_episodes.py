"""Every seed is played once, exactly, and nothing else changes."""

import random
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from envs import IMAGE, OBSERVATION_SPACES, EveryEndEnv, MaskedEnv, RandomEnv
from gymnasium import spaces
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecFrameStack, VecNormalize

from sb3_pg_ext import NPG
from sb3_pg_ext.envs import make_vec_env
from sb3_pg_ext.evaluation.episodes import play_episodes

SEEDS = [7, 3, 1000, 12, 5, 4, 99]


class WalkEnv(gym.Env[Any, Any]):
    """A walk on a line whose length depends on the seed and on the actions; the reward is where it has come.

    :param lives: so many times it ends with a fall and goes on where it was
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.time = self.np_random.normal(), 0
        self.length = int(self.np_random.integers(1, 30))
        return self._see(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.time += 1
        self.place += self.np_random.normal() + 0.1 * (2 * int(action) - 1)
        end = self.time == self.length
        return self._see(), self.place, end, False, {"is_success": self.place > 0} if end else {}

    def _see(self) -> np.ndarray:
        return np.array([self.place, self.time], np.float32)


def small(algorithm: Any, env: Any, policy: str = "MlpPolicy", **arguments: Any) -> Any:
    return algorithm(policy, env, device="cpu", seed=0, **arguments)


def one_by_one(model: Any, env: VecEnv, seeds: list[int], masked: bool = False) -> list[tuple[float, int]]:
    """The slow way: a VecEnv of one environment, reset to every seed."""
    played = []
    for seed in seeds:
        env.seed(seed)
        obs, state, start, done = env.reset(), None, np.ones(1, bool), False
        total, length = 0.0, 0
        while not done:
            masks = {"action_masks": np.stack(env.env_method("action_masks"))} if masked else {}
            actions, state = model.predict(obs, state, start, deterministic=True, **masks)
            obs, rewards, dones, _ = env.step(actions)
            total, length, start, done = total + float(rewards[0]), length + 1, dones, dones[0]
        played.append((total, length))
    return played


def agree(episodes: Any, expected: list[tuple[float, int]]) -> None:
    assert [episode.length for episode in episodes] == [length for _, length in expected]
    np.testing.assert_allclose([episode.episode_return for episode in episodes], [r for r, _ in expected], rtol=1e-4)


@pytest.mark.parametrize("n_envs", [1, 3, 20])
def test_plays_every_seed_once_whatever_the_length_of_its_episode(n_envs):
    model = small(PPO, WalkEnv())
    episodes = play_episodes(model, WalkEnv, SEEDS, n_envs=n_envs)
    assert [episode.seed for episode in episodes] == SEEDS
    assert len({episode.length for episode in episodes}) > 3
    agree(episodes, one_by_one(model, DummyVecEnv([WalkEnv]), SEEDS))


def test_takes_what_names_or_makes_or_is_an_environment():
    model = small(PPO, "CartPole-v1")
    with th.no_grad():
        model.policy.action_net.bias += th.tensor([9.0, 0.0])  # it falls soon
    expected = one_by_one(model, DummyVecEnv([lambda: gym.make("CartPole-v1")]), SEEDS)
    for env in (
        "CartPole-v1",
        partial(gym.make, "CartPole-v1"),
        gym.make("CartPole-v1"),
        Monitor(gym.make("CartPole-v1")),
        make_vec_env("CartPole-v1", 3),
        DummyVecEnv([partial(gym.make, "CartPole-v1")] * 2),
    ):
        agree(play_episodes(model, env, SEEDS), expected)


@pytest.mark.parametrize("env_class", [WalkEnv, EveryEndEnv])
def test_a_subproc_vec_env_plays_the_same(env_class):
    model = small(PPO, env_class())
    env = SubprocVecEnv([env_class] * 2, start_method="fork")
    try:
        stacked = VecFrameStack(env, 2)
        model = small(PPO, VecFrameStack(DummyVecEnv([env_class]), 2))
        played = play_episodes(model, stacked, SEEDS, record=True)
    finally:
        env.close()
    expected = play_episodes(model, env_class, SEEDS, n_envs=2, record=True)
    for one, other in zip(played, expected, strict=True):
        assert (one.length, one.is_success) == (other.length, other.is_success)
        assert one.episode_return == pytest.approx(other.episode_return, rel=1e-6)
        for name in ("observations", "actions", "truncated", "values"):
            np.testing.assert_allclose(getattr(one.steps, name), getattr(other.steps, name), rtol=1e-5)


@pytest.mark.parametrize("observations", ["Box", "Dict", "image", "Discrete"])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_every_kind_of_observation(observations, n_envs):
    make = partial(RandomEnv, spaces.Discrete(3), OBSERVATION_SPACES[observations])
    policy = {"Dict": "MultiInputPolicy"}.get(observations, "MlpPolicy")
    model = small(PPO, make(), policy)
    played = play_episodes(model, make, SEEDS, n_envs=n_envs, record=True)
    agree(played, one_by_one(model, model._wrap_env(DummyVecEnv([make])), SEEDS))
    last = played[0].steps.observations
    assert len(last["vector"] if observations == "Dict" else last) == played[0].length + 1


def test_recurrent_policies_keep_their_state_through_an_episode_and_no_longer():
    model = small(RecurrentPPO, WalkEnv(), "MlpLstmPolicy", policy_kwargs={"lstm_hidden_size": 8})
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.mul_(5)
    agree(play_episodes(model, WalkEnv, SEEDS, n_envs=3), one_by_one(model, DummyVecEnv([WalkEnv]), SEEDS))


@pytest.mark.parametrize("algorithm", [MaskablePPO, NPG])
def test_masks_reach_policies_that_take_them(algorithm):
    """The environment refuses an action that its mask does not allow."""
    model = small(algorithm, MaskedEnv())
    agree(play_episodes(model, MaskedEnv, SEEDS, n_envs=3), one_by_one(model, DummyVecEnv([MaskedEnv]), SEEDS, True))


class WithMasks(WalkEnv):
    def action_masks(self):
        return np.ones(2, bool)


class Own(ActorCriticPolicy):
    """Takes no masks."""


@pytest.mark.parametrize("policy", ["MlpPolicy", Own])
@pytest.mark.parametrize("algorithm", [PPO, NPG])
def test_others_play_without_masks(algorithm, policy):
    model = small(algorithm, WithMasks(), policy)
    agree(play_episodes(model, WithMasks, SEEDS, n_envs=2), one_by_one(model, DummyVecEnv([WalkEnv]), SEEDS))


def normalized(venv: VecEnv) -> VecNormalize:
    env = VecNormalize(venv)
    env.obs_rms.mean, env.obs_rms.var, env.ret_rms.var = np.array([3.0, 10.0]), np.array([4.0, 50.0]), np.array(100.0)
    return env


def test_vec_normalize_is_in_step_and_stays_as_it_is():
    training = normalized(DummyVecEnv([WalkEnv]))
    model = small(PPO, training)
    fixed = normalized(DummyVecEnv([WalkEnv]))
    fixed.training = fixed.norm_reward = False
    expected = one_by_one(model, fixed, SEEDS)
    agree(play_episodes(model, WalkEnv, SEEDS, n_envs=2), expected)
    own = VecNormalize(DummyVecEnv([WalkEnv] * 2))
    agree(play_episodes(model, own, SEEDS), expected)
    np.testing.assert_array_equal(own.obs_rms.mean, training.obs_rms.mean)
    assert own.obs_rms is not training.obs_rms
    assert (own.training, own.norm_reward) == (True, True)
    np.testing.assert_array_equal(training.obs_rms.mean, [3, 10])


def test_a_model_without_environments_takes_the_statistics_of_the_one_that_is_given(tmp_path):
    small(PPO, normalized(DummyVecEnv([WalkEnv]))).save(tmp_path / "model")
    model = PPO.load(tmp_path / "model", device="cpu")
    fixed = normalized(DummyVecEnv([WalkEnv]))
    fixed.training = fixed.norm_reward = False
    expected = one_by_one(model, fixed, SEEDS)
    agree(play_episodes(model, normalized(DummyVecEnv([WalkEnv] * 3)), SEEDS), expected)


class Lives(gym.Wrapper):
    """Ends an episode at every fourth step, as those of Atari do with a life, and goes on after it."""

    def reset(self, **keywords: Any) -> Any:
        self.count = 0
        if getattr(self, "alive", False) and keywords.get("seed") is None:
            return self.last, {}
        self.alive = True
        return self.env.reset(**keywords)

    def step(self, action: Any) -> Any:
        self.last, reward, terminated, truncated, info = self.env.step(action)
        self.count += 1
        self.alive = not (terminated or truncated)
        return self.last, float(np.sign(reward)), terminated or self.count == 4, truncated, info


def test_an_episode_is_what_monitor_says():
    model = small(PPO, WalkEnv())
    expected = one_by_one(model, DummyVecEnv([WalkEnv]), SEEDS)
    episodes = play_episodes(model, DummyVecEnv([lambda: Lives(Monitor(WalkEnv()))] * 2), SEEDS, record=True)
    agree(episodes, expected)
    longest = max(episodes, key=lambda episode: episode.length)
    assert np.flatnonzero(longest.steps.terminated)[0] == 3
    assert set(longest.steps.rewards) <= {-1, 0, 1}


def test_records_what_the_environment_gave_and_got():
    model = small(PPO, normalized(DummyVecEnv([WalkEnv])))
    for episode in play_episodes(model, WalkEnv, SEEDS[:3], n_envs=2, record=True):
        env, steps = WalkEnv(), episode.steps
        obs, _ = env.reset(seed=episode.seed)
        for t, action in enumerate(steps.actions):
            np.testing.assert_array_equal(steps.observations[t], obs)
            normal = model.get_vec_normalize_env().normalize_obs(obs[None])
            value = model.policy.predict_values(th.as_tensor(normal)).item()
            assert steps.values[t] == pytest.approx(value, rel=1e-4, abs=1e-5)
            obs, reward, terminated, truncated, info = env.step(action)
            assert (steps.rewards[t], steps.terminated[t], steps.truncated[t]) == (reward, terminated, truncated)
        np.testing.assert_array_equal(steps.observations[-1], obs)
        assert len(steps.actions) == episode.length == env.length
        assert episode.episode_return == pytest.approx(steps.rewards.sum(), abs=1e-6)
        assert episode.is_success == info["is_success"]


def test_the_values_of_policies_without_a_critic_of_states_are_not_numbers():
    episode = play_episodes(small(DQN, WalkEnv(), buffer_size=10), WalkEnv, [0], record=True)[0]
    assert np.isnan(episode.steps.values).all()


def generators() -> list[Any]:
    return [random.getstate(), np.random.get_state()[1].tolist(), th.get_rng_state().tolist()]


@pytest.mark.parametrize("algorithm", [PPO, DQN])
@pytest.mark.parametrize("deterministic", [True, False])
def test_leaves_everything_as_it_was(algorithm, deterministic):
    model = small(algorithm, WalkEnv())
    model.policy.set_training_mode(True)
    model.policy.eval()
    model.policy.get_submodule(next(name for name, _ in model.policy.named_children())).train()
    modes = [module.training for module in model.policy.modules()]
    before = generators()
    play_episodes(model, WalkEnv, SEEDS, deterministic)
    assert generators() == before
    assert [module.training for module in model.policy.modules()] == modes


def test_sampled_actions_depend_on_the_seeds_alone():
    model = small(PPO, "CartPole-v1")

    def returns(deterministic):
        th.rand(1)
        return [episode.episode_return for episode in play_episodes(model, "CartPole-v1", SEEDS, deterministic)]

    assert returns(False) == returns(False)
    assert returns(False) != returns(True)


def test_an_environment_goes_on_as_itself():
    model = small(PPO, WalkEnv())
    env = VecFrameStack(DummyVecEnv([WalkEnv]), 1)
    inner = env.venv
    play_episodes(model, env, SEEDS)
    assert env.venv is inner
    with pytest.raises(ZeroDivisionError):
        play_episodes(model, VecFrameStack(DummyVecEnv([Failing]), 1), SEEDS)


class Failing(WalkEnv):
    def step(self, action):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": []}, r"seeds=\[\]; allowed: a list of distinct integers"),
        ({"seeds": 5}, "seeds=5; allowed: a list"),
        ({"seeds": [1, -1]}, "seeds=-1; allowed: distinct integers ≥ 0"),
        ({"seeds": [1, 2, 1]}, "seeds has 1 twice"),
        ({"deterministic": "no"}, "deterministic='no'; allowed: True or False"),
        ({"n_envs": 0}, "n_envs=0; allowed"),
        ({"env": 3}, "env=3; allowed: an id"),
        ({"env": WalkEnv(), "n_envs": 2}, "n_envs=2 with a single environment"),
        ({"env": DummyVecEnv([WalkEnv]), "n_envs": 2}, "n_envs=2 with 1 environments"),
        ({"env": "CartPole-v1"}, "Observation spaces do not match"),
        ({"env": make_vec_env(WalkEnv, backend="gymnasium")}, "cannot reset each environment to a seed; allowed: a Du"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        play_episodes(small(PPO, WalkEnv()), **{"env": WalkEnv, "seeds": SEEDS, **arguments})


def test_refuses_environments_that_do_not_go_with_the_model():
    training = normalized(DummyVecEnv([WalkEnv]))
    model = small(PPO, training)
    with pytest.raises(ValueError, match="has no VecNormalize, but the model sees normalised observations"):
        play_episodes(model, DummyVecEnv([WalkEnv]), SEEDS)
    with pytest.raises(ValueError, match="the environment that the model is training in"):
        play_episodes(model, training, SEEDS)


def test_images_are_transposed_as_the_model_sees_them(tmp_path):
    make = partial(RandomEnv, spaces.Discrete(3), IMAGE)
    small(PPO, make(), "CnnPolicy").save(tmp_path / "model")
    model = PPO.load(tmp_path / "model", device="cpu")
    episode = play_episodes(model, DummyVecEnv([make]), [0], record=True)[0]
    assert episode.steps.observations.shape[1:] == IMAGE.shape
