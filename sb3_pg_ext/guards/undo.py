"""A way back from every single step of optimisers."""

import math
from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch as th
from torch import nn

from sb3_pg_ext.functional.finite import check_number

NUMPY_TYPES = (th.float32, th.float64, th.int64)


class Undo:
    """Keeps what an update changes, in memory that is used again and again: cheap enough for every update.

    That is the parameters, what optimisers remember, and the running statistics of modules.
    """

    def __init__(self) -> None:
        self._parts: list[object] = []
        self._marks: list[int] = []

    @th.no_grad()
    def keep(self, optimizers: Sequence[th.optim.Optimizer], module: nn.Module) -> None:
        """Copy everything as it is now, before an update.

        :param optimizers: the optimisers that will make steps
        :param module: what they train; its running statistics are kept
        """
        parameters = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
        states = chain.from_iterable(optimizer.state.values() for optimizer in optimizers)
        remembered = [*chain.from_iterable(map(dict.values, states))]
        parts = [*optimizers, *parameters, *remembered]
        marks = [*map(id, parts), *map(th.Tensor.data_ptr, parameters)]
        if marks != self._marks:  # as in the first update and, since optimisers get their memory there, in the second
            self._parts, self._marks = parts, marks  # parts are held, lest others get their identities
            self._optimizers, self._parameters = optimizers, parameters
            self._states = [{p: dict(state) for p, state in optimizer.state.items()} for optimizer in optimizers]
            self._tensors = [*parameters, *module.buffers(), *filter(th.is_tensor, remembered)]
            self._copies = [tensor.clone() for tensor in self._tensors]
            self._arrays = _arrays(self._tensors), _arrays(self._copies)
            self._vectors = _arrays([parameter.view(-1) for parameter in parameters])
        elif self._arrays[0]:
            for array, copy in zip(*self._arrays, strict=True):
                copy[...] = array
        else:
            th._foreach_copy_(self._copies, self._tensors)

    @th.no_grad()
    def check(self) -> None:
        """Refuse parameters that are not finite, or so large that their squares are not.

        So there is room left for what follows them, such as target networks.

        :raises NonFiniteError: if there are any
        """
        if self._vectors:  # a fifth of what PyTorch takes for it
            with np.errstate(over="ignore", invalid="ignore"):
                norm = math.sqrt(sum([float(np.dot(vector, vector)) for vector in self._vectors]))
        else:
            norm = float(th.linalg.vector_norm(th.stack(th._foreach_norm(self._parameters))))
        check_number("norm of the parameters", norm)

    @th.no_grad()
    def restore(self) -> None:
        """Put everything back as it was."""
        th._foreach_copy_(self._tensors, self._copies)
        for optimizer, states in zip(self._optimizers, self._states, strict=True):
            optimizer.state.clear()
            optimizer.state.update({parameter: dict(state) for parameter, state in states.items()})

    @th.no_grad()
    def distance(self) -> float:
        """The Euclidean distance between the parameters then and now."""
        moved = th._foreach_sub(self._parameters, self._copies[: len(self._parameters)])
        return float(th.linalg.vector_norm(th.stack(th._foreach_norm(moved))))


def _arrays(tensors: Sequence[th.Tensor]) -> list[np.ndarray]:
    """The same memory for NumPy, which is faster where tensors are small; none where not all are on the CPU."""
    if not all(tensor.device.type == "cpu" and tensor.dtype in NUMPY_TYPES for tensor in tensors):
        return []
    return [tensor.detach().numpy() for tensor in tensors]
