"""What every update asks of whatever differentiates its model."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

Derivatives = Mapping[str, np.ndarray]
"""A loss's derivatives with respect to numbers of a batch, [B] each, by the numbers' names."""


class GradientBackend(ABC):
    """Computes numbers of a batch, and brings derivatives with respect to them to the parameters of a model.

    Every update is written once, on top of this: it calculates its loss, and the derivatives of the loss with respect
    to the numbers, in NumPy. Gradients are found in the parameters' ``grad``. What can be asked for is up to the model:
    :class:`~sb3_pg_ext.gradients.policy_backend.PolicyBackend` says it of policies with a critic V.
    """

    @abstractmethod
    def zero_gradient(self) -> None:
        """Forget the gradient."""

    @abstractmethod
    def backward(self, derivatives: Derivatives) -> None:
        """Add the gradient of Σ c·q, summed over the numbers q that were last asked for.

        :param derivatives: c by the name of q; numbers that are left out have no influence on the loss
        """

    @abstractmethod
    def clip_gradient(self, max_norm: float | None) -> float:
        """Scale the gradient of all of the model's parameters down to a norm.

        :param max_norm: the largest norm allowed; ``None`` for no clipping
        :return: its norm before that
        :raises NonFiniteError: if that is not finite
        """

    @abstractmethod
    def step(self) -> None:
        """Let the model's optimiser make a step along the gradient."""

    def descend(self, derivatives: Derivatives, max_norm: float | None) -> float:
        """A step of the optimiser along the gradient of a loss.

        :param derivatives: the loss's, as for :meth:`backward`
        :param max_norm: the gradient is scaled down to this norm; ``None`` for no clipping
        :return: the norm before that
        :raises NonFiniteError: if that is not finite; then there is no step
        """
        self.zero_gradient()
        self.backward(derivatives)
        return self.step_along_gradient(max_norm)

    def step_along_gradient(self, max_norm: float | None) -> float:
        """A step of the optimiser along the gradient that there is.

        :param max_norm: the gradient is scaled down to this norm; ``None`` for no clipping
        :return: the norm before that
        :raises NonFiniteError: if that is not finite; then there is no step
        """
        norm = self.clip_gradient(max_norm)
        self.step()
        return norm
