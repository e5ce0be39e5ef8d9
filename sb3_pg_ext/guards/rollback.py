"""A way back from an update that went wrong."""

import torch as th
from torch import nn


class Rollback:
    """Copies of a policy's parameters and buffers and of its optimiser's state, in memory.

    :param policy: the policy
    :param optimizer: its optimiser
    """

    def __init__(self, policy: nn.Module, optimizer: th.optim.Optimizer) -> None:
        self._parameters = [parameter.data for parameter in policy.parameters()]
        self._tensors = [*self._parameters, *(buffer.data for buffer in policy.buffers())]
        self._copies = [tensor.clone() for tensor in self._tensors]
        self._optimizer = optimizer
        self._state = {
            parameter: {key: value.clone() if th.is_tensor(value) else value for key, value in state.items()}
            for parameter, state in optimizer.state.items()
        }

    def restore(self) -> None:
        """Put everything back as it was."""
        for tensor, copy in zip(self._tensors, self._copies, strict=True):
            tensor.copy_(copy)
        self._optimizer.state.clear()
        self._optimizer.state.update(self._state)

    def distance(self) -> th.Tensor:
        """The Euclidean distance between the policy's parameters then and now, a scalar; not finite if one is not."""
        if not self._parameters:
            return th.zeros(())
        moved = th._foreach_sub(self._parameters, self._copies[: len(self._parameters)])
        return th.linalg.vector_norm(th.stack(th._foreach_norm(moved)))
