"""Which policies are plain perceptrons, whose arithmetic NumPy can do without PyTorch's bookkeeping.

This is the one place that decides, and the one that looks inside SB3's policies.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor
from torch import nn

from sb3_pg_ext.common.stochastic_policies import TemperedLinear
from sb3_pg_ext.functional import mlp

DISTRIBUTIONS = (
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
    BernoulliDistribution,
)

ACTING_METHODS = ("forward", "_predict", "get_distribution", "extract_features", "_get_action_dist_from_latent")
"""The methods of a policy between an observation and an action: a policy that overrides one is its own master."""


class UnfitPolicy(Exception):
    """The policy is no plain perceptron. The message says why."""


def actor_layers(policy: ActorCriticPolicy) -> list[mlp.Layer]:
    """The actor of a plain perceptron policy, from the flat observation to logits or means.

    The arrays are views of the policy's parameters: they follow every in-place update.

    :param policy: any policy of an on-policy algorithm
    :return: the layers for :func:`sb3_pg_ext.functional.mlp.forward`
    :raises UnfitPolicy: if PyTorch would compute something else, or on another device
    """
    _check_policy(policy)
    modules = [*policy.mlp_extractor.policy_net, policy.action_net]
    return _layers(modules)


def _check_policy(policy: ActorCriticPolicy) -> None:
    def unless(fit: bool, reason: str) -> None:
        if not fit:
            raise UnfitPolicy(reason)

    unless(policy.device.type == "cpu", f"it lives on {policy.device}")
    for name in ACTING_METHODS:
        overridden = getattr(type(policy), name) is not getattr(ActorCriticPolicy, name) or name in vars(policy)
        unless(not overridden, f"it overrides {name}()")
    space = policy.observation_space
    unless(isinstance(space, spaces.Box) and not is_image_space(space), f"its observations are {space}")
    unless(type(policy.action_dist) in DISTRIBUTIONS, f"it acts by {type(policy.action_dist).__name__}")
    unless(type(policy.features_extractor) is FlattenExtractor, "it extracts features")
    unless(type(policy.pi_features_extractor) is FlattenExtractor, "it extracts features")
    unless(type(policy.mlp_extractor) is MlpExtractor, f"its body is a {type(policy.mlp_extractor).__name__}")
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in policy.modules())
    unless(not hooked, "a module has a forward hook")
    single = all(p.dtype == th.float32 for p in policy.parameters())
    unless(single, "its parameters are not all float32")


def _layers(modules: list[nn.Module]) -> list[mlp.Layer]:
    layers: list[mlp.Layer] = []
    for module in modules:
        if isinstance(module, nn.Linear) and type(module) in (nn.Linear, TemperedLinear):
            bias = None if module.bias is None else module.bias.detach().numpy()
            layer = mlp.Layer(module.weight.detach().numpy(), bias, mlp.identity)
            if isinstance(module, TemperedLinear):
                layer = layer._replace(activation=partial(np.multiply, 1 / module.temperature))
            layers.append(layer)
        elif layers and layers[-1].activation is mlp.identity:
            layers[-1] = layers[-1]._replace(activation=_activation(module))
        else:
            raise UnfitPolicy(f"a {type(module).__name__} stands where a linear layer is expected")
    return layers


ACTIVATIONS: dict[type[nn.Module], Callable[..., mlp.Activation]] = {
    nn.Tanh: lambda module: mlp.tanh,
    nn.ReLU: lambda module: mlp.relu,
    nn.LeakyReLU: lambda module: partial(mlp.leaky_relu, negative_slope=module.negative_slope),
    nn.ELU: lambda module: partial(mlp.elu, alpha=module.alpha),
    nn.Sigmoid: lambda module: mlp.sigmoid,
    nn.SiLU: lambda module: mlp.silu,
}
"""By exact type: a subclass may calculate something else."""


def _activation(module: nn.Module) -> mlp.Activation:
    if type(module) not in ACTIVATIONS:
        raise UnfitPolicy(f"its activation function is {type(module).__name__}")
    return ACTIVATIONS[type(module)](module)
