"""Environments that workers build again, in wrappers that are built again."""

from functools import partial

import cloudpickle
import numpy as np
import pytest
from envs import OBSERVATION_SPACES, RandomEnv
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecCheckNan,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

from sb3_pg_ext.envs.fast_dummy import FastDummyVecEnv
from sb3_pg_ext.envs.taking_apart import split

IMAGE_AND_VECTOR = OBSERVATION_SPACES["Dict"]

WRAPPED = {
    "VecNormalize": ("Box", [VecNormalize]),
    "VecNormalize of some keys": ("Dict", [partial(VecNormalize, norm_obs_keys=["vector"], gamma=0.5)]),
    "VecNormalize of rewards": ("Discrete", [partial(VecNormalize, norm_obs=False)]),
    "VecNormalize of images": ("image", [partial(VecNormalize, clip_obs=3.0)]),
    "VecFrameStack": ("Dict", [partial(VecFrameStack, n_stack=2, channels_order={"vector": "last", "image": "first"})]),
    "VecTransposeImage": ("image", [VecTransposeImage]),
    "VecExtractDictObs": ("Dict", [partial(VecExtractDictObs, key="vector")]),
    "VecCheckNan": ("Box", [VecCheckNan]),
    "VecMonitor": ("Box", [VecMonitor]),
    "VecNormalize in VecNormalize": ("Box", [partial(VecNormalize, norm_reward=False), VecNormalize]),
    "all at once": (
        "Dict",
        [
            VecCheckNan,
            VecMonitor,
            partial(VecExtractDictObs, key="image"),
            partial(VecFrameStack, n_stack=3),
            VecTransposeImage,
            partial(VecNormalize, epsilon=0.1),
        ],
    ),
}


def make(space, n_envs=2, vec_env=FastDummyVecEnv):
    space = OBSERVATION_SPACES[space]
    if space is IMAGE_AND_VECTOR:
        space = type(space)({key: part for key, part in space.items() if key != "number"})
    return vec_env([partial(RandomEnv, observation_space=space)] * n_envs)


def layers(env):
    while env is not None:
        yield env
        env = getattr(env, "venv", None)


def play(env, n_steps=7):
    """What an environment returns."""
    env.seed(3)
    returned = [env.reset()]
    for _ in range(n_steps):
        returned += env.step(np.zeros((env.num_envs, 1), np.float32))[:3]
    return returned


@pytest.mark.parametrize("vec_env", [FastDummyVecEnv, DummyVecEnv])
@pytest.mark.parametrize("name", WRAPPED)
def test_a_recipe_that_was_sent_gives_the_same_environment(name, vec_env):
    space, wrappers = WRAPPED[name]
    env, expected = make(space, 2, vec_env), make(space, 1)
    for wrap in wrappers:
        env, expected = wrap(env), wrap(expected)
    recipes = cloudpickle.loads(cloudpickle.dumps(split(env)))
    assert len(recipes) == 2
    for recipe in recipes:
        built = recipe()
        assert built.num_envs == 1
        assert built.observation_space == env.observation_space
        assert [type(layer) for layer in layers(built)] == [type(layer) for layer in layers(expected)]
    for actual, wanted in zip(play(built), play(expected), strict=True):
        np.testing.assert_equal(actual, wanted)


def statistics(env):
    return {
        (depth, name, key): rms
        for depth, layer in enumerate(layers(env))
        if isinstance(layer, VecNormalize)
        for name in ("obs_rms", "ret_rms")
        for key, rms in (vars(layer)[name] if isinstance(vars(layer)[name], dict) else {"": vars(layer)[name]}).items()
    }


@pytest.mark.parametrize("space", ["Box", "Dict"])
def test_statistics_and_settings_of_normalization_travel(space):
    arguments = {"training": False, "norm_reward": False, "clip_obs": 7.0, "clip_reward": 3.0, "gamma": 0.5}
    env = VecNormalize(VecFrameStack(VecNormalize(make(space), epsilon=0.1), n_stack=2))
    play(env)
    vars(env).update(arguments)
    sent = cloudpickle.dumps(split(env))
    before = {where: rms.copy() for where, rms in statistics(env).items()}
    play(env)
    for recipe in cloudpickle.loads(sent):
        built = recipe()
        assert {name: vars(built)[name] for name in arguments} == arguments
        assert built.venv.venv.epsilon == 0.1
        for where, rms in statistics(built).items():
            assert type(rms) is RunningMeanStd
            for moment in ("mean", "var", "count"):
                np.testing.assert_array_equal(getattr(rms, moment), getattr(before[where], moment))
        assert len(statistics(built)) == len(before)
        assert before[2, "ret_rms", ""].count > 1


def test_what_a_worker_learns_of_an_environment_is_its_own():
    """Where processes are forked, nothing is pickled."""
    env = VecNormalize(make("Box"))
    counts = [rms.count for rms in statistics(env).values()]
    for recipe in split(env):
        play(recipe())
    assert [rms.count for rms in statistics(env).values()] == counts
