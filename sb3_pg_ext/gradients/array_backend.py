"""The fast engine: a plain MLP's derivatives written out in NumPy.

The arrays are the memory of the policy's own parameters and of their gradients, and the optimiser is the policy's own.
So the policy stays the truth: whatever reads or changes it between two updates needs to know nothing of this.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain

import numpy as np
import torch as th
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_pg_ext.functional import kronecker, mlp
from sb3_pg_ext.functional.heads import Head
from sb3_pg_ext.functional.tensors.curvature import Product
from sb3_pg_ext.functional.tensors.vectors import flatten, split_like
from sb3_pg_ext.gradients.policy_backend import (
    ActorCriticEvaluation,
    LayerFactors,
    PolicyBackend,
    PolicyEvaluation,
    sampling_generator,
)
from sb3_pg_ext.gradients.protocol import Derivatives
from sb3_pg_ext.gradients.torch_fast_paths import clip_flat_gradient, make_step
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.plain_mlp import (
    actor_layers,
    check_parameters,
    critic_layers,
    linear_modules,
    make_head,
    network_input,
    networks,
)


class Net:
    """An MLP with room for its gradient.

    :param layers: its layers
    :param modules: the modules that they are the arrays of
    :param gradients: by parameter
    :param more: parameters beside them that the network's outputs give a gradient to
    """

    def __init__(
        self,
        layers: list[mlp.Layer],
        modules: list[nn.Linear],
        gradients: dict[th.Tensor, th.Tensor],
        more: Sequence[th.Tensor] = (),
    ) -> None:
        self.layers, self.parameters, self._modules = layers, [*more, *_parameters_of(modules)], modules
        self._gradients, self._pieces = self.arrays(gradients), {p: gradients[p] for p in self.parameters}
        self.forget()

    def forget(self) -> None:
        """Be as new: no gradient has reached a parameter."""
        self._missing, self.is_clear = dict(self._pieces), True

    def arrays(self, tensors: dict[th.Tensor, th.Tensor]) -> mlp.Parameters:
        """Layer by layer, the arrays of tensors that belong to the parameters."""
        return [(tensors[m.weight].numpy(), None if m.bias is None else tensors[m.bias].numpy()) for m in self._modules]

    def forward(self, x: np.ndarray) -> np.ndarray:
        """The outputs for a batch, which is kept for the derivatives."""
        self.trace = mlp.trace(self.layers, x)
        return self.trace[-1][-1]

    def backward(self, cotangents: np.ndarray) -> np.ndarray:
        """Add the gradient of Σ c·outputs to what there is.

        :return: that with respect to x Wᵀ + b of the first layer
        """
        gradients, of_first = mlp.vjp(self.layers, self.trace, cotangents, self._gradients if self.is_clear else None)
        if not self.is_clear:
            for total, part in zip(chain(*self._gradients), chain(*gradients), strict=True):
                if total is not None:
                    total += part
        self.has_gradient()
        return of_first

    def factors(
        self, roots: np.ndarray, of_actor: bool, of_input: dict[bool, np.ndarray]
    ) -> tuple[list[LayerFactors], np.ndarray]:
        """The curvature of the layers, from the batch that was last passed.

        :param roots: cotangents r of the outputs, [many, B, k], whose Σ r rᵀ is the curvature at every state
        :param of_actor: whether it is the actor
        :param of_input: what is known of A of the first layer, by whether it has a bias
        :return: the factors, and the roots with respect to x Wᵀ + b of the first layer
        """
        n_samples, found = roots.shape[1], []
        for index, gradients in mlp.pulled_back(self.layers, self.trace, roots):
            has_bias, module = self.layers[index].bias is not None, self._modules[index]
            known = of_input if index == 0 else {}
            if has_bias not in known:
                known[has_bias] = kronecker.input_factor(self.trace[index][0], has_bias)
            outputs = kronecker.output_factor(gradients.reshape(-1, gradients.shape[2]), n_samples)
            found.append(LayerFactors(module.weight, module.bias, known[has_bias], outputs, of_actor))
        return found, gradients

    def has_gradient(self) -> None:
        """From now on it has one; as with autograd, a parameter has a gradient once one has reached it."""
        self.is_clear = False
        while self._missing:
            parameter, piece = self._missing.popitem()
            parameter.grad = piece


def _parameters_of(modules: Sequence[nn.Linear]) -> list[th.Tensor]:
    return [parameter for m in modules for parameter in (m.weight, m.bias) if parameter is not None]


class ArrayBackend(PolicyBackend):
    """Differentiates a plain MLP policy.

    :param policy: the policy
    :param gradient: where to put the gradients of all parameters, one after the other; ``None`` for a new array
    :raises UnsupportedPolicyError: if PyTorch would compute something else
    """

    def __init__(self, policy: ActorCriticPolicy, gradient: np.ndarray | None = None) -> None:
        super().__init__(policy)
        layers = actor_layers(policy), critic_layers(policy)
        parameters: list[th.Tensor] = list(policy.parameters())
        trunk, *heads = (linear_modules(*modules) for modules in networks(policy))
        self._log_std = policy.log_std if isinstance(policy.action_dist, DiagGaussianDistribution) else None
        shared = [] if self._log_std is None else [self._log_std]
        check_parameters([*shared, *_parameters_of([*trunk, *chain(*heads)])], parameters)
        self.gradient = np.zeros(sum(p.numel() for p in parameters), np.float32) if gradient is None else gradient
        pieces = split_like(th.from_numpy(self.gradient), parameters)
        self._gradients = dict(zip(parameters, pieces, strict=True))
        if gradient is None:
            for parameter in parameters:
                parameter.grad = None
        n = len(trunk)
        self._trunk = [Net(layers[0][:n], trunk, self._gradients)] if n else []  # one network, or none
        self._actor = Net(layers[0][n:], heads[0], self._gradients, shared)
        self._critic = Net(layers[1][n:], heads[1], self._gradients)
        self._begin()

    def _begin(self) -> None:
        """Get ready for an update."""
        self._make_step = make_step(self.policy.optimizer)
        self._frozen: list[th.Tensor] = []

    def evaluate_actions(self, inputs: PolicyInputs, actions: np.ndarray) -> ActorCriticEvaluation:
        """Ask actor and critic."""
        x = self._enter(inputs)
        return ActorCriticEvaluation(self._critic.forward(x)[:, 0], *self._ask_actor(x, inputs.action_masks, actions))

    def evaluate_policy(self, inputs: PolicyInputs, actions: np.ndarray) -> PolicyEvaluation:
        """Ask the actor alone."""
        return PolicyEvaluation(*self._ask_actor(self._enter(inputs), inputs.action_masks, actions))

    def predict_values(self, inputs: PolicyInputs) -> np.ndarray:
        """Ask the critic alone."""
        return self._critic.forward(self._enter(inputs))[:, 0]

    def _enter(self, inputs: PolicyInputs) -> np.ndarray:
        """What actor and critic take: observations, [B, inputs], or what the trunk makes of them."""
        x = network_input(inputs.observations)
        for net in self._trunk:
            x = net.forward(x)
        return x

    def _ask_actor(self, x: np.ndarray, masks: np.ndarray | None, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self._actions = actions
        self._head = head = make_head(self.policy, self._actor.forward(x), masks)
        return head.log_prob(actions), head.entropy()

    def kl(self, old: Head) -> np.ndarray:
        """KL(old‖π) at the states of which the actor was last asked."""
        self._old = old
        return self._head.kl(old)

    def zero_gradient(self) -> None:
        """Forget the gradient."""
        self.gradient.fill(0)
        for net in (*self._trunk, self._actor, self._critic):
            net.is_clear = True

    def backward(self, derivatives: Derivatives) -> None:
        """Add a gradient to the parameters'."""
        parts, of_heads = [], []
        for name, array in derivatives.items():
            c = array.astype(np.float32, copy=False)
            match name:
                case "values":
                    of_heads.append((self._critic, self._critic.backward(c[:, None])))
                case "log_probs":
                    parts.append(self._head.log_prob_vjp(self._actions, c))
                case "entropies":
                    parts.append(self._head.entropy_vjp(c))
                case "kls":
                    parts.append(self._head.kl_vjp(self._old, c))
                case _:
                    raise KeyError(name)
        if parts:
            of_outputs, *of_log_std = (sum(terms[1:], start=terms[0]) for terms in zip(*parts, strict=True))
            of_heads.append((self._actor, self._actor.backward(of_outputs)))
            if self._log_std is not None:
                self._gradients[self._log_std].numpy()[:] += of_log_std[0]
        if of_heads and self._trunk:
            first, *rest = (np.dot(of_first, net.layers[0].weight) for net, of_first in of_heads)
            self._trunk[0].backward(sum(rest, start=first))
        self._leave_out_frozen()

    def _leave_out_frozen(self) -> None:
        for parameter in self._frozen:
            parameter.grad = None
            self._gradients[parameter].zero_()

    def clip_gradient(self, max_norm: float | None) -> float:
        """Scale the gradient down."""
        return clip_flat_gradient(self.gradient, max_norm)

    def step(self) -> None:
        """Make a step."""
        self._make_step()

    def freeze(self, parameters: Sequence[th.Tensor]) -> None:
        """Leave parameters out."""
        self._frozen = list(parameters)
        for parameter in parameters:
            parameter.grad = None

    def policy_gradient(self, weights: np.ndarray) -> tuple[list[th.Tensor], th.Tensor]:
        """The gradient in the actor's parameters."""
        self.zero_gradient()
        self.backward({"log_probs": weights})
        parameters = self._policy_parameters
        return parameters, flatten(self._gradients[p] for p in parameters)

    @property
    def _policy_parameters(self) -> list[th.Tensor]:
        """What π depends on, in the order of the policy's parameters."""
        own = {parameter for net in (*self._trunk, self._actor) for parameter in net.parameters}
        return [parameter for parameter in self._gradients if parameter in own]

    def fisher_product(self) -> Product:
        """F v = (1/B) Jᵀ M J v, with tangents that are propagated by hand."""
        nets = (*self._trunk, self._actor)
        layers, values = [*chain(*(net.layers for net in nets))], [*chain(*(net.trace for net in nets))]
        head, parameters = self._head, self._policy_parameters
        result = {p: th.zeros_like(p, requires_grad=False) for p in parameters}
        out = [*chain(*(net.arrays(result) for net in nets))]

        def product(vector: th.Tensor) -> th.Tensor:
            pieces = dict(zip(parameters, split_like(vector, parameters), strict=True))
            shared = [] if self._log_std is None else [self._log_std]
            of_outputs = mlp.jvp(layers, values, [*chain(*(net.arrays(pieces) for net in nets))])
            cotangents, *of_shared = head.information((of_outputs, *(pieces[p].numpy() for p in shared)))
            mlp.vjp(layers, values, cotangents, out)
            result.update(zip(shared, map(th.from_numpy, of_shared), strict=True))
            return flatten(result[p] for p in parameters) / len(cotangents)

        return product

    def recorded_layers(self) -> AbstractContextManager[None]:
        """Traces are kept anyway."""
        return nullcontext()

    def kronecker_factors(self, fisher: str | None) -> list[LayerFactors]:
        """From the traces of the networks. The trunk's have the roots of both heads."""
        ones = np.ones((1, len(self._critic.trace[0][0]), 1), np.float32)
        asked = [(self._critic, ones)]
        if fisher is not None:
            head = self._head
            roots = head.information_roots() if fisher == "exact" else head.sampled_scores(sampling_generator())
            asked.insert(0, (self._actor, roots))
        found: list[LayerFactors] = []
        of_input: dict[bool, np.ndarray] = {}
        of_trunk = []
        for net, roots in asked:
            factors, of_first = net.factors(roots, net is self._actor, of_input)
            found += factors
            of_trunk.append((of_first, net.layers[0].weight))
        for net in self._trunk:
            if not {*net.parameters} & {*self._frozen}:
                roots = np.concatenate([np.matmul(of_first, weight) for of_first, weight in of_trunk])
                found += net.factors(roots, fisher is not None, {})[0]
        return found

    def actor_parameters(self) -> list[th.Tensor]:
        """Those of its network, with the trunk's."""
        return self._policy_parameters

    def latest_distributions(self) -> Head:
        """They are apart from the policy's memory."""
        return self._head

    def snapshot(self, inputs: PolicyInputs) -> Head:
        """Copy the action distributions."""
        outputs = network_input(inputs.observations)
        for net in (*self._trunk, self._actor):
            outputs = mlp.forward(net.layers, outputs)
        return make_head(self.policy, outputs, inputs.action_masks)

    def mean_kl(self, old: Head, inputs: PolicyInputs) -> float:
        """The mean of KL(old‖π)."""
        return float(self.snapshot(inputs).kl(old).mean())
