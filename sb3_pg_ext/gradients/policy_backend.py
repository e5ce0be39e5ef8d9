"""What updates ask of a policy with a critic, and of whatever differentiates it."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_pg_ext.functional.tensors.curvature import Product
from sb3_pg_ext.gradients.protocol import GradientBackend
from sb3_pg_ext.policies.inputs import PolicyInputs

if TYPE_CHECKING:
    from sb3_pg_ext.gradients.minibatches import Steps
    from sb3_pg_ext.gradients.objectives import Losses, Objective


class PolicyEvaluation(NamedTuple):
    """What a policy says of the actions taken in a batch of states; [B] each.

    :param log_probs: log π(a|s)
    :param entropies: the entropy of π(·|s); of a squashed Gaussian, whose has no closed form, −log π(a|s), as in SB3
    """

    log_probs: np.ndarray
    entropies: np.ndarray


class ActorCriticEvaluation(NamedTuple):
    """The same, and what the critic says of the states; [B] each.

    :param values: V(s)
    :param log_probs: log π(a|s)
    :param entropies: as in :class:`PolicyEvaluation`
    """

    values: np.ndarray
    log_probs: np.ndarray
    entropies: np.ndarray


class PolicyBackend(GradientBackend):
    """A backend of a policy with a critic. It lasts for one update.

    The numbers by whose names :meth:`backward` takes derivatives are ``"log_probs"``, ``"entropies"``, ``"kls"`` and
    ``"values"``.

    :param policy: the policy; its parameters stay where they are
    """

    def __init__(self, policy: ActorCriticPolicy) -> None:
        self.policy = policy

    @abstractmethod
    def evaluate_actions(self, inputs: PolicyInputs, actions: np.ndarray) -> ActorCriticEvaluation:
        """Ask actor and critic.

        :param inputs: what the policy sees of the states s, [B, …]
        :param actions: a, [B, action_dim]
        """

    def differentiate(self, objective: "Objective", steps: "Steps") -> "Losses":
        """Replace the gradient by that of an objective.

        :param objective: the objective
        :param steps: the minibatch
        :return: the objective's terms
        """
        computed = self.evaluate_actions(steps.inputs, steps.actions)
        kls = self.kl(steps.old) if objective.kl_coef else None
        losses, derivatives = objective(computed, steps, kls)
        self.zero_gradient()
        self.backward(derivatives)
        return losses

    @abstractmethod
    def evaluate_policy(self, inputs: PolicyInputs, actions: np.ndarray) -> PolicyEvaluation:
        """Ask the actor alone.

        :param inputs: what the policy sees of the states s, [B, …]
        :param actions: a, [B, action_dim]
        """

    @abstractmethod
    def predict_values(self, inputs: PolicyInputs) -> np.ndarray:
        """Ask the critic alone: V(s), [B].

        :param inputs: what the policy sees of the states s, [B, …]
        """

    @abstractmethod
    def kl(self, old: Any) -> np.ndarray:
        """KL(old‖π) at the states of which the actor was last asked, [B].

        :param old: what :meth:`snapshot` has given, at the same states
        """

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
    def snapshot(self, inputs: PolicyInputs) -> Any:
        """Copy the action distributions at some states. Some of its rows are had by indexing it.

        :param inputs: what the policy sees of the states s, [B, …]
        """

    @abstractmethod
    def mean_kl(self, old: Any, inputs: PolicyInputs) -> float:
        """The mean of KL(old‖π) over a batch of states.

        :param old: what :meth:`snapshot` has given, at the same states
        :param inputs: what the policy sees of the states s, [B, …]
        """
