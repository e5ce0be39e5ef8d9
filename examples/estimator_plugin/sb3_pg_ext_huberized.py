"""GAE on clipped temporal differences, an advantage estimator for sb3_pg_ext."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sb3_pg_ext import AdvantageEstimate, EstimatorSpec, Rollout, hookimpl
from sb3_pg_ext.functional.returns import gae


@dataclass(frozen=True)
class Huberized:
    """GAE on clipped temporal differences, so that no single surprise dominates: with δ_t clipped to [−c, c],

        A_t = δ_t + γλ·(1 − end_t)·A_{t+1}

    :param threshold: c > 0
    :param gae_lambda: λ in [0, 1]; a host gives its own
    :raises ValueError: if c is not positive
    """

    threshold: float = 1.0
    gae_lambda: float = 0.95

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise ValueError(f"threshold={self.threshold!r}; allowed: a number greater than 0")

    def __call__(self, rollout: Rollout) -> AdvantageEstimate:
        """Estimate advantages, and the returns that they stand for."""
        deltas = np.clip(rollout.td_errors, -self.threshold, self.threshold)
        advantages = gae(deltas, rollout.episode_ends, rollout.gamma, self.gae_lambda)
        return AdvantageEstimate(advantages, advantages + rollout.values)


@hookimpl
def sb3_pg_ext_estimators() -> Iterator[EstimatorSpec]:
    """Yield the one estimator of this package."""
    yield EstimatorSpec("huberized", Huberized)
