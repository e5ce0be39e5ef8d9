"""Infos that are made when somebody looks: the same as those that are made at once, for everybody who reads them."""

import pickle
from copy import deepcopy

import numpy as np
import pytest
from envs import OBSERVATION_SPACES, RandomEnv
from gymnasium import spaces
from stable_baselines3 import A2C, PPO
from stable_baselines3.common import env_util
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import (
    VecCheckNan,
    VecEnv,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from sb3_pg_ext import REINFORCE, fast
from sb3_pg_ext.envs import FastDummyVecEnv, StepInfos, make_vec_env
from sb3_pg_ext.envs.step_infos import make_step

DICTS = [{"TimeLimit.truncated": False}, {"TimeLimit.truncated": True, "terminal_observation": 2}, {"a": 1}]


def three():
    return StepInfos(3, lambda rows: [deepcopy(DICTS[i]) for i in rows])


def test_it_reads_as_a_list():
    infos = three()
    assert len(infos) == 3
    assert list(infos) == [*infos] == infos[:] == infos.copy() == DICTS
    assert infos == DICTS
    assert infos == three()
    assert infos != DICTS[:2]
    assert infos[1] is infos[1] is infos[-2]
    assert infos[1:] == DICTS[1:]
    assert infos + [{}] == [*DICTS, {}]  # noqa: RUF005
    assert [{}] + infos == [{}, *DICTS]  # noqa: RUF005
    assert repr(infos) == repr(DICTS)
    assert {"a": 1} in infos
    assert infos.index({"a": 1}) == 2
    assert [i for i, info in enumerate(reversed(infos)) if "a" in info] == [0]
    for copied in (pickle.loads(pickle.dumps(infos)), deepcopy(infos)):
        assert type(copied) is list
        assert copied == DICTS
    for index in (3, -4):
        with pytest.raises(IndexError):
            infos[index]
    with pytest.raises(TypeError):
        hash(infos)


def test_what_is_written_stays():
    infos = three()
    infos[0]["b"] = 5
    infos[-1] = {"c": 6}
    assert list(infos) == [{"TimeLimit.truncated": False, "b": 5}, DICTS[1], {"c": 6}]


def test_news_are_ends_and_what_somebody_has_looked_at():
    made = {2: {"episode": {}}}
    infos = StepInfos(4, lambda rows: [{} for _ in rows], made)
    assert infos.news(np.array([True, False, False, False])) == [0, 2]
    assert list(infos)[2] is made[2]
    assert infos.news(np.zeros(4, bool)) == [0, 1, 2, 3]


@pytest.mark.parametrize("final", [np.array([[7.0], [8.0], [9.0]]), {"x": np.array([7, 8, 9])}, (np.array([7, 8, 9]),)])
def test_infos_of_arrays(final):
    terminated, truncated = np.array([[True, False, True, False], [False, True, True, False]])
    episode = {"r": 1.0, "l": 2, "t": 3.0}
    infos = StepInfos.of_arrays(terminated, truncated, final, {1: episode}, lambda rows: [{"i": int(i)} for i in rows])
    assert [info["TimeLimit.truncated"] for info in infos] == [False, True, False, False]
    assert all(type(info["TimeLimit.truncated"]) is bool for info in infos)
    assert [info["i"] for info in infos] == [0, 1, 2, 3]
    assert [info.get("episode") for info in infos] == [None, episode, None, None]
    assert "terminal_observation" not in infos[3]
    for k, i in enumerate((0, 1, 2)):
        seen = infos[i]["terminal_observation"]
        part = seen["x"] if isinstance(seen, dict) else seen[0]
        assert part == (7, 8, 9)[k]


WRAPPERS = {
    "none": lambda env: env,
    "VecNormalize": VecNormalize,
    "VecFrameStack": lambda env: VecFrameStack(env, 2),
    "VecMonitor": VecMonitor,
    "VecCheckNan": VecCheckNan,
    "several": lambda env: VecNormalize(VecFrameStack(env, 3)),
}


def cart_poles(backend, wrap):
    if backend == "envpool":
        pytest.importorskip("envpool", reason="the extra envpool is not installed")
        return wrap(make_vec_env("CartPole-v1", 3, 0, backend, env_kwargs={"max_episode_steps": 12}))
    arguments = {"vec_env_kwargs": {"autoreset_mode": "SameStep"}} if backend == "same step" else {}
    kind = "gymnasium" if backend == "same step" else backend
    return wrap(make_vec_env("CartPole-v1", 3, 0, kind, env_kwargs={"max_episode_steps": 12}, **arguments))


def play(env, step):
    """Everything that steps give, looked at after the last one."""
    rng = np.random.default_rng(0)
    env.reset()
    returned = [step(rng.integers(2, size=env.num_envs)) for _ in range(40)]
    for *_, infos in returned:
        for info in infos:
            info.get("episode", {}).pop("t", None)
    return returned


@pytest.mark.filterwarnings("ignore:The environment is already wrapped")
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("backend", ["dummy", "gymnasium", "same step", "envpool"])
def test_the_same_infos_whenever_they_are_made(backend, wrap):
    env, twin = cart_poles(backend, wrap), cart_poles(backend, wrap)
    lazy, eager = play(env, make_step(env)), play(twin, twin.step)
    assert not env.unwrapped.lazy_infos
    if wrap is not VecMonitor:
        assert type(lazy[0][3]) is StepInfos
    n_ends = 0
    for (*arrays, infos), (*others, dicts) in zip(lazy, eager, strict=True):
        assert type(dicts) is list
        for one, other in zip(arrays, others, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        for info, other in zip(infos, dicts, strict=True):
            n_ends += "terminal_observation" in info
            np.testing.assert_array_equal(info.pop("terminal_observation", 0), other.pop("terminal_observation", 0))
            assert info == other
    assert n_ends > 6


def test_dictionaries_as_observations_pass_wrappers():
    make = [lambda: RandomEnv(observation_space=OBSERVATION_SPACES["Dict"], length=2)] * 2
    env = VecExtractDictObs(FastDummyVecEnv(make), "vector")
    step = make_step(env)
    env.reset()
    ends = [info for _ in range(9) for info in step(np.zeros((2, 1), np.float32))[3] if len(info) > 1]
    assert all(info["terminal_observation"].shape == (3,) for info in ends)
    assert len(ends) > 3


@pytest.mark.parametrize("backend", ["dummy", "gymnasium"])
@pytest.mark.parametrize("wrap", [WRAPPERS["none"], WRAPPERS["VecNormalize"]])
def test_training_and_the_episodes_of_the_log_are_those_of_sb3s_vec_env(backend, wrap):
    def train(env):
        model = fast.PPO("MlpPolicy", wrap(env), n_steps=64, batch_size=64, n_epochs=1, seed=0).learn(384)
        episodes = [(episode["r"], episode["l"]) for episode in model.ep_info_buffer]
        return episodes, [parameter.detach().numpy() for parameter in model.policy.parameters()]

    arguments = {"n_envs": 3, "seed": 0, "env_kwargs": {"max_episode_steps": 12}}
    episodes, parameters = train(make_vec_env("CartPole-v1", backend=backend, **arguments))
    their_episodes, theirs = train(env_util.make_vec_env("CartPole-v1", **arguments))
    assert len(episodes) > 20
    assert episodes == their_episodes
    for one, other in zip(parameters, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


class Counter(VecEnv):
    """A simulator of somebody else: it counts steps, is cut after 5, succeeds then, and makes infos of arrays."""

    def __init__(self, n_envs):
        super().__init__(n_envs, spaces.Box(0, 9, (1,)), spaces.Discrete(2))
        self.lazy_infos = False
        self.n_made = 0

    def reset(self):
        self.steps = np.arange(self.num_envs) % 5
        return self.steps[:, None].astype(np.float32)

    def step_async(self, actions):
        pass

    def step_wait(self):
        self.steps = self.steps + 1
        truncated = self.steps == 5
        final_obs = self.steps[truncated][:, None].astype(np.float32)
        episodes = {i: {"r": 5.0, "l": 5, "t": 0.0} for i in np.flatnonzero(truncated).tolist()}
        terminated = np.zeros_like(truncated)
        infos = StepInfos.of_arrays(terminated, truncated, final_obs, episodes, self.more)
        self.steps = np.where(truncated, 0, self.steps)
        obs = self.steps[:, None].astype(np.float32)
        return obs, np.ones(self.num_envs, np.float32), truncated, infos if self.lazy_infos else list(infos)

    def more(self, rows):
        self.n_made += len(rows)
        return [{"is_success": True} for _ in rows]

    def close(self):
        pass

    def get_attr(self, attr_name, indices=None):
        if attr_name != "render_mode":
            raise AttributeError(attr_name)
        return [None] * self.num_envs

    def set_attr(self, attr_name, value, indices=None):
        raise AttributeError(attr_name)

    def env_method(self, method_name, *args, indices=None, **kwargs):
        raise AttributeError(method_name)

    def env_is_wrapped(self, wrapper_class, indices=None):
        return [False] * self.num_envs


class Looker(BaseCallback):
    """Looks at all infos."""

    def _on_step(self):
        infos = self.locals["infos"]
        assert len(infos) == 10
        assert all(info["is_success"] for info in infos)
        ended = [info["terminal_observation"][0] for info in infos if info["TimeLimit.truncated"]]
        assert ended == [5, 5]
        return True


@pytest.mark.parametrize("callback", [None, Looker])
@pytest.mark.parametrize("cls", [fast.A2C, A2C])
def test_a_vec_env_of_somebody_else_makes_infos_of_ended_episodes_alone(cls, callback):
    env = Counter(10)
    model = cls("MlpPolicy", env, n_steps=5, seed=0).learn(100, callback and callback())
    ours = cls is fast.A2C
    assert env.n_made == (20 if ours and callback is None else 100)
    assert len(model.ep_info_buffer) == len(model.ep_success_buffer) == 20
    assert not env.lazy_infos


def test_rollouts_of_episodes_count_their_own():
    model = REINFORCE("MlpPolicy", Counter(10), n_episodes=10, seed=0).learn(1)
    assert len(model.ep_info_buffer) == 10


def test_a_vec_env_that_knows_nothing_of_it_goes_the_usual_way():
    env = env_util.make_vec_env("CartPole-v1", 2, seed=0)
    assert make_step(env) == env.step
    assert make_step(VecNormalize(env)).__func__ is VecEnv.step


def test_the_flag_goes_back_after_an_error():
    env = Counter(2)
    with pytest.raises(AttributeError):
        make_step(env)(np.zeros(2))  # without a reset
    assert not env.lazy_infos


def test_stock_algorithms_get_lists():
    class Check(BaseCallback):
        def _on_step(self):
            assert type(self.locals["infos"]) is list
            return True

    PPO("MlpPolicy", make_vec_env("CartPole-v1", 2), n_steps=8, batch_size=16, n_epochs=1).learn(16, Check())
