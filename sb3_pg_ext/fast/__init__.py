"""Stock PPO, A2C, TRPO and MaskablePPO on the engines of this package.

Same arguments, same updates, same files: a model saved by one loads as the other. Only the time differs. What callbacks
see of a rollout tells :class:`~sb3_pg_ext.rollouts.collector.RolloutCollector`. Updates of plain MLPs run on the array
backend, those of other policies are the stock ``train()``.
"""

from sb3_pg_ext.fast.a2c import A2C
from sb3_pg_ext.fast.maskable_ppo import MaskablePPO
from sb3_pg_ext.fast.ppo import PPO
from sb3_pg_ext.fast.trpo import TRPO

__all__ = ["A2C", "PPO", "TRPO", "MaskablePPO"]
