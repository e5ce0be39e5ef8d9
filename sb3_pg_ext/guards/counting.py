"""What happens to an algorithm that meets values that are not finite."""

import math
import warnings
from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_pg_ext.functional.finite import NonFiniteError
from sb3_pg_ext.guards.undo import Undo
from sb3_pg_ext.log import record_count

PATIENCE = 3
"""So many bad rollouts, or bad updates, in a row end the training."""


class NonFiniteGuard(BaseAlgorithm):
    """A mix-in for algorithms: counts what non-finite values spoilt, and gives up at the third in a row.

    The counts are plain integers on the algorithm, so they are saved and restored with it, and logged as
    ``rollout/n_dropped`` and ``train/n_skipped``.
    """

    transient: ClassVar[tuple[str, ...]] = ("_undo",)
    """What is made anew when it is needed: it is neither saved nor copied."""

    advice: ClassVar[str] = ""
    """What may help a training that cannot go on, in a sentence."""

    _undo: Undo | None = None
    n_dropped_rollouts = 0
    n_skipped_updates = 0
    _dropped_in_a_row = 0
    _skipped_in_a_row = 0

    def _drop_rollout(self, problem: NonFiniteError) -> None:
        self.n_dropped_rollouts += 1
        self._dropped_in_a_row += 1
        assert self.ep_info_buffer is not None, "learn() makes one"
        good = [info for info in self.ep_info_buffer if math.isfinite(info["r"])]
        self.ep_info_buffer = deque(good, self.ep_info_buffer.maxlen)
        self._warn_or_give_up("rollout dropped", self._dropped_in_a_row, problem)

    def _keep_rollout(self) -> None:
        self._dropped_in_a_row = 0
        record_count(self.logger, "rollout/n_dropped", self.n_dropped_rollouts)

    def _skip_update(self, problem: NonFiniteError, consequence: str = "update skipped, parameters unchanged") -> None:
        self.n_skipped_updates += 1
        self._skipped_in_a_row += 1
        self._warn_or_give_up(consequence, self._skipped_in_a_row, problem)

    def _keep_update(self) -> None:
        self._skipped_in_a_row = 0
        record_count(self.logger, "train/n_skipped", self.n_skipped_updates)

    def _keep_for_undo(self, optimizers: Sequence[th.optim.Optimizer]) -> Undo:
        """A way back from the coming update: parameters, what optimisers remember, running statistics."""
        self._undo = self._undo or Undo()
        self._undo.keep(optimizers, self.policy)
        return self._undo

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), *self.transient]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in self.transient}

    def _warn_or_give_up(self, consequence: str, in_a_row: int, problem: NonFiniteError) -> None:
        message = f"{type(self).__name__} after {self.num_timesteps} steps: {problem}"
        if in_a_row >= PATIENCE:
            advice = f". {self.advice}" if self.advice else ""
            raise ValueError(f"{message}. That makes {in_a_row} in a row: training cannot go on{advice}") from problem
        warnings.warn(f"{message}; {consequence} ({in_a_row} in a row)", RuntimeWarning, stacklevel=2)
