"""How NAF differentiates its critic: in NumPy, for plain MLPs on the CPU, or by autograd.

Networks give V(s) and the numbers that μ(s) and L(s) come from; what Q is made of these, and how derivatives get from Q
to them, is the same for both and calculated in NumPy.
"""

from abc import abstractmethod
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch as th

from sb3_pg_ext.algorithms.naf.policies import NAFPolicy, QuadraticCritic
from sb3_pg_ext.functional import mlp, quadratic
from sb3_pg_ext.functional.finite import check_number
from sb3_pg_ext.functional.tensors.vectors import split_like
from sb3_pg_ext.gradients.autograd_backend import backward
from sb3_pg_ext.gradients.choice import choose
from sb3_pg_ext.gradients.protocol import Derivatives, GradientBackend
from sb3_pg_ext.gradients.torch_fast_paths import clip_flat_gradient, clip_gradients, make_step
from sb3_pg_ext.policies.plain_mlp import (
    Watch,
    check_hooks,
    check_input,
    check_methods,
    check_parameters,
    layers_of,
    linear_modules,
    network_input,
)
from sb3_pg_ext.policies.trunk_and_head import TrunkAndHead


class QEvaluation(NamedTuple):
    """What the critic says of the actions taken in a batch of states, by every head.

    :param values: V(s), [B, heads]
    :param outputs: what μ(s) and L(s) come from, see :mod:`~sb3_pg_ext.functional.quadratic`, [B, heads, …]
    :param q_values: Q(s, a), [B, heads]
    """

    values: np.ndarray
    outputs: np.ndarray
    q_values: np.ndarray


class QuadraticBackend(GradientBackend):
    """A backend of NAF's critic. :meth:`backward` takes derivatives by the name ``"q_values"``, [B, heads].

    It may be kept from one update to the next, as long as it :meth:`is_current`.

    :param policy: the policy; its parameters stay where they are
    """

    def __init__(self, policy: NAFPolicy) -> None:
        self.policy = policy

    def _parameters(self) -> list[th.Tensor]:
        return [p for group in self.policy.optimizer.param_groups for p in group["params"]]

    @abstractmethod
    def is_current(self) -> bool:
        """Whether the policy still is what the backend was made for."""

    @abstractmethod
    def target_values(self, observations: Any) -> np.ndarray:
        """V'(s) by every head of the target network, [B, heads].

        :param observations: those of the states s, as replay buffers give them: a tensor, or a dictionary of tensors
        """

    def predict_q(self, observations: Any, actions: np.ndarray) -> QEvaluation:
        """Ask the critic.

        :param observations: those of the states s, as replay buffers give them: a tensor, or a dictionary of tensors
        :param actions: a in [−1, 1], [B, d]
        """
        values, outputs = self._forward(observations)
        advantages, self._of_outputs, _ = quadratic.advantage(outputs, actions[:, None])
        return QEvaluation(values, outputs, values + advantages)

    def advantages(self, observations: Any, actions: np.ndarray) -> np.ndarray:
        """Q(s, a) − V(s) by every head, [B, heads], of which nothing is differentiated.

        :param observations: as for :meth:`predict_q`
        :param actions: as for :meth:`predict_q`
        """
        with th.no_grad():
            _, outputs = self._forward(observations)
        return quadratic.advantage(outputs, actions[:, None]).value

    def backward(self, derivatives: Derivatives) -> None:
        """Add a gradient to the parameters'."""
        of_q = derivatives["q_values"]
        self._backward(of_q, of_q[..., None] * self._of_outputs)

    @abstractmethod
    def _forward(self, observations: Any) -> tuple[np.ndarray, np.ndarray]:
        """V(s), [B, heads], and what μ(s) and L(s) come from, [B, heads, …]."""

    @abstractmethod
    def _backward(self, of_values: np.ndarray, of_outputs: np.ndarray) -> None:
        """Add a gradient to the parameters', from derivatives with respect to what :meth:`_forward` gave."""


class AutogradQuadraticBackend(QuadraticBackend):
    """The general way: PyTorch, for any policy on any device. Nothing is kept."""

    def is_current(self) -> bool:
        """It is."""
        return True

    @th.no_grad()
    def target_values(self, observations: Any) -> np.ndarray:
        """Ask the target network."""
        return self.policy.value_target(observations).cpu().numpy()

    def _forward(self, observations: Any) -> tuple[np.ndarray, np.ndarray]:
        self.policy.set_training_mode(True)
        self._latest = values, outputs = self.policy.critic(observations)
        return values.detach().cpu().numpy(), outputs.detach().cpu().numpy()

    def zero_gradient(self) -> None:
        """Forget the gradient."""
        for parameter in self._parameters():
            parameter.grad = None

    def _backward(self, of_values: np.ndarray, of_outputs: np.ndarray) -> None:
        pairs = zip(self._latest, (of_values, of_outputs), strict=True)
        backward((output, th.from_numpy(c).to(output)) for output, c in pairs)

    def clip_gradient(self, max_norm: float | None) -> float:
        """Scale the gradient down."""
        return check_number("norm of the gradient", clip_gradients(self._parameters(), max_norm))

    def step(self) -> None:
        """Make a step."""
        self.policy.optimizer.step()


