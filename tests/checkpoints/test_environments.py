"""Environments go on where they stood, whatever they are made of."""

import csv
import json
import os
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from envs import RandomEnv
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecNormalize

from sb3_pg_ext.callbacks import TrainingCheckpointCallback
from sb3_pg_ext.checkpoints import resume
from sb3_pg_ext.envs import FastDummyVecEnv

TOTAL, INTERRUPTED = 120, 75


class SimulatorEnv(gym.Env):
    """A walk whose state nobody can copy, as that of a simulator written in C.

    :param is_deterministic: whether the same actions lead to the same observations
    """

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, is_deterministic=True):
        self.is_deterministic = is_deterministic

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.walk = self._walk(self.np_random.normal())
        return next(self.walk)[0], {}

    def _walk(self, position):
        for time in range(14):
            action = yield np.array([position], np.float32), time == 13
            position += self.np_random.normal() + (2 * int(action) - 1)
            position += 0 if self.is_deterministic else os.urandom(1)[0]

    def step(self, action):
        observation, ends = self.walk.send(action)
        return observation, float(observation[0]), ends, False, {}


class Interrupt(BaseCallback):
    def _on_step(self):
        return self.num_timesteps < INTERRUPTED


def train(env, callback=None):
    return A2C("MlpPolicy", env, n_steps=5, seed=3, policy_kwargs={"net_arch": [4]}, device="cpu").learn(
        TOTAL, callback
    )


def episodes(folder):
    """Returns and lengths in the files of Monitor."""
    found = []
    for path in sorted(folder.glob("*.monitor.csv")):
        with path.open() as file:
            file.readline()
            found.append([(row["r"], row["l"]) for row in csv.DictReader(file)])
    return found


def assert_goes_on(make, folder, *, from_checkpoint_alone=True):
    """A training interrupted within episodes, with the environments given or from the checkpoint alone."""
    whole = train(make(folder / "whole"))
    env = make(folder / "interrupted")
    train(env, [TrainingCheckpointCallback(20, folder / "checkpoint"), Interrupt()])
    env.close()
    (_, latest) = sorted((folder / "checkpoint").iterdir())
    assert json.loads((latest / "record.json").read_text())["goes_on_within_episodes"]
    for given in [False, True] if from_checkpoint_alone else [True]:
        resumed = resume(folder / "checkpoint", env=make(folder / "interrupted") if given else None)
        assert INTERRUPTED - 20 < resumed.num_timesteps < INTERRUPTED
        resumed.learn(TOTAL - resumed.num_timesteps, reset_num_timesteps=False)
        th.testing.assert_close(whole.get_parameters(), resumed.get_parameters(), rtol=0, atol=0)
        assert episodes(folder / "interrupted") == episodes(folder / "whole")
        resumed.env.close()
    whole.env.close()


@pytest.mark.parametrize("env", ["CartPole-v1", SimulatorEnv])
@pytest.mark.parametrize("vec_env_cls", [DummyVecEnv, FastDummyVecEnv])
def test_in_this_process(tmp_path, env, vec_env_cls):
    def make(folder):
        return VecNormalize(
            VecFrameStack(make_vec_env(env, 2, vec_env_cls=vec_env_cls, monitor_dir=str(folder)), n_stack=2)
        )

    assert_goes_on(make, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("env", ["Acrobot-v1", SimulatorEnv])
def test_in_other_processes(tmp_path, env):
    def make(folder):
        return make_vec_env(env, 2, vec_env_cls=SubprocVecEnv, monitor_dir=str(folder))

    assert_goes_on(make, tmp_path, from_checkpoint_alone=False)


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "LunarLander-v3"])
def test_simulators(tmp_path, env_id):
    pytest.importorskip("mujoco")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Box2D's own
        pytest.importorskip("Box2D")
        assert_goes_on(lambda folder: make_vec_env(env_id, 1, monitor_dir=str(folder)), tmp_path)


def test_what_takes_another_course_begins_anew_and_it_is_said(tmp_path):
    env = make_vec_env(SimulatorEnv, 2, env_kwargs={"is_deterministic": False})
    train(env, [TrainingCheckpointCallback(20, tmp_path), Interrupt()])
    with pytest.warns(RuntimeWarning, match="New episodes begin, since .* played again, took another course"):
        resumed = resume(tmp_path)
    resumed.learn(TOTAL - resumed.num_timesteps, reset_num_timesteps=False)
    assert resumed.num_timesteps == TOTAL


def test_environments_must_be_made_as_before(tmp_path):
    train(VecNormalize(make_vec_env(RandomEnv, 2)), TrainingCheckpointCallback(20, tmp_path))
    with pytest.raises(ValueError, match="env has 1 environments; allowed: 2"):
        resume(tmp_path, env=VecNormalize(make_vec_env(RandomEnv, 1)))
    with pytest.raises(ValueError, match="env is DummyVecEnv; allowed: VecNormalize of DummyVecEnv"):
        resume(tmp_path, env=make_vec_env(RandomEnv, 2))
    with pytest.warns(
        RuntimeWarning, match="New episodes begin, since env consists of Monitor of Wrapper of RandomEnv"
    ):
        resume(tmp_path, env=VecNormalize(make_vec_env(lambda: gym.Wrapper(RandomEnv()), 2)))
