"""Collecting: actions, transitions, rollout buffers, and what a rollout is worth.

The buffers for Dict observations live here as far as saved files are concerned; those that give them, in
:mod:`sb3_pg_ext`.
"""

from sb3_pg_ext.rollouts.buffers import EstimatorDictRolloutBuffer, MaskableEstimatorDictRolloutBuffer

__all__ = ["EstimatorDictRolloutBuffer", "MaskableEstimatorDictRolloutBuffer"]

for _public in (EstimatorDictRolloutBuffer, MaskableEstimatorDictRolloutBuffer):
    _public.__module__ = __name__
