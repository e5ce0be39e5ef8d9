"""The fast engine: a plain MLP's derivatives written out in NumPy.

The arrays are the memory of the policy's own parameters and of their gradients, and the optimiser is the policy's own.
So the policy stays the truth: whatever reads or changes it between two updates needs to know nothing of this.
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch as th
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_pg_ext.functional import mlp
from sb3_pg_ext.functional.heads import Head
from sb3_pg_ext.functional.tensors.curvature import Product
from sb3_pg_ext.functional.tensors.vectors import flatten, split_like
from sb3_pg_ext.gradients.policy_backend import ActorCriticEvaluation, PolicyBackend, PolicyEvaluation
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
)


class Net:
    """An MLP with room for its gradient.

    :param layers: its layers
    :param modules: the modules that they are the arrays of
    :param parameters: the parameters that the network's outputs give a gradient to
    :param gradients: by parameter
    """

    def __init__(
        self,
        layers: list[mlp.Layer],
        modules: list[nn.Linear],
        parameters: list[th.Tensor],
        gradients: dict[th.Tensor, th.Tensor],
    ) -> None:
        self.layers, self.parameters, self._modules = layers, parameters, modules
        self._gradients = self.arrays(gradients)
        self._missing = {parameter: gradients[parameter] for parameter in parameters}
        self.is_clear = True

    def arrays(self, tensors: dict[th.Tensor, th.Tensor]) -> mlp.Parameters:
        """Layer by layer, the arrays of tensors that belong to the parameters."""
        return [(tensors[m.weight].numpy(), None if m.bias is None else tensors[m.bias].numpy()) for m in self._modules]

    def forward(self, x: np.ndarray) -> np.ndarray:
        """The outputs for a batch, which is kept for the derivatives."""
        self.trace = mlp.trace(self.layers, x)
        return self.trace[-1][-1]

    def backward(self, cotangents: np.ndarray) -> None:
        """Add the gradient of Σ c·outputs to what there is."""
        gradients, _ = mlp.vjp(self.layers, self.trace, cotangents, self._gradients if self.is_clear else None)
        if not self.is_clear:
            for total, part in zip(chain(*self._gradients), chain(*gradients), strict=True):
                if total is not None:
                    total += part
        self.has_gradient()

    def has_gradient(self) -> None:
        """From now on it has one; as with autograd, a parameter has a gradient once one has reached it."""
        self.is_clear = False
        while self._missing:
            parameter, piece = self._missing.popitem()
            parameter.grad = piece


class ArrayBackend(PolicyBackend):
    """Differentiates a plain MLP policy.

    :param policy: the policy
    :param gradient: where to put the gradients of all parameters, one after the other; ``None`` for a new array
    :raises UnsupportedPolicyError: if PyTorch would compute something else
    """

    def __init__(self, policy: ActorCriticPolicy, gradient: np.ndarray | None = None) -> None:
        super().__init__(policy)
        layers = actor_layers(policy), critic_layers(policy)
        body = policy.mlp_extractor
        parameters: list[th.Tensor] = list(policy.parameters())
        modules = linear_modules(body.policy_net, policy.action_net), linear_modules(body.value_net, policy.value_net)
        of_actor, of_critic = ([p for m in net for p in (m.weight, m.bias) if p is not None] for net in modules)
        self._log_std = policy.log_std if isinstance(policy.action_dist, DiagGaussianDistribution) else None
        if self._log_std is not None:
            of_actor.insert(0, self._log_std)
        check_parameters([*of_actor, *of_critic], parameters)
        self.gradient = np.zeros(sum(p.numel() for p in parameters), np.float32) if gradient is None else gradient
        pieces = split_like(th.from_numpy(self.gradient), parameters)
        self._gradients = dict(zip(parameters, pieces, strict=True))
        if gradient is None:
            for parameter in parameters:
                parameter.grad = None
        self._actor, self._critic = (
            Net(*net, self._gradients) for net in zip(layers, modules, (of_actor, of_critic), strict=True)
        )
        self._make_step = make_step(policy.optimizer)
        self._frozen: list[th.Tensor] = []

    def evaluate_actions(self, inputs: PolicyInputs, actions: np.ndarray) -> ActorCriticEvaluation:
        """Ask actor and critic."""
        x = network_input(inputs.observations)
        return ActorCriticEvaluation(self._critic.forward(x)[:, 0], *self._ask_actor(x, inputs.action_masks, actions))

    def evaluate_policy(self, inputs: PolicyInputs, actions: np.ndarray) -> PolicyEvaluation:
        """Ask the actor alone."""
        x = network_input(inputs.observations)
        return PolicyEvaluation(*self._ask_actor(x, inputs.action_masks, actions))

    def predict_values(self, inputs: PolicyInputs) -> np.ndarray:
        """Ask the critic alone."""
        return self._critic.forward(network_input(inputs.observations))[:, 0]

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
        self._actor.is_clear = self._critic.is_clear = True

    def backward(self, derivatives: Derivatives) -> None:
        """Add a gradient to the parameters'."""
        parts = []
        for name, array in derivatives.items():
            c = array.astype(np.float32, copy=False)
            match name:
                case "values":
                    self._critic.backward(c[:, None])
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
            self._actor.backward(of_outputs)
            if self._log_std is not None:
                self._gradients[self._log_std].numpy()[:] += of_log_std[0]
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
        return self._actor.parameters, flatten(self._gradients[p] for p in self._actor.parameters)

    def fisher_product(self) -> Product:
        """F v = (1/B) Jᵀ M J v, with tangents that are propagated by hand."""
        actor, head, parameters = self._actor, self._head, self._actor.parameters
        result = {p: th.zeros_like(p, requires_grad=False) for p in parameters}
        out = actor.arrays(result)

        def product(vector: th.Tensor) -> th.Tensor:
            pieces = dict(zip(parameters, split_like(vector, parameters), strict=True))
            shared = [] if self._log_std is None else [self._log_std]
            of_outputs = mlp.jvp(actor.layers, actor.trace, actor.arrays(pieces))
            cotangents, *of_shared = head.information((of_outputs, *(pieces[p].numpy() for p in shared)))
            mlp.vjp(actor.layers, actor.trace, cotangents, out)
            result.update(zip(shared, map(th.from_numpy, of_shared), strict=True))
            return flatten(result[p] for p in parameters) / len(cotangents)

        return product

    def snapshot(self, inputs: PolicyInputs) -> Head:
        """Copy the action distributions."""
        outputs = mlp.forward(self._actor.layers, network_input(inputs.observations))
        return make_head(self.policy, outputs, inputs.action_masks)

    def mean_kl(self, old: Head, inputs: PolicyInputs) -> float:
        """The mean of KL(old‖π)."""
        return float(self.snapshot(inputs).kl(old).mean())