class ArrayQuadraticBackend(QuadraticBackend):
    """The fast way: NumPy.

    :param policy: a plain MLP
    :raises UnsupportedPolicyError: if PyTorch would compute something else
    """

    def __init__(self, policy: NAFPolicy) -> None:
        super().__init__(policy)
        critic = policy.critic
        check_methods(critic, QuadraticCritic, ("forward", "split_heads"))
        check_hooks(critic)
        *self._trunk, self._value_head = value_layers(critic.value)
        self._action_head = layers_of(critic.value.trunk, critic.action_head)[-1]
        self._target = value_layers(policy.value_target)
        self._n_heads = critic.n_heads
        modules = [*linear_modules(critic.value.trunk, critic.value.head), critic.action_head]
        parameters = self._parameters()
        check_parameters([p for m in modules for p in (m.weight, m.bias) if p is not None], parameters)
        self._gradient = np.zeros(sum(p.numel() for p in parameters), np.float32)
        self._pieces = dict(zip(parameters, split_like(th.from_numpy(self._gradient), parameters), strict=True))
        arrays: mlp.Parameters = [
            (self._pieces[m.weight].numpy(), None if m.bias is None else self._pieces[m.bias].numpy()) for m in modules
        ]
        *self._of_trunk, self._of_value_head, self._of_action_head = arrays
        self._is_clear = True
        self._make_step = make_step(policy.optimizer)
        self._watch = Watch(policy)
        self._optimizer_before, self._has_stepped = self._optimizer_parts(), False

    def _optimizer_parts(self) -> list[int]:
        """The optimiser, its parameters and what it remembers of them, by identity."""
        optimizer = self.policy.optimizer
        states = chain.from_iterable(map(dict.values, optimizer.state.values()))
        return [id(optimizer), *map(id, self._parameters()), *map(id, states)]

    def is_current(self) -> bool:
        """Whether the policy's modules and the optimiser's tensors are the same ones, where they were."""
        return self._optimizer_parts() == self._optimizer_before and self._watch.is_unchanged()

    def target_values(self, observations: th.Tensor) -> np.ndarray:
        """Ask the target network."""
        return mlp.forward(self._target, _array(observations))

    def _forward(self, observations: th.Tensor) -> tuple[np.ndarray, np.ndarray]:
        x = _array(observations)
        self._trace = mlp.trace(self._trunk, x)
        self._latent = self._trace[-1][-1] if self._trace else x
        values, outputs = (mlp.forward([head], self._latent) for head in (self._value_head, self._action_head))
        return values, outputs.reshape(len(x), self._n_heads, -1)

    def zero_gradient(self) -> None:
        """Forget the gradient."""
        self._gradient.fill(0)
        self._is_clear = True

    def _backward(self, of_values: np.ndarray, of_outputs: np.ndarray) -> None:
        earlier = 0 if self._is_clear else self._gradient.copy()
        of_outputs = of_outputs.reshape(len(of_outputs), -1)
        latent = [[self._latent, self._latent]]
        mlp.vjp([self._value_head], latent, of_values, [self._of_value_head])
        mlp.vjp([self._action_head], latent, of_outputs, [self._of_action_head])
        of_latent = np.dot(of_values, self._value_head.weight)
        of_latent += np.dot(of_outputs, self._action_head.weight)
        mlp.vjp(self._trunk, self._trace, of_latent, self._of_trunk)
        if not self._is_clear:
            self._gradient += earlier
        self._is_clear = False
        for parameter, piece in self._pieces.items():
            parameter.grad = piece

    def clip_gradient(self, max_norm: float | None) -> float:
        """Scale the gradient down."""
        return clip_flat_gradient(self._gradient, max_norm)

    def step(self) -> None:
        """Make a step."""
        self._make_step()
        if not self._has_stepped:  # which allots the optimiser's memory
            self._optimizer_before, self._has_stepped = self._optimizer_parts(), True


def _array(observations: th.Tensor) -> np.ndarray:
    return network_input(observations.detach().numpy())


def value_layers(network: TrunkAndHead) -> list[mlp.Layer]:
    """The network from the flat observation to V(s), as views of its parameters.

    :raises UnsupportedPolicyError: if it is no plain MLP, or not on the CPU
    """
    check_methods(network, TrunkAndHead, ("forward", "encode", "extract_features"))
    check_input(network, network.features_extractor)
    check_hooks(network)
    return layers_of(network.trunk, network.head)


def make_backend(policy: NAFPolicy, choice: str) -> tuple[QuadraticBackend, str]:
    """The backend of a policy, chosen as by :func:`~sb3_pg_ext.gradients.choice.choose`."""
    return choose(choice, lambda: ArrayQuadraticBackend(policy), lambda: AutogradQuadraticBackend(policy))
