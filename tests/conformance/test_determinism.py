"""Same seed, same machine: identical parameters."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, VECTOR, RandomEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from .algorithms import STEPS, Algorithm, assert_identical, vector


def train(algorithm: Algorithm, seed=3, n_envs=1, action_space=None, **kwargs):
    env = DummyVecEnv([lambda: RandomEnv(action_space)] * n_envs)
    return algorithm(env, seed=seed, **kwargs).learn(STEPS).learn(STEPS, reset_num_timesteps=False)


@pytest.mark.parametrize(("n_envs", "name"), [*((1, name) for name in ACTION_SPACES), (2, "Box"), (2, "Discrete")])
def test_the_same_seed_gives_the_same_model(algorithm: Algorithm, n_envs, name):
    if name not in algorithm.traits.action_spaces:
        pytest.skip("test_action_spaces sees to it that this is refused")
    if algorithm.traits.asynchronous and n_envs > 1:
        pytest.skip("depends on who comes first")
    first = train(algorithm, n_envs=n_envs, action_space=ACTION_SPACES[name])
    np.random.random(5)
    th.rand(5)
    second = train(algorithm, n_envs=n_envs, action_space=ACTION_SPACES[name])
    assert_identical(first, second)


def test_state_dependent_exploration_follows_the_seed(algorithm: Algorithm):
    if algorithm.traits.supports_sde:
        assert_identical(*(train(algorithm, use_sde=True, sde_sample_freq=4) for _ in range(2)))


def test_another_seed_gives_another_model(algorithm: Algorithm):
    assert not th.equal(vector(train(algorithm, seed=3)), vector(train(algorithm, seed=4)))


def test_a_seed_given_later_counts_too(algorithm: Algorithm):
    models = [algorithm(seed=0) for _ in range(3)]
    for model, seed in zip(models, (5, 5, 6), strict=True):
        model.set_random_seed(seed)
        model.learn(STEPS)
    assert_identical(*models[:2])
    assert not th.equal(vector(models[0]), vector(models[2]))


def test_vectors_and_dictionaries_of_them_train_alike(algorithm: Algorithm):
    """Both ways of sampling, and both ways of differentiating, use the same random numbers."""
    if algorithm.spec.off_policy:
        pytest.skip("its replay buffers differ")
    models = [
        algorithm(DummyVecEnv([make]), policy, seed=3).learn(STEPS)
        for make, policy in ((RandomEnv, "MlpPolicy"), (lambda: AsDictionary(RandomEnv()), "MultiInputPolicy"))
    ]
    th.testing.assert_close(*map(vector, models), rtol=0, atol=1e-5)


class AsDictionary(gym.ObservationWrapper):
    """The same observations, in a dictionary."""

    observation_space = gym.spaces.Dict({"vector": VECTOR})

    def observation(self, observation):
        return {"vector": observation}
