"""How NAF differentiates its critic: by autograd or, for plain MLPs on the CPU, in NumPy.

Both give V(s) and what Q is made of, and bring derivatives with respect to these to the parameters.
"""

from collections.abc import Callable
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import torch as th

from sb3_pg_ext.algorithms.naf.policies import NAFPolicy, QuadraticCritic, ValueNetwork
from sb3_pg_ext.functional import mlp
from sb3_pg_ext.functional.finite import check_number
from sb3_pg_ext.functional.tensors.vectors import split_like
from sb3_pg_ext.gradients.autograd_backend import backward
from sb3_pg_ext.gradients.choice import choose
from sb3_pg_ext.gradients.torch_fast_paths import clip_flat_gradient, clip_gradients, make_step
from sb3_pg_ext.policies.plain_mlp import (
    Watch,
    check_input,
    check_methods,
    check_parameters,
    layers_of,
    linear_modules,
    network_input,
)

GRADIENT = attrgetter("grad")


class AutogradCritic:
    """The general way.

    :param policy: any policy
    """

    def __init__(self, policy: NAFPolicy) -> None:
        self._policy, self._optimizer = policy, policy.optimizer
        self._parameters = self._optimized()
        self._before = [p.detach().clone() for p in self._parameters]
        self._make_step: Callable[[], object] = policy.optimizer.step

    def _optimized(self) -> list[th.Tensor]:
        return [p for group in self._optimizer.param_groups for p in group["params"]]

    def is_current(self) -> bool:
        """Whether the policy still is what the engine was made for."""
        same = self._policy.optimizer is self._optimizer
        return same and [*map(id, self._optimized())] == [*map(id, self._parameters)]

    def target_values(self, obs: Any) -> th.Tensor:
        """V'(s) by every head of the target network, [B, heads]."""
        with th.no_grad():
            return self._policy.value_target(obs)

    def forward(self, obs: Any) -> tuple[th.Tensor, th.Tensor]:
        """V(s), [B, heads], and what μ(s) and L(s) are made of, [B, heads, …], without a graph."""
        self._policy.set_training_mode(True)
        self._latest = values, outputs = self._policy.critic(obs)
        return values.detach(), outputs.detach()

    def backward(self, of_values: th.Tensor, of_outputs: th.Tensor) -> None:
        """Compute the gradient of a loss from its derivatives with respect to what :meth:`forward` gave."""
        for parameter in self._parameters:
            parameter.grad = None
        backward(zip(self._latest, (of_values, of_outputs), strict=True))

    def clip_gradient(self, max_norm: float | None) -> float:
        """Scale the gradient down to a norm, and give its norm before that.

        :raises NonFiniteError: if that is not finite
        """
        return check_number("norm of the gradient", clip_gradients(self._parameters, max_norm))

    def step(self) -> None:
        """Let the optimiser make a step along the gradient."""
        th._foreach_copy_(self._before, [p.data for p in self._parameters])
        self._make_step()

    @property
    def step_norm(self) -> float:
        """Euclidean length of the latest step."""
        changes = th._foreach_sub([p.data for p in self._parameters], self._before)
        return float(th.linalg.vector_norm(th.stack(th._foreach_norm(changes))))

    def update_target(self, tau: float) -> None:
        """Let the target network follow."""
        self._policy.update_target(tau)


