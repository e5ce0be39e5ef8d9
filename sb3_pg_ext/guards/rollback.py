"""A way back from an update that went wrong."""

import torch as th
from torch import nn


class Rollback:
    """Copies of a policy's parameters and its optimiser's state, in memory.

    :param policy: the policy
    :param optimizer: its optimiser
    """

    def __init__(self, policy: nn.Module, optimizer: th.optim.Optimizer) -> None:
        self._policy = policy
        self._optimizer = optimizer
        self._parameters = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
        self._state = {
            parameter: {key: value.clone() if th.is_tensor(value) else value for key, value in state.items()}
            for parameter, state in optimizer.state.items()
        }

    def restore(self) -> None:
        """Put everything back as it was."""
        self._policy.load_state_dict(self._parameters)
        self._optimizer.state.clear()
        self._optimizer.state.update(self._state)

    def distance(self) -> th.Tensor:
        """The Euclidean distance between the policy's parameters then and now, a scalar."""
        moved = [now.detach() - self._parameters[name] for name, now in self._policy.named_parameters()]
        return th.linalg.vector_norm(th.cat([difference.flatten() for difference in moved]))
