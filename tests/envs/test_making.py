"""make_vec_env: which backend steps, that SB3's arguments mean what they mean there, and what is refused."""

import sys
import warnings
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
from envs import RandomEnv
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import ClipAction, TimeLimit
from stable_baselines3.common import env_util
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.monitor import load_results
from stable_baselines3.common.vec_env import SubprocVecEnv, VecFrameStack, VecTransposeImage

from sb3_pg_ext.envs import FastDummyVecEnv, GymnasiumVecEnv, make_vec_env


def play(env, n_steps=60):
    obs = [env.reset()]
    rng = np.random.default_rng(0)
    for _ in range(n_steps):
        obs.append(env.step(rng.integers(2, size=env.num_envs))[0])
    return np.array(obs)


@pytest.mark.parametrize("backend", ["auto", "dummy", "gymnasium"])
def test_backends_of_single_environments_give_what_sb3_gives(backend):
    env = make_vec_env("CartPole-v1", 3, 5, backend, start_index=2)
    theirs = env_util.make_vec_env("CartPole-v1", 3, 5, start_index=2)
    np.testing.assert_array_equal(play(env), play(theirs))


def test_each_backend_is_what_it_says():
    assert type(make_vec_env("CartPole-v1")) is FastDummyVecEnv
    assert type(make_vec_env("CartPole-v1", backend="dummy")) is FastDummyVecEnv
    env = make_vec_env("CartPole-v1", backend="gymnasium")
    assert type(env) is GymnasiumVecEnv
    assert type(env.env) is SyncVectorEnv
    env = make_vec_env("CartPole-v1", backend="subproc", vec_env_kwargs={"start_method": "fork"})
    assert type(env) is SubprocVecEnv
    env.close()


def test_asynchronous_environments_give_what_sb3_gives():
    env = make_vec_env("CartPole-v1", 2, 5, "gymnasium", vectorization_mode="async", vec_env_kwargs={"context": "fork"})
    try:
        assert type(env.env) is AsyncVectorEnv
        np.testing.assert_array_equal(play(env, 30), play(env_util.make_vec_env("CartPole-v1", 2, 5), 30))
    finally:
        env.close()


@pytest.mark.parametrize("backend", ["auto", "gymnasium"])
def test_arguments_of_sb3_mean_what_they_mean_there(backend, tmp_path):
    env = make_vec_env(
        RandomEnv,
        2,
        backend=backend,
        env_kwargs={"length": 2},
        wrapper_class=TimeLimit,
        wrapper_kwargs={"max_episode_steps": 3},
        monitor_dir=str(tmp_path),
        monitor_kwargs={"info_keywords": ()},
    )
    assert env.get_attr("length") == [2, 2]
    assert env.env_is_wrapped(TimeLimit) == [True, True]
    env.reset()
    for _ in range(6):
        env.step(np.zeros((2, 1), np.float32))
    env.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.monitor.csv", "1.monitor.csv"]
    assert list(load_results(str(tmp_path)).l) == [3, 3, 2, 2]


def test_arguments_of_gymnasiums_vector_environment_go_to_it():
    env = make_vec_env("CartPole-v1", 2, backend="gymnasium", vec_env_kwargs={"autoreset_mode": "SameStep"})
    assert env.env.metadata["autoreset_mode"].value == "SameStep"


class Simulator(VectorEnv):
    """A vector environment of its own, with the arguments that it was given."""

    metadata: ClassVar = {"autoreset_mode": AutoresetMode.SAME_STEP}
    single_observation_space = spaces.Discrete(9)
    single_action_space = spaces.Discrete(2)

    def __init__(self, num_envs, **kwargs):
        self.num_envs, self.kwargs = num_envs, kwargs

    def reset(self, *, seed=None, options=None):
        return np.full(self.num_envs, seed), {}


