"""What A3C takes, and what it refuses before any training."""

import threading
from functools import partial

import gymnasium as gym
import pytest
from envs import RandomEnv
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from sb3_pg_ext import A3C
from sb3_pg_ext.envs.fast_dummy import FastDummyVecEnv
from sb3_pg_ext.envs.taking_apart import split


def build(env, **kwargs):
    return A3C("MlpPolicy", env, **{"seed": 0, "policy_kwargs": {"net_arch": [4]}, **kwargs})


@pytest.mark.parametrize(
    ("env", "n_workers", "expected"),
    [
        ("CartPole-v1", None, 2),
        ("CartPole-v1", 3, 3),
        (RandomEnv, None, 2),
        ([RandomEnv, partial(RandomEnv, length=3), RandomEnv], None, 3),
        (RandomEnv(), None, 1),
        (DummyVecEnv([RandomEnv] * 3), 3, 3),
        (FastDummyVecEnv([RandomEnv]), None, 1),
    ],
)
def test_number_of_workers(env, n_workers, expected):
    model = build(env, n_workers=n_workers)
    assert model.n_workers == model.n_envs == model.get_env().num_envs == expected


@pytest.mark.parametrize(
    ("env", "kwargs", "message"),
    [
        ("CartPole-v1", {"n_workers": 0}, r"n_workers=0; allowed: an integer ≥ 1"),
        (DummyVecEnv([RandomEnv] * 2), {"n_workers": 3}, r"n_workers=3 with 2 environments; allowed: .*n_workers=2"),
        (RandomEnv(), {"n_workers": 2}, r"n_workers=2 with 1 environments; allowed: .*an id or a function"),
        ([RandomEnv], {"n_workers": 2}, r"n_workers=2 with 1 environments"),
        (5, {}, r"env=5; allowed: the id of an environment"),
        (RandomEnv, {"start_method": "forkserve"}, r"start_method='forkserve' \(did you mean 'forkserver'"),
        (RandomEnv, {"on_worker_failure": "retry"}, r"on_worker_failure='retry'.*'raise', 'restart'"),
        (RandomEnv, {"worker_timeout": 0}, r"worker_timeout=0; allowed: a number > 0"),
        (RandomEnv, {"max_restarts": -1}, r"max_restarts=-1; allowed: an integer ≥ 0"),
        (RandomEnv, {"n_steps": 0}, r"n_steps=0; allowed"),
        (RandomEnv, {"n_steps": 1, "normalize_advantage": True}, r"normalize_advantage=True with a single step"),
        (RandomEnv, {"rms_prop_eps": 0}, r"rms_prop_eps=0; allowed"),
        (RandomEnv, {"device": "cuda"}, r"device='cuda'; allowed: 'cpu' or 'auto', since processes share"),
        (RandomEnv, {"policy_kwargs": {"optimizer_class": None}}, r"policy_kwargs has optimizer_class.*use_rms_prop"),
        (RandomEnv, {"advantage_estimator": "gea"}, r"gae"),
    ],
)
def test_bad_arguments(env, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(env, **kwargs)


class Unpicklable(RandomEnv):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


def test_environments_that_cannot_be_sent():
    for start_method in ("spawn", "forkserver"):
        with pytest.raises(ValueError, match=r"env cannot be sent.*allowed: functions that make the environments"):
            build(Unpicklable(), start_method=start_method)
    build(Unpicklable)
    build(Unpicklable(), start_method="fork")


def test_environments_in_subprocesses_are_copied_with_their_wrappers():
    env = SubprocVecEnv([lambda: gym.wrappers.TimeLimit(RandomEnv(length=9), 3)] * 2)
    copies = [recipe() for recipe in split(env)]
    env.close()
    for copy in copies:
        assert isinstance(copy.envs[0], gym.wrappers.TimeLimit)
        assert copy.envs[0].unwrapped.length == 9


class Unknown(VecEnvWrapper):
    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        return self.venv.step_wait()


@pytest.mark.parametrize("wrap", [Unknown, lambda env: Unknown(VecNormalize(env))])
def test_unknown_wrappers_are_refused(wrap):
    with pytest.raises(ValueError, match=r"env is wrapped in Unknown.*allowed: VecNormalize"):
        build(wrap(DummyVecEnv([RandomEnv])))


def test_known_wrappers_are_built_again():
    env = VecNormalize(VecFrameStack(VecMonitor(DummyVecEnv([RandomEnv] * 2)), n_stack=3), clip_obs=7.0)
    for recipe in split(env):
        one = recipe()
        assert one.num_envs == 1
        assert one.observation_space == env.observation_space
        assert one.clip_obs == 7.0
        assert [type(layer) for layer in (one, one.venv, one.venv.venv)] == [VecNormalize, VecFrameStack, VecMonitor]


def test_loading_with_another_number_of_workers(tmp_path):
    build(RandomEnv, n_workers=2).save(tmp_path / "model")
    env = DummyVecEnv([RandomEnv] * 3)
    assert A3C.load(tmp_path / "model", env=env).n_workers == 3
    with pytest.raises(ValueError, match="n_workers with 3 environments; allowed: 3"):
        A3C.load(tmp_path / "model", env=env, n_workers=2)
