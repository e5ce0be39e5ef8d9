"""What the streaming recipe puts around an environment, and how that is saved with a model."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from sb3_contrib.common.wrappers import TimeFeatureWrapper
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, is_vecenv_wrapped, unwrap_vec_normalize

from sb3_pg_ext.arguments import check_flag
from sb3_pg_ext.envs.fast_dummy import FastDummyVecEnv

Wrapping = dict[str, Any]
"""``time_limit``: T of the time feature, or None; ``gamma``: γ of the scaled rewards; ``statistics``: of
``VecNormalize``, as lists of numbers."""


def plan_wrapping(env: GymEnv, gamma: float, time_feature: bool | None) -> Wrapping:
    """What a raw environment is to be wrapped in.

    :param env: the environment
    :param gamma: γ
    :param time_feature: whether there is a time feature; ``None`` for where the environment has a time limit, and its
        observations are vectors
    :raises ValueError: if it cannot be, and for what is no flag
    """
    space = env.observation_space
    is_vector = isinstance(space, spaces.Box) and len(space.shape) == 1
    limit = None if isinstance(env, VecEnv) else time_limit(env)
    if time_feature is not None:
        check_flag("time_feature", time_feature)
    else:
        time_feature = limit is not None and is_vector
    if time_feature and (limit is None or not is_vector):
        raise ValueError(
            f"time_feature=True with {env}; allowed: False, or a single environment whose observations are vectors and "
            "which has a time limit. Around each environment of a VecEnv put sb3-contrib's TimeFeatureWrapper yourself"
        )
    return {"time_limit": limit if time_feature else None, "gamma": gamma, "statistics": None}


def time_limit(env: gym.Env) -> int | None:
    """After how many steps episodes are cut off, as the environment's record says."""
    return None if env.spec is None else env.spec.max_episode_steps


def is_raw(env: GymEnv) -> bool:
    """Whether nothing normalises it."""
    return not (isinstance(env, VecEnv) and is_vecenv_wrapped(env, VecNormalize))


def wrap(env: GymEnv, wrapping: Wrapping) -> VecNormalize:
    """Wrap a raw environment.

    :param env: an environment, or a VecEnv
    :param wrapping: in what
    :raises ValueError: for a VecEnv without the time feature that belongs there
    """
    if not isinstance(env, VecEnv):
        single = env
        if wrapping["time_limit"] is not None and not _has_time_feature(single):
            single = TimeFeatureWrapper(single, wrapping["time_limit"])
        if not _is_wrapped(single, Monitor):
            single = Monitor(single)
        env = FastDummyVecEnv([lambda: single])
    elif wrapping["time_limit"] is not None and _lacks_a_number(env, wrapping["statistics"]):
        raise ValueError(
            f"env={env} has observations of {env.observation_space.shape[0]} numbers, without the time feature; "  # type: ignore[index]
            "allowed: a single environment, which is wrapped, or a VecEnv whose environments are in sb3-contrib's "
            f"TimeFeatureWrapper with max_steps={wrapping['time_limit']}"
        )
    images = not isinstance(env.observation_space, spaces.Box) or len(env.observation_space.shape) > 1
    normalizer = VecNormalize(
        env, norm_obs=not images, clip_obs=np.inf, clip_reward=np.inf, gamma=float(wrapping["gamma"])
    )
    if wrapping["statistics"] is not None:
        for name, numbers in wrapping["statistics"].items():
            rms: RunningMeanStd = getattr(normalizer, name)
            rms.mean, rms.var, rms.count = np.array(numbers["mean"]), np.array(numbers["var"]), numbers["count"]
    return normalizer


def _lacks_a_number(env: VecEnv, statistics: dict[str, Any] | None) -> bool:
    return statistics is not None and env.observation_space.shape == (len(statistics["obs_rms"]["mean"]) - 1,)


def _has_time_feature(env: gym.Env) -> bool:
    return _is_wrapped(env, TimeFeatureWrapper)


def _is_wrapped(env: gym.Env, wrapper: type[gym.Wrapper]) -> bool:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, wrapper):
            return True
        env = env.env
    return False


def statistics_of(env: VecEnv | None) -> dict[str, Any] | None:
    """The statistics of what normalises an environment, as lists of numbers."""
    normalizer = None if env is None else unwrap_vec_normalize(env)
    if normalizer is None:
        return None
    found = {"ret_rms": normalizer.ret_rms}
    if normalizer.norm_obs:
        found["obs_rms"] = normalizer.obs_rms  # type: ignore[assignment]
    return {
        name: {"mean": np.asarray(rms.mean).tolist(), "var": np.asarray(rms.var).tolist(), "count": float(rms.count)}
        for name, rms in found.items()
    }