def test_an_entry_point_gets_the_arguments_and_the_seed(monkeypatch):
    monkeypatch.setitem(gym.registry, "Own-v0", EnvSpec("Own-v0", vector_entry_point=Simulator))
    arguments = {"env_kwargs": {"speed": 2}, "vec_env_kwargs": {"threads": 3}}
    env = make_vec_env("Own-v0", 2, 5, "gymnasium", start_index=1, vectorization_mode="vector_entry_point", **arguments)
    assert env.env.kwargs == {"speed": 2, "threads": 3}
    np.testing.assert_array_equal(env.reset(), [6, 6])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "gym"}, r"backend='gym'.*allowed: 'auto', 'dummy', 'subproc', 'gymnasium', 'envpool'"),
        ({"n_envs": 0}, "n_envs=0; allowed"),
        ({"vectorization_mode": "async"}, "vectorization_mode='async' with backend='auto'; allowed with"),
        ({"backend": "gymnasium", "num_threads": 2}, "num_threads=2 with backend='gymnasium'; allowed with"),
        ({"backend": "gymnasium", "vectorization_mode": "synch"}, "vectorization_mode='synch' .did you mean 'sync'"),
        (
            {"backend": "gymnasium", "vectorization_mode": "vector_entry_point"},
            "CartPoleVectorEnv.*every episode would be followed by a step that is none",
        ),
        (
            {"backend": "gymnasium", "vectorization_mode": "vector_entry_point", "wrapper_class": ClipAction},
            "ClipAction.*has no single environments to wrap",
        ),
        (
            {"backend": "gymnasium", "vectorization_mode": "vector_entry_point", "env_id": "MountainCar-v0"},
            "env_id='MountainCar-v0' with vectorization_mode='vector_entry_point'",
        ),
        (
            {"backend": "gymnasium", "vectorization_mode": "vector_entry_point", "env_id": RandomEnv},
            "with a vector entry point; allowed: an id",
        ),
        (
            {"backend": "envpool", "wrapper_class": ClipAction},
            "has no single environments to wrap; allowed: None, or SB3.s AtariWrapper",
        ),
        (
            {"backend": "envpool", "wrapper_class": AtariWrapper, "wrapper_kwargs": {"noop": 3}},
            "wrapper_kwargs=.*'noop'.*allowed: those of AtariWrapper",
        ),
        (
            {"backend": "envpool", "wrapper_class": AtariWrapper, "wrapper_kwargs": {"noop_max": 0}},
            "noop_max=0; allowed: an integer",
        ),
        ({"backend": "envpool", "env_id": RandomEnv}, "with EnvPool; allowed: an id"),
        ({"backend": "envpool", "vec_env_kwargs": {"a": 1}}, "with EnvPool; allowed: none, use env_kwargs"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_vec_env(**{"env_id": "CartPole-v1", **arguments})


def test_a_backend_that_is_not_installed_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(ValueError, match=r'pip install "sb3_pg_ext\[envpool\]"'):
        make_vec_env("CartPole-v1", backend="envpool")


def test_an_old_gymnasium_is_told(monkeypatch):
    monkeypatch.delattr(gym.vector, "AutoresetMode")
    with pytest.raises(ValueError, match="needs gymnasium ≥ 1"):
        make_vec_env("CartPole-v1", backend="gymnasium")


def test_envpool_steps_with_one_thread_and_writes_one_monitor_file(tmp_path):
    pytest.importorskip("envpool", reason="the extra envpool is not installed")
    arguments = {"env_kwargs": {"max_episode_steps": 5}, "monitor_kwargs": {"info_keywords": ("elapsed_step",)}}
    env = make_vec_env("CartPole-v1", 3, 0, "envpool", monitor_dir=str(tmp_path), **arguments)
    play(env, 11)
    assert env._pool.config["num_threads"] == 1
    env.close()
    results = load_results(str(tmp_path))
    assert list(results.l) == list(results.r) == list(results.elapsed_step) == [5] * 6
    with pytest.raises(ValueError, match=r"monitor_kwargs=.*allowed: info_keywords, with monitor_dir"):
        make_vec_env("CartPole-v1", backend="envpool", monitor_kwargs={"info_keywords": ()})
    again = make_vec_env("CartPole-v1", 3, 0, "envpool", num_threads=2)
    np.testing.assert_array_equal(again.reset(), make_vec_env("CartPole-v1", 3, 0, "envpool").reset())


def test_envpool_does_what_an_atari_wrapper_does():
    pytest.importorskip("envpool", reason="the extra envpool is not installed")
    ale_py = pytest.importorskip("ale_py", reason="ale-py is not installed")
    gym.register_envs(ale_py)
    arguments = {"wrapper_class": AtariWrapper, "wrapper_kwargs": {"screen_size": 42, "clip_reward": False}}
    env = make_vec_env("PongNoFrameskip-v4", 2, 0, "envpool", **arguments)
    config = env._task_kwargs
    assert (config["episodic_life"], config["reward_clip"], config["frame_skip"]) == (True, False, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = env_util.make_vec_env("PongNoFrameskip-v4", 2, 0, **arguments)
    assert VecTransposeImage(theirs).observation_space == env.observation_space
    theirs = VecTransposeImage(VecFrameStack(theirs, 4))
    stacked = VecFrameStack(env, 4)
    assert stacked.observation_space == theirs.observation_space
    assert stacked.action_space == theirs.action_space
    first = stacked.reset().copy()
    assert first.shape == (2, 4, 42, 42)
    assert not first[:, :3].any()
    last = stacked.step(np.zeros(2, int))[0]
    np.testing.assert_array_equal(last[:, 2], first[:, 3])
    env = make_vec_env("ALE/Pong-v5", 1, 0, "envpool", wrapper_class=AtariWrapper, env_kwargs={"stack_num": 4})
    assert env.observation_space.shape == (4, 84, 84)
    assert env._task_kwargs["repeat_action_probability"] == 0.25


def test_ales_own_simulator_keeps_the_contract():
    ale_py = pytest.importorskip("ale_py", reason="ale-py is not installed")
    pytest.importorskip("cv2", reason="opencv is not installed")
    gym.register_envs(ale_py)
    env = make_vec_env(
        "ALE/Breakout-v5",
        2,
        0,
        "gymnasium",
        vectorization_mode="vector_entry_point",
        env_kwargs={"max_num_frames_per_episode": 200},
        vec_env_kwargs={"autoreset_mode": "SameStep"},
    )
    before, n_ends, rng = env.reset(), 0, np.random.default_rng(0)
    for _ in range(160):
        obs, rewards, dones, infos = env.step(rng.integers(4, size=2))
        assert rewards.dtype == np.float32
        for i, info in enumerate(infos):
            if dones[i]:
                n_ends += 1
                final = info["terminal_observation"]
                np.testing.assert_array_equal(final[:3], before[i, 1:])  # frames of the same episode
                assert not np.array_equal(final, obs[i])
                assert info["TimeLimit.truncated"]
                assert 0 < info["episode"]["l"] <= 51
            else:
                np.testing.assert_array_equal(obs[i, :3], before[i, 1:])
                assert not info["TimeLimit.truncated"]
        before = obs
    assert n_ends >= 6
    env.close()
