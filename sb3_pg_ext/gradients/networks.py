"""Networks with an optimiser of their own, as off-policy algorithms have several: in NumPy, or by autograd."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import chain
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.policies import BaseModel
from torch import nn

from sb3_pg_ext.functional import mlp
from sb3_pg_ext.functional.finite import check_number
from sb3_pg_ext.functional.tensors.vectors import split_like
from sb3_pg_ext.gradients.autograd_backend import backward
from sb3_pg_ext.gradients.protocol import Derivatives, GradientBackend
from sb3_pg_ext.gradients.torch_fast_paths import clip_flat_gradient, clip_gradients, make_step
from sb3_pg_ext.policies.plain_mlp import check_parameters, layers_of, linear_modules, network_input

Numbers = dict[str, np.ndarray]
"""What networks say of a batch, by name: the columns of all heads of a name, [B, k]."""


class NetworkBackend(GradientBackend):
    """A backend of networks that share an optimiser. :meth:`backward` takes derivatives by the names of the numbers.

    :param optimizer: the optimiser
    """

    def __init__(self, optimizer: th.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self._parameters: list[th.Tensor] = [p for group in optimizer.param_groups for p in group["params"]]

    @abstractmethod
    def is_current(self) -> bool:
        """Whether the optimiser still is what the backend was made for."""

    @abstractmethod
    def predict(self, observations: Any, actions: np.ndarray | None = None) -> Numbers:
        """Ask the networks; the answer is kept for the derivatives.

        :param observations: as replay buffers give them: a tensor, or a dictionary of tensors, [B, …]
        :param actions: for networks that take them, [B, d]
        """

    @abstractmethod
    def action_gradient(self, c: np.ndarray) -> np.ndarray:
        """The gradient of Σ c·q in the actions, [B, d], where q is the first network's number; no other is touched.

        :param c: [B]
        """


class ArrayNetwork:
    """A trunk with linear heads, as views of its parameters.

    :param trunk: linear layers, each followed by activation functions
    :param heads: linear layers by the names of what they give
    :raises UnsupportedPolicyError: if PyTorch would compute something else
    """

    def __init__(self, trunk: nn.Sequential, heads: Mapping[str, nn.Module]) -> None:
        to_heads = {name: layers_of(trunk, head) for name, head in heads.items()}
        self._trunk = next(iter(to_heads.values()))[:-1]
        self._heads = {name: layers[-1:] for name, layers in to_heads.items()}
        self._modules = {name: linear_modules(nn.Sequential(), head) for name, head in heads.items()}
        self._trunk_modules = [module for module in trunk if isinstance(module, nn.Linear)]

    @property
    def parameters(self) -> list[th.Tensor]:
        """Weights and biases."""
        modules = [*self._trunk_modules, *chain.from_iterable(self._modules.values())]
        return [p for m in modules for p in (m.weight, m.bias) if p is not None]

    def bind(self, gradients: Mapping[th.Tensor, th.Tensor]) -> None:
        """Say where the gradients go, by parameter."""
        self._of_trunk = _arrays(self._trunk_modules, gradients)
        self._of_heads = {name: _arrays(modules, gradients) for name, modules in self._modules.items()}

    def forward(self, x: np.ndarray) -> Numbers:
        """From inputs [B, n] to what the heads give, [B, k] each."""
        self._trace = mlp.trace(self._trunk, x)
        self._latent = self._trace[-1][-1] if self._trace else x
        return {name: mlp.forward(head, self._latent) for name, head in self._heads.items()}

    def backward(self, cotangents: Derivatives) -> None:
        """Write the gradients of Σ c·outputs, with c by head."""
        parts: list[np.ndarray] = []
        for name, head in self._heads.items():
            mlp.vjp(head, [[self._latent, self._latent]], cotangents[name], self._of_heads[name])
            parts.append(np.dot(cotangents[name], head[0].weight))
        mlp.vjp(self._trunk, self._trace, reduce(np.add, parts), self._of_trunk)

    def input_gradient(self, c: np.ndarray, n_last: int) -> np.ndarray:
        """The gradient of Σ c·y in the last inputs, where y, [B, 1], is what the only head gives."""
        (head,) = self._heads.values()
        layers, values = [*self._trunk, *head], [*self._trace, [self._latent, self._latent]]
        return mlp.input_vjp(layers, values, c[:, None], slice(-n_last, None))


def _arrays(modules: Sequence[nn.Linear], tensors: Mapping[th.Tensor, th.Tensor]) -> mlp.Parameters:
    return [(tensors[m.weight].numpy(), None if m.bias is None else tensors[m.bias].numpy()) for m in modules]


class ArrayNetworkBackend(NetworkBackend):
    """The fast way: NumPy.

    :param networks: what takes the same inputs; the columns of heads of the same name stand side by side
    :param optimizer: the optimiser of all their parameters
    :raises UnsupportedPolicyError: if it has others, too
    """

    def __init__(self, networks: Sequence[ArrayNetwork], optimizer: th.optim.Optimizer) -> None:
        super().__init__(optimizer)
        self._networks = networks
        check_parameters([p for network in networks for p in network.parameters], self._parameters)
        self._gradient = np.zeros(sum(p.numel() for p in self._parameters), np.float32)
        pieces = split_like(th.from_numpy(self._gradient), self._parameters)
        self._pieces = dict(zip(self._parameters, pieces, strict=True))
        for network in networks:
            network.bind(self._pieces)
        self._is_clear = True
        self._make_step = make_step(optimizer)
        self._before, self._has_stepped = self._parts(), False

    def _parts(self) -> list[int]:
        """The optimiser's parameters and what it remembers of them, by identity."""
        states = chain.from_iterable(map(dict.values, self.optimizer.state.values()))
        parameters = chain.from_iterable(group["params"] for group in self.optimizer.param_groups)
        return [*map(id, parameters), *map(id, states)]

    def is_current(self) -> bool:
        """Whether the optimiser's tensors are the same ones."""
        return self._parts() == self._before

    def predict(self, observations: th.Tensor, actions: np.ndarray | None = None) -> Numbers:
        """Ask the networks."""
        x = array_of(observations)
        self._n_actions = 0 if actions is None else actions.shape[1]
        x = x if actions is None else np.concatenate([x, actions], 1)
        answers = [network.forward(x) for network in self._networks]
        if len(answers) == 1:
            return answers[0]
        return {name: np.concatenate([answer[name] for answer in answers], 1) for name in answers[0]}

    def zero_gradient(self) -> None:
        """Forget the gradient."""
        self._gradient.fill(0)
        self._is_clear = True

    def backward(self, derivatives: Derivatives) -> None:
        """Add a gradient to the parameters'."""
        earlier = None if self._is_clear else self._gradient.copy()
        shares = {name: np.split(c, len(self._networks), 1) for name, c in derivatives.items()}
        for index, network in enumerate(self._networks):
            network.backward({name: np.ascontiguousarray(share[index]) for name, share in shares.items()})
        if earlier is not None:
            self._gradient += earlier
        self._is_clear = False
        for parameter, piece in self._pieces.items():
            parameter.grad = piece

    def action_gradient(self, c: np.ndarray) -> np.ndarray:
        """Ask the first network."""
        return self._networks[0].input_gradient(c, self._n_actions)

    def clip_gradient(self, max_norm: float | None) -> float:
        """Scale the gradient down."""
        return clip_flat_gradient(self._gradient, max_norm)

    def step(self) -> None:
        """Make a step."""
        self._make_step()
        if not self._has_stepped:  # which allots the optimiser's memory
            self._before, self._has_stepped = self._parts(), True


