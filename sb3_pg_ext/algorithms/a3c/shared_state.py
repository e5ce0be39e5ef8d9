"""All that the parent and its workers share in memory."""

from dataclasses import dataclass

from torch import nn

from sb3_pg_ext.algorithms.a3c.shared_optimizers import SharedOptimizer
from sb3_pg_ext.workers.shared_memory import SharedArray
from sb3_pg_ext.workers.shared_statistics import Slots


@dataclass(frozen=True)
class SharedState:
    """Everything lies in shared memory; what a process is started with is the same memory.

    :param optimizer: the optimiser, and in it the parameters
    :param steps: how many steps of its environment every worker has made, [n_workers], each written by the worker
    :param updates: how many gradients every worker has applied, [n_workers], likewise
    :param slots: what every worker has seen for the running statistics, by the statistics' name
    """

    optimizer: SharedOptimizer
    steps: SharedArray
    updates: SharedArray
    slots: Slots

    @classmethod
    def of(cls, optimizer: SharedOptimizer, n_workers: int, slots: Slots) -> "SharedState":
        """Allocate it.

        :param optimizer: an optimiser whose parameters and state are copied
        :param n_workers: number of workers
        :param slots: see above
        """
        parameter = nn.Parameter(optimizer.parameter.detach().clone().share_memory_())
        shared = optimizer.copy_to(parameter)
        shared.share_memory()
        return cls(shared, SharedArray(n_workers), SharedArray(n_workers), slots)
