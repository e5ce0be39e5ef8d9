"""FastDummyVecEnv against SB3's DummyVecEnv, and what it does for environments that reuse what they return."""

from copy import deepcopy
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import pytest
from envs import IMAGE, OBSERVATION_SPACES, VECTOR, RandomEnv
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from stable_baselines3 import A2C
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

from sb3_pg_ext.envs.fast_dummy import FastDummyVecEnv

SPACES = {**OBSERVATION_SPACES, "Tuple": spaces.Tuple([VECTOR, spaces.Discrete(3), IMAGE])}


def assert_equal(one, other):
    """The same numbers in the same types."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        one, other = list(one.values()), list(other.values())
    if isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_equal(*pair)
    else:
        assert np.asarray(one).dtype == np.asarray(other).dtype
        np.testing.assert_array_equal(one, other)


def play(env, n_steps=12):
    """Everything that an environment returns; it is not looked at before the end."""
    env.seed(1)
    env.action_space.seed(1)
    returned = [env.reset(), list(env.reset_infos)]
    for _ in range(n_steps):
        returned += env.step(np.stack([env.action_space.sample() for _ in range(env.num_envs)]))
        returned.append(list(env.reset_infos))
    return returned


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("name", SPACES)
def test_results_are_those_of_a_dummy(name, n_envs):
    makes = [lambda length=length: RandomEnv(observation_space=SPACES[name], length=length) for length in (2, 3, 4)]
    assert_equal(play(FastDummyVecEnv(makes[:n_envs])), play(DummyVecEnv(makes[:n_envs])))


@pytest.mark.parametrize("wrap", [VecNormalize, VecMonitor, lambda env: VecFrameStack(env, 3), VecTransposeImage])
def test_results_in_wrappers_are_those_in_wrappers_of_a_dummy(wrap):
    space = IMAGE if wrap is VecTransposeImage else VECTOR
    makes = [lambda length=length: RandomEnv(observation_space=space, length=length) for length in (2, 3)]
    ours, theirs = (play(wrap(cls(makes))) for cls in (FastDummyVecEnv, DummyVecEnv))
    for returned in (ours, theirs):
        for part in returned:
            for info in part if isinstance(part, list) else []:
                info.get("episode", {}).pop("t", None)  # seconds
    assert_equal(ours, theirs)


class Step(NamedTuple):
    """What an environment returns."""

    obs: np.ndarray
    reward: float
    terminated: bool
    truncated: bool
    info: dict


class Played(gym.Env):
    """Returns what it is told to, new objects every time."""

    observation_space = VECTOR
    action_space = spaces.Discrete(2)

    def __init__(self, steps):
        self.steps = iter(deepcopy(steps))

    def reset(self, *, seed=None, options=None):
        return np.ones(3, np.float32), {"seed": seed}

    def step(self, action):
        return next(self.steps)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from([np.float32(1.5), np.int64(3), np.bool_(True), np.str_("a"), np.datetime64("2000-01-01")])
    | npst.arrays(st.sampled_from([np.float32, np.int64, bool]), st.sampled_from([(), (0,), (2,), (2, 1)])),
    lambda values: st.lists(values, max_size=2) | st.tuples(values) | st.dictionaries(st.text(), values, max_size=2),
    max_leaves=3,
)
STEPS = st.builds(
    Step,
    npst.arrays(np.float32, 3),
    st.floats(width=32),
    st.booleans() | st.booleans().map(np.bool_),
    st.booleans(),
    st.dictionaries(st.sampled_from("abc"), VALUES),
)


@settings(max_examples=40)
@given(st.lists(st.tuples(STEPS, STEPS), min_size=1, max_size=3))
def test_steps_of_all_kinds_come_out_as_from_a_dummy(steps):
    columns = list(zip(*steps, strict=True))
    makes = [lambda column=column: Played(column) for column in columns]
    ours, theirs = FastDummyVecEnv(makes), DummyVecEnv(makes)
    assert_equal(*(play(env, len(steps)) for env in (ours, theirs)))


class Counter:
    count = 0


class Reusing(gym.Env):
    """Counts steps in what it has once made: one observation, one dictionary and mutable values of many kinds.

    An episode has three steps; a reset sets everything to 0.
    """

    observation_space = spaces.Box(0, 9, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self):
        self.obs = np.zeros(2, np.float32)
        self.record = np.zeros(1, [("count", np.int64)])
        self.info = {
            "array": np.zeros(2),
            "objects": np.array([[0]], object),
            "record": self.record[0],
            "list": [0],
            "nested": {"deep": {"count": 0}},
            "tuple": ([0],),
            "instance": Counter(),
            "number": 0,
        }

    def set(self, count):
        info = self.info
        self.obs[:] = info["array"][:] = info["objects"][0, 0] = self.record["count"][0] = info["list"][0] = count
        info["nested"]["deep"]["count"] = info["tuple"][0][0] = info["instance"].count = info["number"] = count
        return self.obs

    def reset(self, *, seed=None, options=None):
        return self.set(0), self.info

    def step(self, action):
        count = self.info["number"] + 1
        return self.set(count), float(count), count == 3, False, self.info


def counts(info):
    """The number in every value."""
    return {
        info["number"],
        *info["array"],
        info["objects"][0, 0],
        info["record"]["count"],
        info["list"][0],
        info["nested"]["deep"]["count"],
        info["tuple"][0][0],
        info["instance"].count,
    }


def test_no_step_changes_what_earlier_ones_returned():
    env = FastDummyVecEnv([Reusing, Reusing])
    env.reset()
    steps = [env.step([0, 0]) for _ in range(7)]
    for i, (obs, rewards, dones, infos) in enumerate(steps):
        count = i % 3 + 1
        assert rewards.tolist() == [count, count]
        assert dones.tolist() == [count == 3] * 2
        np.testing.assert_array_equal(obs, np.full((2, 2), count % 3))
        assert [counts(info) for info in infos] == [{count}, {count}]


def test_the_end_of_an_episode_is_that_before_the_reset_and_told_once():
    env = FastDummyVecEnv([Reusing])
    env.reset()
    infos = [env.step([0])[3][0] for _ in range(7)]
    assert ["terminal_observation" in info for info in infos] == [False, False, True, False, False, True, False]
    for info in infos[2::3]:
        np.testing.assert_array_equal(info["terminal_observation"], [3, 3])
    assert not {"terminal_observation", "TimeLimit.truncated"} & env.envs[0].info.keys()


def test_the_caller_may_change_what_it_got():
    env, untouched = FastDummyVecEnv([Reusing]), FastDummyVecEnv([Reusing])
    assert_equal(env.reset(), untouched.reset())
    for _ in range(7):
        obs, rewards, dones, (info,) = env.step([0])
        *expected, (expected_info,) = untouched.step([0])
        assert_equal([obs, rewards, dones], expected)
        assert counts(info) == counts(expected_info)
        for array in (obs, rewards, dones, info["array"], info["objects"]):
            array[:] = 7
        info["nested"]["deep"]["count"] = info["list"][0] = info["instance"].count = 7
        info.clear()


class Documented(RandomEnv):
    """Remembers how it was reset, and can be looked at."""

    render_mode = "rgb_array"

    def __init__(self, colour=0):
        super().__init__()
        self.colour, self.resets = colour, []

    def reset(self, **kwargs):
        self.resets.append(kwargs)
        return super().reset(**kwargs)

    def render(self):
        return np.full((2, 2, 3), self.colour, np.uint8)

    def add(self, number, times=1):
        return self.colour + times * number


def recolour(env):
    env.set_attr("colour", 5, indices=1)
    return env.get_attr("colour")


def reset_in_all_ways(env):
    env.reset()
    env.seed(3)
    env.set_options([{"level": 1}, {"level": 2}])
    env.reset()
    env.reset()
    for _ in range(6):
        env.step(np.zeros((2, 1), np.float32))
    return env.get_attr("resets"), env.reset_infos


@pytest.mark.parametrize(
    "use",
    [
        recolour,
        reset_in_all_ways,
        lambda env: env.get_images(),
        lambda env: env.render(mode="rgb_array"),
        lambda env: env.get_attr("colour", indices=[1]),
        lambda env: env.env_method("add", 3, indices=0, times=2),
        lambda env: env.env_is_wrapped(Monitor),
        lambda env: [env.num_envs, env.render_mode, env.metadata],
    ],
)
def test_everything_else_is_sb3s(use):
    makes = [Documented, lambda: Monitor(Documented(colour=2))]
    assert_equal(use(FastDummyVecEnv(makes)), use(DummyVecEnv(makes)))


def test_factories_are_kept():
    makes = [RandomEnv, lambda: RandomEnv(length=7)]
    env = FastDummyVecEnv(makes)
    makes.clear()
    again = FastDummyVecEnv(env.env_fns)
    assert again.get_attr("length") == [4, 7]
    assert again.envs[0] is not env.envs[0]


def test_environments_have_to_differ():
    env = RandomEnv()
    with pytest.raises(ValueError, match="the same instance"):
        FastDummyVecEnv([lambda: env] * 2)


def test_errors_of_environments_pass_through():
    env = FastDummyVecEnv([RandomEnv])
    env.reset()
    with pytest.raises(AssertionError, match=r"array\(\[2\.\]\) is not in Box"):
        env.step(np.array([[2.0]]))


def test_a_stock_algorithm_learns_the_same():
    parameters = []
    for cls in (FastDummyVecEnv, DummyVecEnv):
        model = A2C("MlpPolicy", make_vec_env("CartPole-v1", 2, vec_env_cls=cls), seed=0, device="cpu").learn(100)
        parameters.append([parameter.detach().numpy() for parameter in model.policy.parameters()])
        parameters[-1].append([info["r"] for info in model.ep_info_buffer])
    assert len(parameters[0][-1]) > 2
    assert_equal(*parameters)
