"""Collecting: actions, transitions, rollout buffers, and what a rollout is worth.

Saved files name the classes of rollout buffers by their modules. The buffers for Dict observations live here, those
that give them in :mod:`sb3_pg_ext`: these paths stay, wherever the classes are defined.
"""

from sb3_pg_ext.rollouts.buffers import (
    EstimatorDictRolloutBuffer,
    EstimatorRolloutBuffer,
    MaskableEstimatorDictRolloutBuffer,
    MaskableEstimatorRolloutBuffer,
)

__all__ = ["EstimatorDictRolloutBuffer", "MaskableEstimatorDictRolloutBuffer"]

EstimatorDictRolloutBuffer.__module__ = MaskableEstimatorDictRolloutBuffer.__module__ = __name__
EstimatorRolloutBuffer.__module__ = MaskableEstimatorRolloutBuffer.__module__ = "sb3_pg_ext"
