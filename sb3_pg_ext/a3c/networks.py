"""How a worker computes with its policy: by PyTorch's autograd or, for plain perceptrons, mostly in NumPy.

On a handful of steps PyTorch spends nearly all its time on bookkeeping. Both ways compute the same, to rounding.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import obs_as_tensor
from torch import nn

from sb3_pg_ext.common.acting import NOISE_BLOCK, Actor, PerceptronActor, PolicyActor
from sb3_pg_ext.common.observations import Observations
from sb3_pg_ext.common.perceptrons import UnfitPolicy, actor_layers, critic_layers, network_input
from sb3_pg_ext.common.policies import predict_values
from sb3_pg_ext.functional import mlp

Evaluated = tuple[th.Tensor, th.Tensor, th.Tensor | None]
"""V(s), log π(a|s) and the entropy of π(·|s) where it has a closed form, [B] each, to be differentiated."""


class Network:
    """The general way, for any policy.

    :param policy: the policy, whose gradients have been made views of one vector
    """

    def __init__(self, policy: ActorCriticPolicy) -> None:
        self.policy = policy

    def make_actor(self, n_steps: int) -> Actor:
        """What samples actions with the present parameters."""
        return PolicyActor(self.policy)

    def predict_values(self, obs: Observations) -> np.ndarray:
        """V(s), [B]."""
        return predict_values(self.policy, obs)

    def evaluate(self, obs: Observations, actions: th.Tensor) -> Evaluated:
        """Evaluate a batch."""
        values, log_probs, entropies = self.policy.evaluate_actions(obs_as_tensor(obs, self.policy.device), actions)
        return values.flatten(), log_probs, entropies

    def backward(self, loss: th.Tensor) -> None:
        """Add the gradient of a loss, made of what was evaluated last, to the parameters' gradients."""
        loss.backward()


class PerceptronNetwork(Network):
    """The fast way: autograd sees only the networks' outputs, and NumPy carries their gradients to the parameters.

    :param policy: a plain perceptron
    :raises UnfitPolicy: if it is none
    """

    def __init__(self, policy: ActorCriticPolicy) -> None:
        super().__init__(policy)
        self._actor, self._critic = actor_layers(policy), critic_layers(policy)
        if any(layer.activation not in mlp.DERIVATIVES for layer in self._actor + self._critic):
            raise UnfitPolicy("it has an activation function without a derivative in NumPy")
        self._gradients = [
            *_gradients(policy.mlp_extractor.policy_net, policy.action_net),
            *_gradients(policy.mlp_extractor.value_net, policy.value_net),
        ]

    def make_actor(self, n_steps: int) -> Actor:
        """What samples actions with the present parameters."""
        return PerceptronActor(self.policy, self._actor, 1, min(n_steps, NOISE_BLOCK))

    def predict_values(self, obs: Observations) -> np.ndarray:
        """V(s), [B]."""
        assert isinstance(obs, np.ndarray)
        return mlp.forward(self._critic, network_input(obs))[:, 0]

    def evaluate(self, obs: Observations, actions: th.Tensor) -> Evaluated:
        """Evaluate a batch."""
        assert isinstance(obs, np.ndarray)
        x = network_input(obs)
        self._traces = mlp.trace(self._actor, x), mlp.trace(self._critic, x)
        self._outputs = [th.from_numpy(trace[-1]).requires_grad_() for trace in self._traces]
        outputs, values = self._outputs
        parameters: Any = [outputs]
        if isinstance(self.policy.action_dist, DiagGaussianDistribution):
            parameters.append(self.policy.log_std)
        distribution = self.policy.action_dist.proba_distribution(*parameters)
        return values[:, 0], distribution.log_prob(actions), distribution.entropy()

    def backward(self, loss: th.Tensor) -> None:
        """Add the gradient of a loss, made of what was evaluated last, to the parameters' gradients."""
        loss.backward()
        gradients = []
        for layers, trace, output in zip((self._actor, self._critic), self._traces, self._outputs, strict=True):
            assert output.grad is not None
            gradients += mlp.vjp(layers, trace, output.grad.numpy())
        for (weight, bias), (weight_gradient, bias_gradient) in zip(self._gradients, gradients, strict=True):
            weight += weight_gradient
            if bias is not None:
                bias += bias_gradient


def _gradients(net: nn.Sequential, head: nn.Module) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    for module in [*net, head]:
        if isinstance(module, nn.Linear):
            weight, bias = (p if p is None else p.grad for p in (module.weight, module.bias))
            if weight is None:
                raise UnfitPolicy("some of its parameters are frozen")
            yield weight.numpy(), None if bias is None else bias.numpy()


def make_network(policy: ActorCriticPolicy) -> Network:
    """Choose the way.

    :param policy: the policy, whose gradients have been made views of one vector
    """
    try:
        return PerceptronNetwork(policy)
    except UnfitPolicy:
        return Network(policy)
