"""What updates ask of a policy with a critic, and of whatever differentiates it."""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_pg_ext.functional.tensors.curvature import Product
from sb3_pg_ext.gradients.protocol import GradientBackend
from sb3_pg_ext.policies.evaluation import parts
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


def sampling_generator() -> np.random.Generator:
    """What draws the actions of a sampled Fisher matrix, the same ones with every backend; seeded by PyTorch's own."""
    return np.random.default_rng(int(th.randint(2**62, ())))


class LayerFactors(NamedTuple):
    """What a batch says of the curvature of a layer; see :mod:`sb3_pg_ext.functional.kronecker`.

    :param weight: the layer's weight, [m, …], n elements in each row
    :param bias: its bias, [m]; ``None`` for none
    :param inputs: A, [n + 1, n + 1], or [n, n] without a bias
    :param outputs: G, [m, m]: of log π, plus that of V
    :param of_actor: whether π depends on the layer
    """

    weight: th.Tensor
    bias: th.Tensor | None
    inputs: Any
    outputs: Any
    of_actor: bool


class PolicyBackend(GradientBackend):
    """A backend of a policy with a critic. It lasts for one update.

    The numbers by whose names :meth:`backward` takes derivatives are ``"log_probs"``, ``"entropies"``, ``"kls"`` and
    ``"values"``.

    :param policy: the policy; its parameters stay where they are
    """

    def __init__(self, policy: ActorCriticPolicy) -> None:
        self.policy = policy

    def renew(self) -> bool:
        """Get ready for another update of the same policy, if there is something that need not be looked up again.

        :return: whether it is; otherwise another backend has to be made, as when the policy has changed
        """
        return False

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
    def recorded_layers(self) -> AbstractContextManager[None]:
        """Within the scope, keep what passes through layers, for :meth:`kronecker_factors`."""

    @abstractmethod
    def kronecker_factors(self, fisher: str | None) -> list[LayerFactors]:
        """The curvature of the layers that are not frozen, from the batch that was last asked of.

        That of π is its Fisher information. That of V is the Gauss–Newton matrix of ½(V − R)², E[∇V ∇Vᵀ], which is the
        Fisher information of a Gaussian of unit variance around V, and needs no samples. Call it within
        :meth:`recorded_layers`, and before :meth:`backward`.

        :param fisher: after :meth:`evaluate_actions` ``"exact"`` for an exact expectation over actions, at the cost of
            a backward pass for each of them, or each of their dimensions, or ``"sampled"`` for one action in every
            state; after :meth:`predict_values` ``None``
        """

    @abstractmethod
    def actor_parameters(self) -> list[th.Tensor]:
        """The parameters that log π(a|s) of the latest batch depends on."""

    @abstractmethod
    def latest_distributions(self) -> Any:
        """The action distributions at the states of which the actor was last asked, as :meth:`snapshot` gives them."""

    @abstractmethod
    def snapshot(self, inputs: PolicyInputs) -> Any:
        """Copy the action distributions at some states. Some of its rows are had by indexing it.

        :param inputs: what the policy sees of the states s, [B, …]
        """

    @th.no_grad()
    def compare(self, old: Any, inputs: PolicyInputs, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compare π with an old policy over a whole rollout, chunk by chunk; there is no derivative of it.

        :param old: what :meth:`snapshot` has given, at the same states
        :param inputs: what the policy sees of the states s, [B, …]
        :param actions: a, [B, action_dim]
        :return: log π(a|s) and KL(old‖π), [B] each
        """
        log_probs, kls = [], []
        for part in parts(inputs.observations):
            log_probs.append(self.evaluate_actions(inputs.rows(part), actions[part]).log_probs)
            kls.append(self.kl(old[part]))
        return np.concatenate(log_probs), np.concatenate(kls)

    @abstractmethod
    def mean_kl(self, old: Any, inputs: PolicyInputs) -> float:
        """The mean of KL(old‖π) over a batch of states.

        :param old: what :meth:`snapshot` has given, at the same states
        :param inputs: what the policy sees of the states s, [B, …]
        """
