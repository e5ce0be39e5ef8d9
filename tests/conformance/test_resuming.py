"""A training that was interrupted and resumed ends as one that was not, bit by bit."""

import random

import numpy as np
import pytest
import torch as th
from envs import RandomEnv
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_pg_ext.callbacks import TrainingCheckpointCallback
from sb3_pg_ext.checkpoints import resume

from .algorithms import STEPS, Algorithm, assert_identical

TOTAL = 3 * STEPS


class Stop(BaseCallback):
    """Interrupts a training."""

    def _on_step(self):
        return self.num_timesteps < 100


def make(algorithm: Algorithm, n_envs):
    env = VecNormalize(DummyVecEnv([lambda: Monitor(RandomEnv(length=6))] * n_envs))
    return algorithm(env, learning_rate=lambda remaining: 1e-3 * remaining)


@pytest.mark.parametrize("n_envs", [1, 2])
def test_a_resumed_training_ends_as_one_that_was_not_interrupted(algorithm: Algorithm, tmp_path, n_envs):
    if algorithm.traits.asynchronous:
        pytest.skip("its workers keep their environments: see below")
    plain = make(algorithm, n_envs).learn(TOTAL)
    watched = make(algorithm, n_envs).learn(TOTAL, TrainingCheckpointCallback(40, tmp_path / "watched"))
    assert_identical(plain, watched)
    make(algorithm, n_envs).learn(TOTAL, [TrainingCheckpointCallback(40, tmp_path / "interrupted"), Stop()])
    random.random()
    np.random.random()
    th.rand(1)
    resumed = resume(tmp_path / "interrupted")
    assert STEPS / 2 < resumed.num_timesteps < 100
    th.rand(1)  # what a script does before it goes on
    resumed.learn(TOTAL - resumed.num_timesteps, reset_num_timesteps=False)
    assert_identical(plain, resumed)
    assert [info["r"] for info in plain.ep_info_buffer] == [info["r"] for info in resumed.ep_info_buffer]


def test_workers_begin_new_episodes(algorithm: Algorithm, tmp_path):
    if not algorithm.traits.asynchronous:
        pytest.skip("it has none")
    make(algorithm, 2).learn(TOTAL, [TrainingCheckpointCallback(40, tmp_path), Stop()])
    with pytest.warns(RuntimeWarning, match=f"New episodes begin, since the workers of {algorithm.cls.__name__} keep"):
        resumed = resume(tmp_path)
    n_timesteps = resumed.num_timesteps
    assert n_timesteps >= 40
    resumed.learn(TOTAL - n_timesteps, reset_num_timesteps=False)
    assert resumed.num_timesteps >= TOTAL
