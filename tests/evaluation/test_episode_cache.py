"""Episodes that were played are not played again, and other tools can read them."""

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from envs import OBSERVATION_SPACES, RandomEnv
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from sb3_pg_ext.evaluation import episode_cache
from sb3_pg_ext.evaluation.episode_cache import EpisodeCache, fingerprint
from sb3_pg_ext.evaluation.episodes import make_evaluation_env, play_episodes

DISCRETE = spaces.Discrete(3)
make = partial(RandomEnv, DISCRETE)


def model_of(env: Any = None, policy: str = "MlpPolicy") -> PPO:
    return PPO(policy, make() if env is None else env, seed=0, device="cpu", policy_kwargs={"net_arch": [4]})


@pytest.fixture
def cache(tmp_path):
    return EpisodeCache(tmp_path / "episodes")


@pytest.fixture
def played(monkeypatch):
    """The seeds that were played."""
    seeds: list[int] = []

    def note(model: Any, env: Any, chosen: Any, *arguments: Any, **keywords: Any) -> Any:
        seeds.extend(chosen)
        return play_episodes(model, env, chosen, *arguments, **keywords)

    monkeypatch.setattr(episode_cache, "play_episodes", note)
    return seeds


def alike(one: Any, other: Any) -> None:
    assert (one.seed, one.episode_return, one.length) == (other.seed, other.episode_return, other.length)
    for name in ("actions", "rewards", "terminated", "truncated", "values", "observations"):
        expected, actual = getattr(one.steps, name), getattr(other.steps, name)
        for key in expected if isinstance(expected, dict) else [...]:
            np.testing.assert_array_equal(actual[key], expected[key])


@pytest.mark.parametrize("observations", ["Box", "Dict"])
def test_no_episode_is_played_twice(cache, played, observations):
    factory = partial(make, OBSERVATION_SPACES[observations])
    model = model_of(factory(), "MultiInputPolicy" if observations == "Dict" else "MlpPolicy")
    first = cache.play(model, factory, [3, 1, 2])
    second = cache.play(model, factory, [1, 2, 3, 4])
    assert played == [3, 1, 2, 4]
    assert [episode.seed for episode in second] == [1, 2, 3, 4]
    for episode in first:
        alike(episode, second[episode.seed - 1])
    cache.play(model, factory, [1], deterministic=False)
    with th.no_grad():
        next(model.policy.parameters()).add_(1)
    cache.play(model, factory, [1])
    assert played == [3, 1, 2, 4, 1, 1]


def test_other_tools_read_the_files(cache):
    model = model_of(partial(make, OBSERVATION_SPACES["Dict"])(), "MultiInputPolicy")
    model.num_timesteps = 77
    (episode,) = cache.play(model, partial(make, OBSERVATION_SPACES["Dict"]), [5])
    (path,) = cache.folder.glob("*/5.npz")
    with np.load(path, allow_pickle=False) as file:
        assert {"observations.vector", "observations.image", "observations.number", "actions"} <= set(file.files)
        assert (int(file["seed"]), int(file["timesteps"]), int(file["length"])) == (5, 77, episode.length)
        assert file["observations.vector"].shape == (episode.length + 1, 3)
        assert float(file["episode_return"]) == episode.episode_return
        assert np.isnan(file["is_success"])


def key_of(model: Any, env: Any = make, deterministic: bool = True) -> str:
    return fingerprint(model, make_evaluation_env(model, env, 2), deterministic)


def test_what_an_episode_depends_on_is_in_the_fingerprint():
    model = model_of()
    keys = [key_of(model), key_of(model, deterministic=False), key_of(model, lambda: gym.Wrapper(make()))]
    keys.append(key_of(model_of(VecFrameStack(DummyVecEnv([make]), 2))))
    normalized = model_of(VecNormalize(DummyVecEnv([make])))
    keys.append(key_of(normalized))
    normalized.get_vec_normalize_env().obs_rms.update(np.ones((4, 3)))
    keys.append(key_of(normalized))
    cart_pole = model_of("CartPole-v1")
    keys += [key_of(cart_pole, "CartPole-v1"), key_of(cart_pole, partial(gym.make, "CartPole-v1", max_episode_steps=9))]
    keys.append(key_of(cart_pole, partial(gym.make, "CartPole-v1", sutton_barto_reward=True)))
    assert len(set(keys)) == len(keys)


def test_what_makes_no_difference_is_not():
    model = model_of("CartPole-v1")
    key = key_of(model, "CartPole-v1")
    assert key == key_of(model_of("CartPole-v1"), "CartPole-v1")
    assert key == key_of(model, partial(gym.make, "CartPole-v1", render_mode="rgb_array"))
    assert key == fingerprint(model, DummyVecEnv([partial(gym.make, "CartPole-v1")] * 3), True)


def test_the_oldest_episodes_go_first(cache, tmp_path):
    model = model_of()
    cache.play(model, make, [1])
    size = sum(path.stat().st_size for path in cache.folder.rglob("*.npz"))
    small = EpisodeCache(cache.folder, max_bytes=int(3.5 * size))
    for seed in (2, 3, 4, 5):
        small.play(model, make, [seed])
    kept = {int(path.stem) for path in cache.folder.rglob("*.npz")}
    assert 5 in kept
    assert 1 not in kept
    assert sum(path.stat().st_size for path in cache.folder.rglob("*.npz")) <= small.max_bytes


def test_the_worst_are_listed(cache):
    model = model_of()
    episodes = cache.play(model, make, range(20))
    worst = cache.worst(3)
    expected = sorted(episodes, key=lambda episode: episode.episode_return)[:3]
    assert [cached.episode.seed for cached in worst] == [episode.seed for episode in expected]
    assert all(cached.episode.steps is None for cached in worst)
    assert cache.worst(3, "another") == []


@pytest.mark.parametrize("spoil", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"no archive"])
def test_a_file_that_cannot_be_read_is_named_and_played_again(cache, played, spoil):
    model = model_of()
    (episode,) = cache.play(model, make, [1])
    (path,) = cache.folder.glob("*/1.npz")
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.warns(UserWarning, match="1.npz is no episode that can be read"):
        (again,) = cache.play(model, make, [1])
    alike(episode, again)
    assert played == [1, 1]
    cache.play(model, make, [1])
    assert played == [1, 1]


def test_refuses(tmp_path):
    with pytest.raises(ValueError, match="max_bytes=0; allowed"):
        EpisodeCache(tmp_path, 0)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file; allowed: a folder"):
        EpisodeCache(tmp_path / "file")