class ArrayCritic(AutogradCritic):
    """The fast way.

    :param policy: a plain MLP
    :raises UnsupportedPolicyError: if PyTorch would compute something else
    """

    def __init__(self, policy: NAFPolicy) -> None:
        critic, target = policy.critic, policy.value_target
        *self._trunk, self._value_head = value_layers(critic.value)
        self._action_head = layers_of(critic.value.trunk, critic.action_head)[-1]
        self._target = value_layers(target)
        check_methods(critic, QuadraticCritic, ("forward", "split_heads"))
        check_methods(policy, NAFPolicy, ("update_target",))
        super().__init__(policy)
        modules = [*linear_modules(critic.value.trunk, critic.value.head), critic.action_head]
        check_parameters([p for m in modules for p in (m.weight, m.bias) if p is not None], self._parameters)
        self._gradient = np.zeros(sum(p.numel() for p in self._parameters), np.float32)
        pieces = dict(zip(self._parameters, split_like(th.from_numpy(self._gradient), self._parameters), strict=True))
        for parameter, piece in pieces.items():
            parameter.grad = piece
        arrays: mlp.Parameters = [
            (pieces[m.weight].numpy(), None if m.bias is None else pieces[m.bias].numpy()) for m in modules
        ]
        *self._of_trunk, self._of_value_head, self._of_action_head = arrays
        self._make_step = make_step(policy.optimizer)
        self._followed = list(critic.value.parameters()), list(target.parameters())
        self._watch = Watch(critic, target)
        self._after_first_step: list[int] | None = None

    def _identities(self) -> list[int]:
        """Of gradients and of the optimiser's state."""
        states = self._optimizer.state.values()
        return [*map(id, map(GRADIENT, self._parameters)), *map(id, chain.from_iterable(map(dict.values, states)))]

    def step(self) -> None:
        """Let the optimiser make a step."""
        super().step()
        if self._after_first_step is None:  # which allots the optimiser's state
            self._after_first_step = self._identities()

    def is_current(self) -> bool:
        """Whether parameters, gradients and the optimiser's state are still where they were, too."""
        same = self._after_first_step is None or self._identities() == self._after_first_step
        return same and super().is_current() and self._watch.is_unchanged()

    def target_values(self, obs: th.Tensor) -> th.Tensor:
        """V'(s)."""
        return th.from_numpy(mlp.forward(self._target, _array(obs)))

    def forward(self, obs: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """V(s) and what μ(s) and L(s) are made of."""
        x = _array(obs)
        self._trace = mlp.trace(self._trunk, x)
        self._latent = self._trace[-1][-1] if self._trace else x
        values, outputs = (mlp.forward([head], self._latent) for head in (self._value_head, self._action_head))
        return th.from_numpy(values), self._policy.critic.split_heads(th.from_numpy(outputs))

    def backward(self, of_values: th.Tensor, of_outputs: th.Tensor) -> None:
        """Compute the gradient."""
        of_latent = np.zeros_like(self._latent)
        for head, gradients, cotangents in (
            (self._value_head, self._of_value_head, of_values.numpy()),
            (self._action_head, self._of_action_head, of_outputs.flatten(1).numpy()),
        ):
            mlp.vjp([head], [[self._latent, self._latent]], cotangents, [gradients])
            of_latent += np.dot(cotangents, head.weight)
        mlp.vjp(self._trunk, self._trace, of_latent, self._of_trunk)

    def clip_gradient(self, max_norm: float | None) -> float:
        """Scale the gradient down."""
        return clip_flat_gradient(self._gradient, max_norm)

    def update_target(self, tau: float) -> None:
        """Let the target network follow."""
        th._foreach_lerp_([p.data for p in self._followed[1]], [p.data for p in self._followed[0]], tau)


def _array(obs: th.Tensor) -> np.ndarray:
    return network_input(obs.detach().numpy())


def value_layers(network: ValueNetwork) -> list[mlp.Layer]:
    """The network from the flat observation to V(s), as views of its parameters.

    :raises UnsupportedPolicyError: if it is no plain MLP, or not on the CPU
    """
    check_methods(network, ValueNetwork, ("forward", "encode", "extract_features"))
    check_input(network, network.features_extractor)
    return layers_of(network.trunk, network.head)


def make_backend(policy: NAFPolicy, choice: str) -> tuple[AutogradCritic, str]:
    """The engine of a policy, chosen as by :func:`~sb3_pg_ext.gradients.choice.choose`."""
    return choose(choice, lambda: ArrayCritic(policy), lambda: AutogradCritic(policy))
