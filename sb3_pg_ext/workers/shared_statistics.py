"""Running statistics of ``VecNormalize`` that workers share.

Every worker writes what it has seen itself into a slot of its own: number, mean and variance. The statistics are those
from before the training combined with all slots. Nothing is locked: who reads a slot while it is written gets it half
new, which the next reading mends.
"""

import numpy as np
import torch as th
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from sb3_pg_ext.guards.normalization import OBSERVATIONS, named_statistics
from sb3_pg_ext.workers.shared_memory import SharedArray

Slots = dict[str, SharedArray]
"""By the name of the statistics, [n_workers, 1 + 2D], float64."""


def allocate_slots(env: VecNormalize | None, n_workers: int) -> Slots:
    """Empty slots for all statistics of an environment."""
    return {
        name: SharedArray(n_workers, 1 + 2 * rms.mean.size, dtype=th.float64)
        for name, rms in named_statistics(env).items()
    }


def combine_into(rms: RunningMeanStd, slots: np.ndarray) -> None:
    """Combine statistics with those of slots, in place.

    :param rms: the statistics
    :param slots: [n, 1 + 2D]
    """
    for count, *moments in slots:
        if count > 0:
            mean, var = np.array(moments).reshape(2, *rms.mean.shape)
            rms.update_from_moments(mean, var, count)


def take_in(env: VecNormalize | None, before: dict[str, RunningMeanStd], slots: Slots) -> None:
    """Set an environment's statistics to those from before the training combined with what workers have seen.

    :param env: the environment; None for none
    :param before: by the name of the statistics
    :param slots: of all workers
    """
    for name, rms in named_statistics(env).items():
        combined = before[name].copy()
        combine_into(combined, slots[name].array)
        rms.mean, rms.var, rms.count = combined.mean, combined.var, combined.count


class SharedRunningMeanStd(RunningMeanStd):
    """Running statistics in a worker. What it sees counts at once; what others see, at the next :meth:`exchange`.

    :param base: the statistics from before the training
    :param slots: of all workers, [n_workers, 1 + 2D]
    :param index: which slot is its own
    """

    def __init__(self, base: RunningMeanStd, slots: np.ndarray, index: int) -> None:
        super().__init__(epsilon=0.0, shape=base.mean.shape)
        self._slots, self._index = slots, index
        self._seen = RunningMeanStd(epsilon=0.0, shape=base.mean.shape)
        combine_into(self._seen, slots[index : index + 1])  # that of a worker which this one replaces
        self._base = base.copy()
        self._combine()

    def update_from_moments(self, batch_mean: np.ndarray, batch_var: np.ndarray, batch_count: float) -> None:
        """Take a batch into account. Others never see one with a NaN or an infinity, which would stay for ever."""
        super().update_from_moments(batch_mean, batch_var, batch_count)
        if np.isfinite(batch_mean).all() and np.isfinite(batch_var).all():
            self._seen.update_from_moments(batch_mean, batch_var, batch_count)

    def recover(self) -> None:
        """Do without what a non-finite value has spoilt."""
        if not (np.isfinite(self.mean).all() and np.isfinite(self.var).all()):
            self._combine()

    def exchange(self) -> None:
        """Show the others what this worker has seen, and take in what they have."""
        seen = self._seen
        self._slots[self._index] = np.concatenate([[seen.count], np.ravel(seen.mean), np.ravel(seen.var)])
        if len(self._slots) > 1:  # a single worker's statistics must not depend on when it calls this
            self._combine()

    def _combine(self) -> None:
        combined = self._base.copy()
        others = np.delete(self._slots, self._index, axis=0)
        if self._seen.count > 0:
            combined.combine(self._seen)
        combine_into(combined, others)
        self.mean, self.var, self.count = combined.mean, combined.var, combined.count


def share_statistics(env: VecNormalize | None, slots: Slots, index: int) -> list[SharedRunningMeanStd]:
    """Let a worker's environment use shared statistics.

    :param env: the environment; None for none
    :param slots: of all workers
    :param index: the worker
    :return: the statistics
    """
    if env is None:
        return []
    shared = {name: SharedRunningMeanStd(rms, slots[name].array, index) for name, rms in named_statistics(env).items()}
    for name, rms in shared.items():
        if name == "returns":
            env.ret_rms = rms
        elif key := name.removeprefix(OBSERVATIONS):
            env.obs_rms[key] = rms
        else:
            env.obs_rms = rms  # type: ignore[assignment]
    return list(shared.values())
