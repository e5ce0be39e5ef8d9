"""What updates ask of a policy, and of whatever differentiates it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_pg_ext.functional.tensors.curvature import Product
from sb3_pg_ext.policies.observations import Observations


class PolicyEvaluation(NamedTuple):
    """Numbers, one for every sample of a batch, or a loss's derivatives with respect to them; [B] each.

    :param log_probs: log π(a|s)
    :param entropies: the entropy of π(·|s); of a squashed Gaussian, whose has no closed form, −log π(a|s), as in SB3
    :param kls: KL(old‖π), where an old policy was given
    :param values: V(s)
    """

    log_probs: np.ndarray | None = None
    entropies: np.ndarray | None = None
    kls: np.ndarray | None = None
    values: np.ndarray | None = None


class GradientBackend(ABC):
    """Computes these numbers, and brings derivatives with respect to them to the policy's parameters.

    Every update is written once, on top of this: it calculates its loss, and the derivatives of the loss with respect
    to the numbers, in NumPy. An engine lasts for one update. Gradients are found in the parameters' ``grad``.

    :param policy: the policy; its parameters stay where they are
    """

    def __init__(self, policy: ActorCriticPolicy) -> None:
        self.policy = policy

    @abstractmethod
    def forward(
        self,
        observations: Observations,
        actions: np.ndarray | None = None,
        old: Any = None,
        *,
        with_values: bool = True,
    ) -> PolicyEvaluation:
        """Compute the numbers of a batch, for the derivatives to come.

        :param observations: s, [B, …]
        :param actions: a, [B, action_dim]; ``None`` to ask for values alone
        :param old: what :meth:`snapshot` has given, at the same states
        :param with_values: whether V(s) is asked for
        """

    @abstractmethod
    def zero_gradient(self) -> None:
        """Forget the gradient."""

    @abstractmethod
    def backward(self, derivatives: PolicyEvaluation) -> None:
        """Add the gradient of Σ c·q, summed over the numbers q of the latest batch.

        :param derivatives: c; ``None`` where a number is unused
        """

    @abstractmethod
    def clip_gradient(self, max_norm: float | None) -> float:
        """Scale the gradient down to a norm.

        :param max_norm: the largest norm allowed; ``None`` for no clipping
        :return: its norm before that
        :raises NonFiniteError: if that is not finite
        """

    @abstractmethod
    def step(self) -> None:
        """Let the policy's optimiser make a step along the gradient."""

    def descend(self, derivatives: PolicyEvaluation, max_norm: float | None) -> float:
        """A step of the optimiser along the gradient of a loss.

        :param derivatives: the loss's, with respect to the numbers of the latest batch
        :param max_norm: the gradient is scaled down to this norm; ``None`` for no clipping
        :return: the norm before that
        :raises NonFiniteError: if that is not finite; then there is no step
        """
        self.zero_gradient()
        self.backward(derivatives)
        norm = self.clip_gradient(max_norm)
        self.step()
        return norm

    @abstractmethod
    def freeze(self, parameters: Sequence[th.Tensor]) -> None:
        """Leave parameters out of all gradients and steps to come."""

    @abstractmethod
    def policy_gradient(self, weights: np.ndarray) -> tuple[list[th.Tensor], th.Tensor]:
        """The parameters that π depends on, and the gradient of Σ w·log π(a|s) of the latest batch in them.

        :param weights: w, [B]
        :return: the parameters θ, and their gradient as one vector, [n]
        """

    @abstractmethod
    def fisher_product(self) -> Product:
        """Products with the Fisher information matrix of π, averaged over the states of the latest batch: v ↦ F v.

        Vectors are laid out as the gradient of :meth:`policy_gradient`, which is asked for first.
        """

    @abstractmethod
    def snapshot(self, observations: Observations) -> Any:
        """Copy the action distributions at some states. Some of its rows are had by indexing it.

        :param observations: s, [B, …]
        """

    @abstractmethod
    def mean_kl(self, old: Any, observations: Observations) -> float:
        """The mean of KL(old‖π) over a batch of states.

        :param old: what :meth:`snapshot` has given, at the same states
        :param observations: s, [B, …]
        """
