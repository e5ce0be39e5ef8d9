"""All the ways to give environments."""

from functools import partial

import gymnasium as gym
import pytest
import torch as th
from envs import RandomEnv
from stable_baselines3.common.callbacks import ConvertCallback
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecNormalize

from .algorithms import STEPS, Algorithm, vector


def vec_env(n_envs=2):
    return DummyVecEnv([RandomEnv] * n_envs)


@pytest.fixture
def subprocesses():
    env = SubprocVecEnv([partial(RandomEnv, RandomEnv.usual_action_space)] * 2)
    yield env
    env.close()


def assert_learns(model, n_envs, callback=None):
    before = vector(model)
    model.learn(STEPS, callback)
    assert model.n_envs == n_envs
    assert model.num_timesteps >= STEPS
    assert not th.equal(before, vector(model))


def test_id(algorithm: Algorithm):
    assert_learns(algorithm(algorithm.traits.env_id), 2 if algorithm.traits.asynchronous else 1)


def test_environment(algorithm: Algorithm):
    assert_learns(algorithm(RandomEnv()), 1)


def test_several_environments(algorithm: Algorithm):
    assert_learns(algorithm(vec_env()), 2)


def test_environments_in_subprocesses(algorithm: Algorithm, subprocesses):
    assert_learns(algorithm(subprocesses), 2)


def test_normalization(algorithm: Algorithm):
    env = VecNormalize(vec_env(), gamma=0.9)
    model = algorithm(env)
    counts = []
    assert_learns(model, 2, ConvertCallback(lambda *_: counts.append(env.obs_rms.count) is None))
    assert model.get_vec_normalize_env() is env
    assert env.obs_rms.count > STEPS
    assert counts[-1] > env.num_envs + 1  # not just the first observations: evaluations on the way need the rest


def test_frame_stacking(algorithm: Algorithm):
    model = algorithm(VecFrameStack(vec_env(), n_stack=2))
    assert model.observation_space.shape == (6,)
    assert_learns(model, 2)


def test_set_env(algorithm: Algorithm):
    model = algorithm().learn(STEPS)
    env = vec_env(1)
    model.set_env(env)
    assert model.get_env() is env
    model.learn(STEPS, reset_num_timesteps=False)
    assert model.num_timesteps >= 2 * STEPS


def test_set_env_refuses_other_spaces(algorithm: Algorithm):
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        algorithm().set_env(RandomEnv(observation_space=gym.spaces.Box(-1, 1, (7,))))
