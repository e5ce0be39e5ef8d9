"""All that the parent and its workers share in memory. Every element of the counters has one writer."""

from dataclasses import dataclass

import numpy as np
import torch as th
from torch import nn

from sb3_pg_ext.algorithms.a3c.shared_optimizers import SharedOptimizer
from sb3_pg_ext.workers.shared_statistics import Slots


@dataclass(frozen=True)
class SharedState:
    """Everything lies in shared memory; what a process unpickles is the same memory.

    :param optimizer: the optimiser, and in it the parameters
    :param steps: how many steps of its environment every worker has made, [n_workers]
    :param updates: how many gradients every worker has applied, [n_workers]
    :param stopping: whether the parent wants the workers to stop, [1]
    :param slots: what every worker has seen for the running statistics, by the statistics' name
    """

    optimizer: SharedOptimizer
    steps: th.Tensor
    updates: th.Tensor
    stopping: th.Tensor
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
        steps, updates, stopping = (th.zeros(n, dtype=th.int64).share_memory_() for n in (n_workers, n_workers, 1))
        return cls(shared, steps, updates, stopping, slots)


class Counters:
    """The counters as NumPy sees them, which is several times faster for single numbers.

    :param shared: where they lie
    """

    def __init__(self, shared: SharedState) -> None:
        self.steps: np.ndarray = shared.steps.numpy()
        self.updates: np.ndarray = shared.updates.numpy()
        self.stopping: np.ndarray = shared.stopping.numpy()