class AutogradNetworkBackend(NetworkBackend):
    """The general way: PyTorch, on any device.

    :param model: what is put into training mode
    :param forward: from observations, and actions where they are given, to tensors by name, [B, k] each
    :param optimizer: the optimiser
    """

    def __init__(
        self, model: BaseModel, forward: Callable[..., dict[str, th.Tensor]], optimizer: th.optim.Optimizer
    ) -> None:
        super().__init__(optimizer)
        self._model, self._ask = model, forward

    def is_current(self) -> bool:
        """It is: nothing is kept."""
        return True

    def predict(self, observations: Any, actions: np.ndarray | None = None) -> Numbers:
        """Ask the networks."""
        self._model.set_training_mode(True)
        if actions is None:
            self._latest = self._ask(observations)
        else:
            self._actions = th.from_numpy(actions).to(self._model.device).requires_grad_()
            self._latest = self._ask(observations, self._actions)
        return {name: numbers.detach().cpu().numpy() for name, numbers in self._latest.items()}

    def zero_gradient(self) -> None:
        """Forget the gradient."""
        for parameter in self._parameters:
            parameter.grad = None

    def backward(self, derivatives: Derivatives) -> None:
        """Add a gradient to the parameters'."""
        backward((self._latest[name], th.from_numpy(c).to(self._latest[name])) for name, c in derivatives.items())

    def action_gradient(self, c: np.ndarray) -> np.ndarray:
        """Ask the first network."""
        (numbers,) = self._latest.values()
        cotangents = th.from_numpy(c).to(numbers)
        (gradient,) = th.autograd.grad(numbers[:, 0], self._actions, cotangents, retain_graph=True)
        return gradient.cpu().numpy()

    def clip_gradient(self, max_norm: float | None) -> float:
        """Scale the gradient down."""
        return check_number("norm of the gradient", clip_gradients(self._parameters, max_norm))

    def step(self) -> None:
        """Make a step."""
        self.optimizer.step()


def array_of(observations: th.Tensor) -> np.ndarray:
    """A batch of a replay buffer as an MLP in NumPy takes it."""
    return network_input(observations.detach().numpy())


def optimizer_of(network: Any) -> th.optim.Optimizer:
    """The optimiser that SB3 keeps with a network."""
    return network.optimizer
