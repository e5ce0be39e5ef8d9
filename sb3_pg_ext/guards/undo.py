"""A way back from every single step of optimisers."""

from collections.abc import Sequence

import torch as th
from torch import nn

from sb3_pg_ext.functional.finite import check_number


class Undo:
    """Keeps what an update changes, in memory that is used again and again: cheap enough for every update.

    That is the parameters, what optimisers remember, and the running statistics of modules.
    """

    def __init__(self) -> None:
        self._tensors: list[th.Tensor] = []
        self._copies: list[th.Tensor] = []

    @th.no_grad()
    def keep(self, optimizers: Sequence[th.optim.Optimizer], module: nn.Module) -> None:
        """Copy everything as it is now, before an update.

        :param optimizers: the optimisers that will make steps
        :param module: what they train; its running statistics are kept
        """
        self._optimizers = optimizers
        self._parameters = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
        self._states = [{p: dict(state) for p, state in optimizer.state.items()} for optimizer in optimizers]
        statistics = [b for part in module.modules() for b in part._buffers.values() if b is not None]
        remembered = [v for states in self._states for state in states.values() for v in state.values()]
        tensors = [*self._parameters, *statistics, *filter(th.is_tensor, remembered)]
        if [*map(id, tensors)] == [*map(id, self._tensors)]:
            th._foreach_copy_(self._copies, tensors)
        else:
            self._tensors, self._copies = tensors, [tensor.clone() for tensor in tensors]

    @th.no_grad()
    def check(self) -> None:
        """Refuse parameters that are not finite, or so large that their squares are not.

        So there is room left for what follows them, such as target networks.

        :raises NonFiniteError: if there are any
        """
        norms = th._foreach_norm(self._parameters)
        check_number("norm of the parameters", th.linalg.vector_norm(th.stack(norms)))

    @th.no_grad()
    def restore(self) -> None:
        """Put everything back as it was."""
        th._foreach_copy_(self._tensors, self._copies)
        for optimizer, states in zip(self._optimizers, self._states, strict=True):
            optimizer.state.clear()
            optimizer.state.update(states)

    @th.no_grad()
    def distance(self) -> float:
        """The Euclidean distance between the parameters then and now."""
        moved = th._foreach_sub(self._parameters, self._copies[: len(self._parameters)])
        return float(th.linalg.vector_norm(th.stack(th._foreach_norm(moved))))
