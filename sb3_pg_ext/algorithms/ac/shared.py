"""Actors and critics that share their first layers, in NumPy."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_pg_ext.algorithms.ac.samples import ArraySamples, Layout, OfBoth, SampleNet, Vector
from sb3_pg_ext.functional import mlp
from sb3_pg_ext.functional.convolution import Convolution
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.plain_mlp import (
    UnsupportedPolicyError,
    check_hooks,
    check_parameters,
    layers_behind_features,
    layers_of,
    linear_modules,
    network_input,
    networks,
)
from sb3_pg_ext.policies.small_cnn import SmallCNN
from sb3_pg_ext.policies.trunk import TrunkExtractor


def shares_layers(policy: ActorCriticPolicy) -> bool:
    """Whether actor and critic have first layers in common that are done in NumPy: a trunk, or a ``SmallCNN``."""
    return isinstance(policy.mlp_extractor, TrunkExtractor) or type(policy.features_extractor) is SmallCNN


class Branch:
    """What actor and critic share, and what follows of one of them.

    :param trunk: the one
    :param branch: the other
    :param layout: the parameters of both
    """

    def __init__(self, trunk: SampleNet, branch: SampleNet, layout: Layout) -> None:
        self.trunk, self.branch = trunk, branch
        self._pieces = pieces_of([trunk, branch], layout)
        self._gradient = np.zeros(layout.size, np.float32)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """As :meth:`SampleNet.predict`."""
        return self.branch.predict(self.trunk.predict(x))

    def forward(self, x: np.ndarray) -> np.ndarray:
        """As :meth:`SampleNet.forward`."""
        return self.branch.forward(self.trunk.forward(x))

    def backward(self, u: np.ndarray) -> np.ndarray:
        """As :meth:`SampleNet.backward`."""
        self.branch.backward(u)
        self.trunk.backward(self.branch.of_inputs())
        return np.concatenate(self._pieces, out=self._gradient)


class SharedSamples(ArraySamples):
    """The same as :class:`~sb3_pg_ext.algorithms.ac.samples.ArraySamples`, where actor and critic share layers.

    Those are a trunk of the policy, a ``SmallCNN``, or one behind the other.
    """

    def _make_nets(self, policy: ActorCriticPolicy, q_net: Any) -> None:
        if q_net is not None:
            raise UnsupportedPolicyError("a Q-network beside layers that are shared is not done in NumPy")
        layers_behind_features(policy)  # which checks
        parts = networks(policy)
        layers, modules, convolution = _features(policy)
        layers, modules = layers + layers_of(*parts.trunk), modules + linear_modules(*parts.trunk)
        std = (None, policy.log_std) if type(policy.action_dist) is DiagGaussianDistribution else None
        self.trunk = SampleNet(layers, modules, _layout(modules, convolution), convolution=convolution)
        actor, critic = linear_modules(*parts.actor), linear_modules(*parts.critic)
        self._actor_branch = SampleNet(layers_of(*parts.actor), actor, _layout(actor, std), std)
        self._critic_branch = SampleNet(layers_of(*parts.critic), critic, _layout(critic))
        self.parts = nets = self.trunk, self._actor_branch, self._critic_branch
        check_parameters([p for net in nets for p in net.layout.parameters], list(policy.parameters()))
        self.actor_net: Any = Branch(self.trunk, self._actor_branch, self.actor)
        self.critic_net: Any = Branch(self.trunk, self._critic_branch, self.critic)
        self._pieces = pieces_of(nets, self.both)
        # New memory of this size is dearer than what is written there.
        self._gradients = np.zeros((2, self.both.size), np.float32)
        self._scaled = {
            id(layout): np.zeros(layout.size, np.float32) for layout in (self.actor, self.critic, self.both)
        }
        self._moved = {
            id(layout): [(p.detach().numpy(), piece) for p, piece in layout.pieces(self._scaled[id(layout)]).items()]
            for layout in (self.actor, self.critic, self.both)
        }

    def gradients_of_both(self, inputs: PolicyInputs, actions: np.ndarray) -> OfBoth:
        """By one pass through what is shared, and two back."""
        x, action = network_input(inputs.observations), actions[0].astype(np.float32, copy=False)
        if self._acted_on is not inputs:
            self._outputs = self.actor_net.forward(x)[0]
        self._acted_on = None
        of_log_prob, with_entropy = np.empty_like(self._outputs), np.empty_like(self._outputs)
        log_prob, entropy = self._head(self._outputs, self.sizes, action, 0.0, of_log_prob)
        self._head(self._outputs, self.sizes, action, 1.0, with_entropy)
        value = self._critic_branch.forward(self.trunk.outputs)[0, 0]
        gradient, of_entropy = self._gradients
        self._backward(0.5 * of_log_prob, np.ones(1, np.float32), gradient)
        self._backward(with_entropy - of_log_prob, np.zeros(1, np.float32), of_entropy)
        return OfBoth(float(value), float(log_prob), float(entropy), gradient, of_entropy)

    def _backward(self, u: np.ndarray, of_value: np.ndarray, out: np.ndarray) -> None:
        """The gradient of Σ u·outputs + of_value·V, in the parameters of :attr:`both`."""
        self._actor_branch.backward(u)
        self._critic_branch.backward(of_value)
        self.trunk.backward(self._actor_branch.of_inputs() + self._critic_branch.of_inputs())
        np.concatenate(self._pieces, out=out)

    def move(self, layout: Layout, scale: float, direction: Vector) -> None:
        """In the memory of the policy's own parameters."""
        self._acted_on = None  # the critic's step moves what the actor sees, too
        np.multiply(direction, np.float32(scale), out=self._scaled[id(layout)])
        for parameter, piece in self._moved[id(layout)]:
            parameter += piece


def pieces_of(nets: Iterable[SampleNet], layout: Layout) -> list[np.ndarray]:
    """Views of the gradients of some networks, in the order of a layout that has all of their parameters.

    :raises UnsupportedPolicyError: if it has others
    """
    found = {p: piece for net in nets for p, piece in net.layout.pieces(net.gradient).items()}
    if {*found} != {*layout.parameters}:
        raise UnsupportedPolicyError("it has parameters beside its networks'")
    return [found[p].reshape(-1) for p in layout.parameters]


def _layout(modules: list[nn.Linear], beside: Any = None) -> Layout:
    """The parameters of linear layers, and those of what stands beside them."""
    own = [p for module in modules for p in module.parameters()]
    match beside:
        case Convolution(), nn.Module() as module:
            own = [*module.parameters(), *own]
        case None, parameter:
            own.append(parameter)
    return Layout(own)


def _features(policy: ActorCriticPolicy) -> tuple[list[mlp.Layer], list[nn.Linear], Any]:
    """The layers that make features of observations, their modules, and the convolution before them."""
    extractor, space = policy.features_extractor, policy.observation_space
    if not isinstance(space, spaces.Box) or is_image_space(space):
        raise UnsupportedPolicyError(f"its observations are {space}")
    check_hooks(*extractor.modules())
    if type(extractor) is FlattenExtractor:
        return [], [], None
    if type(extractor) is not SmallCNN:
        raise UnsupportedPolicyError("it extracts features")
    assert extractor.channels_last is not None
    conv, linear = extractor.conv, extractor.linear
    assert conv.bias is not None
    convolution = Convolution(
        conv.weight.detach().numpy(), conv.bias.detach().numpy(), space.shape, extractor.channels_last
    )
    (layer,) = layers_of(linear)
    return [layer._replace(activations=(mlp.relu,))], [linear], (convolution, conv)
