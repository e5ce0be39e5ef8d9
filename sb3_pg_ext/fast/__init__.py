"""Stock PPO, A2C and TRPO on the rollout engine of this package.

Same arguments, same updates, same files: a model saved by one loads as the other. Only the time differs, and the stream
of random numbers: see :class:`~sb3_pg_ext.common.engine.RolloutEngine`.
"""

import sb3_contrib
import stable_baselines3

from sb3_pg_ext.fast.mixin import FastUpdate

__all__ = ["A2C", "PPO", "TRPO"]


class PPO(FastUpdate, stable_baselines3.PPO):
    """:class:`stable_baselines3.PPO`, faster."""


class A2C(FastUpdate, stable_baselines3.A2C):
    """:class:`stable_baselines3.A2C`, faster."""


class TRPO(FastUpdate, sb3_contrib.TRPO):
    """:class:`sb3_contrib.TRPO`, faster."""
