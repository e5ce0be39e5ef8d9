"""The running statistics of ``VecNormalize``."""

from collections.abc import Callable
from typing import Any

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

OBSERVATIONS = "observations "
"""With this begin the names of statistics of observations; the key follows, if they are a dictionary."""


def named_statistics(env: VecNormalize | None) -> dict[str, RunningMeanStd]:
    """The statistics that an environment updates, by name; none where it does not train them."""
    if env is None or not env.training:
        return {}
    obs_rms: Any = env.obs_rms if env.norm_obs else {}
    observations = obs_rms if isinstance(obs_rms, dict) else {"": obs_rms}
    return {**{f"{OBSERVATIONS}{key}": rms for key, rms in observations.items()}, "returns": env.ret_rms}


def remember_statistics(env: VecNormalize | None) -> Callable[[], None]:
    """Note what the statistics are now.

    :param env: the environment
    :return: puts back those that are NaN or infinite by then: a single non-finite value would spoil them for ever
    """
    # An update makes new arrays of the old ones: there is no need for copies.
    noted = [(rms, rms.mean, rms.var, rms.count) for rms in named_statistics(env).values()]

    def put_back() -> None:
        for rms, mean, var, count in noted:
            if not (np.isfinite(rms.mean).all() and np.isfinite(rms.var).all()):
                rms.mean, rms.var, rms.count = mean, var, count

    return put_back
