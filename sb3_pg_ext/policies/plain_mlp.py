"""Which policies are plain MLPs, whose arithmetic NumPy can do without PyTorch's bookkeeping.

This is the one place that decides, and the one that looks inside SB3's policies.
"""

from collections.abc import Callable, Collection, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib.common.maskable.distributions import (
    MaskableBernoulliDistribution,
    MaskableCategoricalDistribution,
    MaskableMultiCategoricalDistribution,
)
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel, BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor
from torch import nn

from sb3_pg_ext.functional import mlp
from sb3_pg_ext.functional.heads import Bernoulli, Categorical, DiagGaussian, Head
from sb3_pg_ext.policies.exploration import ExploringPolicy, StateDependentGaussianDistribution, TemperedLinear
from sb3_pg_ext.policies.masking import CERTAIN
from sb3_pg_ext.policies.observations import Observations
from sb3_pg_ext.policies.trunk import TrunkExtractor

DISTRIBUTIONS = (
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
    BernoulliDistribution,
    MaskableCategoricalDistribution,
    MaskableMultiCategoricalDistribution,
    MaskableBernoulliDistribution,
)

ACTING_METHODS = ("forward", "_predict", "get_distribution", "extract_features", "_get_action_dist_from_latent")
"""The methods of a policy between an observation and an action: a policy that overrides one is asked itself."""

VALUING_METHODS = ("forward", "evaluate_actions", "predict_values", "extract_features")
"""The methods of a policy between an observation and its value."""


class UnsupportedPolicyError(Exception):
    """The policy is no plain MLP. The message says why."""


def stock_class(policy: BasePolicy) -> type[BasePolicy]:
    """The known class that a policy with a critic is of, which says what its methods do unless it overrides them.

    :param policy: any policy of an on-policy algorithm
    """
    return next((c for c in (ExploringPolicy, MaskableActorCriticPolicy) if isinstance(policy, c)), ActorCriticPolicy)


def actor_layers(policy: ActorCriticPolicy) -> list[mlp.Layer]:
    """The actor of a plain MLP policy, from the flat observation to logits or means.

    The arrays are views of the policy's parameters: they follow every in-place update.

    :param policy: any policy of an on-policy algorithm
    :return: the layers for :func:`sb3_pg_ext.functional.mlp.forward`
    :raises UnsupportedPolicyError: if PyTorch would compute something else, or on another device
    """
    check_methods(policy, stock_class(policy), ACTING_METHODS)
    _check_distribution(policy)
    return _plain_actor(policy)


def split_actor(
    policy: ActorCriticPolicy,
) -> tuple[list[mlp.Layer], list[nn.Linear], tuple[nn.Linear | None, nn.Parameter] | None]:
    """The actor of a plain MLP policy, state-dependent deviations included.

    :param policy: any policy of an on-policy algorithm
    :return: the layers up to logits or means, the modules that they are the arrays of and, of a Gaussian, the layer of
        log σ beside the last one with its bias, or no layer and the parameter log σ
    :raises UnsupportedPolicyError: if PyTorch would compute something else, or on another device
    """
    body = policy.mlp_extractor
    if type(policy.action_dist) is StateDependentGaussianDistribution:
        check_methods(policy, stock_class(policy), ACTING_METHODS)
        _check_plain(policy, policy.pi_features_extractor)
        head: Any = policy.action_net
        check_hooks(head, head.log_std)
        layers = layers_of(body.policy_net, head.mean)
        return layers, linear_modules(body.policy_net, head.mean), (head.log_std, policy.log_std)
    layers = actor_layers(policy)
    std = (None, policy.log_std) if type(policy.action_dist) is DiagGaussianDistribution else None
    return layers, linear_modules(body.policy_net, policy.action_net), std


def critic_layers(policy: ActorCriticPolicy) -> list[mlp.Layer]:
    """The critic of a plain MLP policy, from the flat observation to V(s); else as :func:`actor_layers`."""
    check_methods(policy, stock_class(policy), VALUING_METHODS)
    return _plain_critic(policy)


class Networks(NamedTuple):
    """The modules of a policy, from flat observations or features on, in order.

    :param trunk: what actor and critic share, if there is something
    :param actor: what follows, up to logits or means
    :param critic: what follows, up to V(s)
    """

    trunk: list[nn.Module]
    actor: list[nn.Module]
    critic: list[nn.Module]


def networks(policy: ActorCriticPolicy) -> Networks:
    """Find the networks of a policy that :func:`actor_layers` or :func:`critic_layers` finds fit."""
    body = policy.mlp_extractor
    trunk: list[nn.Module] = [body.shared_net] if isinstance(body, TrunkExtractor) else []
    return Networks(trunk, [body.policy_net, policy.action_net], [body.value_net, policy.value_net])


def layers_behind_features(policy: ActorCriticPolicy) -> tuple[list[mlp.Layer], list[mlp.Layer]]:
    """Actor and critic of a policy that is a plain MLP behind its features extractor, which both of them share.

    :param policy: any policy of an on-policy algorithm
    :return: the layers of both, from features, [B, features_dim], on
    :raises UnsupportedPolicyError: if PyTorch would compute something else, or on another device
    """
    check_methods(policy, stock_class(policy), (*ACTING_METHODS, *VALUING_METHODS))
    _check_device(policy)
    _check_distribution(policy)
    _unless(policy.share_features_extractor, "actor and critic extract features apart")
    _check_body(policy)
    modules = networks(policy)
    return layers_of(*modules.trunk, *modules.actor), layers_of(*modules.trunk, *modules.critic)


def is_dear(policy: nn.Module) -> bool:
    """Whether a forward pass takes so long that a state should not pass twice: there are convolutions or recurrences.

    :param policy: the policy
    """
    recurrent = any(isinstance(module, nn.RNNBase | nn.RNNCellBase) for module in policy.modules())
    return recurrent or any(parameter.dim() > 2 for parameter in policy.parameters())


def network_input(observations: Observations) -> np.ndarray:
    """Observations [B, …] as :func:`sb3_pg_ext.functional.mlp.forward` takes them: [B, inputs], float32."""
    assert isinstance(observations, np.ndarray), "a plain MLP has no dictionaries of observations"
    return observations.reshape(len(observations), -1).astype(np.float32, copy=False)


OFFSETS = np.array([-np.inf, 0], np.float32)
"""What is added to the logit of a choice that is not allowed, and of one that is."""


def mask_logits(logits: np.ndarray, masks: np.ndarray | None) -> np.ndarray:
    """Make choices impossible.

    :param logits: [B, k]
    :param masks: [B, k], which choices are allowed, Booleans; ``None`` where all are
    :return: −∞ where a choice is not allowed, [B, k]
    """
    if masks is None:
        return logits
    # A quarter of the time of np.where(), which branches at every element.
    return logits + OFFSETS.take(masks.astype(bool, copy=False).view(np.uint8))


def mask_binary_logits(logits: np.ndarray, masks: np.ndarray | None) -> np.ndarray:
    """The same for binary actions, where a certain one has a logit of ±CERTAIN.

    :param logits: [B, d]
    :param masks: [B, 2d], of every action whether it may be 0, and whether it may be 1; ``None`` where both may be
    :return: [B, d]
    """
    if masks is None:
        return logits
    may_be_0, may_be_1 = np.moveaxis(masks.astype(bool, copy=False).reshape(*logits.shape, 2), -1, 0)
    return np.where(may_be_1, np.where(may_be_0, logits, np.float32(CERTAIN)), np.float32(-CERTAIN))


def make_head(policy: ActorCriticPolicy, outputs: np.ndarray, masks: np.ndarray | None = None) -> Head:
    """The action distributions that a plain MLP policy makes of its actor's outputs.

    :param policy: a policy that :func:`actor_layers` finds fit
    :param outputs: logits or means, [B, outputs]
    :param masks: which actions are allowed, [B, k], where they are choices; ``None`` where all are
    :return: the distributions, apart from the policy's memory
    """
    match policy.action_dist:
        case CategoricalDistribution(action_dim=size) | MaskableCategoricalDistribution(action_dim=size):
            return Categorical(mask_logits(outputs, masks), (size,))
        # That of sb3-contrib's binary actions is one of these, too.
        case MultiCategoricalDistribution(action_dims=sizes) | MaskableMultiCategoricalDistribution(action_dims=sizes):
            return Categorical(mask_logits(outputs, masks), sizes)
        case BernoulliDistribution():
            return Bernoulli(mask_binary_logits(outputs, masks))
    return DiagGaussian(outputs, policy.log_std.detach().numpy().copy())


def _unless(fit: bool, reason: str) -> None:
    if not fit:
        raise UnsupportedPolicyError(reason)


def _check_plain(policy: ActorCriticPolicy, extractor: nn.Module) -> None:
    check_input(policy, policy.features_extractor, extractor)
    _check_body(policy)


def _check_distribution(policy: ActorCriticPolicy) -> None:
    _unless(type(policy.action_dist) in DISTRIBUTIONS, f"it acts by {type(policy.action_dist).__name__}")


def _check_device(model: BaseModel) -> None:
    device = model.device  # slow to ask for
    _unless(device.type == "cpu", f"it lives on {device}")


def _check_body(policy: ActorCriticPolicy) -> None:
    body = policy.mlp_extractor
    _unless(type(body) in (MlpExtractor, TrunkExtractor), f"its body is a {type(body).__name__}")
    check_hooks(policy, body)


def check_methods(model: object, base: type, methods: tuple[str, ...]) -> None:
    """Refuse a model that overrides a method of the class whose arithmetic is known.

    :param model: the model
    :param base: the class
    :param methods: names of the methods that matter
    :raises UnsupportedPolicyError: if it does
    """
    for name in methods:
        overridden = getattr(type(model), name) is not getattr(base, name) or name in vars(model)
        _unless(not overridden, f"it overrides {name}()")


def check_input(model: BaseModel, *extractors: nn.Module | None) -> None:
    """Refuse a model that is not on the CPU, or does more to an observation than to flatten it.

    :param model: the model
    :param extractors: its features extractors
    :raises UnsupportedPolicyError: if it does
    """
    _check_device(model)
    space = model.observation_space
    if not isinstance(space, spaces.Box) or is_image_space(space):
        raise UnsupportedPolicyError(f"its observations are {space}")  # which takes long to write, and is rarely read
    for extractor in extractors:
        if not isinstance(extractor, FlattenExtractor) or type(extractor) is not FlattenExtractor:
            raise UnsupportedPolicyError("it extracts features")
        check_hooks(*extractor.modules())


def check_hooks(*modules: nn.Module) -> None:
    """Refuse modules that call something else before, after or instead of their own arithmetic.

    :raises UnsupportedPolicyError: if one does
    """
    for module in modules:
        forward, early, backward, early_backward = _hooks(module)
        _unless(not forward and not early, "a module has a forward hook")
        _unless(not backward and not early_backward, "a module has a backward hook")
        _unless("forward" not in vars(module), "a module has another forward() than its class")


def _hooks(module: nn.Module) -> tuple[dict, ...]:
    """The registers of a module's hooks."""
    return module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks


def check_parameters(used: Sequence[th.Tensor], parameters: Collection[th.Tensor]) -> None:
    """Refuse a model whose gradient is more than that of its layers, one by one.

    :param used: the parameters of its layers
    :param parameters: all of the model's
    :raises UnsupportedPolicyError: if it is
    """
    # By identity, since PyTorch's hash of a tensor is a function in Python.
    _unless({*map(id, used)} == {*map(id, parameters)}, "it has parameters beside its networks'")
    _unless(len(used) == len(parameters), "its layers share parameters")
    _unless(all(p.requires_grad for p in parameters), "it has frozen parameters")
    hooked = any(p._backward_hooks or p._post_accumulate_grad_hooks for p in parameters)
    _unless(not hooked, "a parameter has a hook")


# At every step these are read of every parameter, by map(), which is faster than a loop.
HOOKS, GRADIENT_HOOKS, IS_TRAINED = map(attrgetter, ("_backward_hooks", "_post_accumulate_grad_hooks", "requires_grad"))


class Watch:
    """Tells whether a model is still the one that was found to be a plain MLP, cheaply enough for every step.

    What it notices: modules and parameters that are others or lie elsewhere, parameters that have been frozen or set
    free, hooks, and methods or anything else that a module in it has been given.

    :param model: what is watched, with everything in it
    """

    def __init__(self, model: nn.Module) -> None:
        modules = list(model.modules())
        self._registers: list[dict[str, Any]] = [r for m in modules for r in (m._modules, m._parameters)]
        self._attributes = [vars(module) for module in modules[1:]]  # the model's own may lead to the model
        self._hooks = [hooks for module in modules for hooks in _hooks(module)]
        self._parameters = list(model.parameters())
        self._parts = self._current_parts()  # held: what is gone could leave its identity to another
        self._before = self._state(self._parts)

    def _current_parts(self) -> list[object]:
        return [*chain.from_iterable(map(dict.values, self._registers))]

    def _state(self, parts: list[object]) -> list[object]:
        parameters = self._parameters
        hooked = any(self._hooks) or any(map(HOOKS, parameters)) or any(map(GRADIENT_HOOKS, parameters))
        given = map(len, self._attributes)
        return [hooked, *given, *map(id, parts), *map(th.Tensor.data_ptr, parameters), *map(IS_TRAINED, parameters)]

    def is_unchanged(self) -> bool:
        """Whether nothing has been noticed since construction."""
        return self._state(self._current_parts()) == self._before


Find = Callable[[ActorCriticPolicy], list[mlp.Layer]]


def _until_changed(find: Find) -> Find:
    """Remember what is found in a policy, for as long as a :class:`Watch` notices nothing."""
    known: WeakKeyDictionary[ActorCriticPolicy, tuple[Watch, list[mlp.Layer]]] = WeakKeyDictionary()

    def ask(policy: ActorCriticPolicy) -> list[mlp.Layer]:
        watch, layers = known.pop(policy, (None, []))
        if watch is None or not watch.is_unchanged():
            layers, watch = find(policy), Watch(policy)
        known[policy] = watch, layers
        return layers

    return ask


@_until_changed
def _plain_actor(policy: ActorCriticPolicy) -> list[mlp.Layer]:
    _check_plain(policy, policy.pi_features_extractor)
    modules = networks(policy)
    return layers_of(*modules.trunk, *modules.actor)


@_until_changed
def _plain_critic(policy: ActorCriticPolicy) -> list[mlp.Layer]:
    _check_plain(policy, policy.vf_features_extractor)
    modules = networks(policy)
    return layers_of(*modules.trunk, *modules.critic)


def layers_of(*nets: nn.Module) -> list[mlp.Layer]:
    """The layers of an MLP, as views of its parameters.

    :param nets: what it consists of, in order: linear layers, each followed by any number of activation functions, and
        sequences of both
    :raises UnsupportedPolicyError: if there is anything else in it
    """
    check_hooks(*nets)
    layers: list[mlp.Layer] = []
    for module in _flat(nets):
        check_hooks(module)
        if isinstance(module, nn.Linear) and type(module) in (nn.Linear, TemperedLinear):
            _unless(module.weight.dtype == th.float32, "its parameters are not all float32")
            bias = None if module.bias is None else module.bias.detach().numpy()
            tempered = (mlp.scale(1 / module.temperature),) if isinstance(module, TemperedLinear) else ()
            layers.append(mlp.Layer(module.weight.detach().numpy(), bias, tempered))
        elif layers:
            layers[-1] = layers[-1]._replace(activations=(*layers[-1].activations, _activation(module)))
        else:
            raise UnsupportedPolicyError(f"a {type(module).__name__} stands where a linear layer is expected")
    return layers


def linear_modules(*nets: nn.Module) -> list[nn.Linear]:
    """The modules that the layers of :func:`layers_of` are views of, one for each."""
    return [module for module in _flat(nets) if isinstance(module, nn.Linear)]


def _flat(nets: Sequence[nn.Module]) -> list[nn.Module]:
    return [module for net in nets for module in (net if isinstance(net, nn.Sequential) else [net])]


def _layer_norm(module: nn.LayerNorm) -> mlp.Activation:
    plain = not module.elementwise_affine and len(module.normalized_shape) == 1
    _unless(plain, "its activation function is LayerNorm with parameters")
    return mlp.layer_norm(module.eps)


ACTIVATIONS: dict[type[nn.Module], Callable[..., mlp.Activation]] = {
    nn.Tanh: lambda module: mlp.tanh,
    nn.ReLU: lambda module: mlp.relu,
    nn.LeakyReLU: lambda module: mlp.leaky_relu(module.negative_slope),
    nn.ELU: lambda module: mlp.elu(module.alpha),
    nn.Sigmoid: lambda module: mlp.sigmoid,
    nn.SiLU: lambda module: mlp.silu,
    nn.LayerNorm: _layer_norm,
}
"""By exact type: a subclass may calculate something else."""


def _activation(module: nn.Module) -> mlp.Activation:
    if type(module) not in ACTIVATIONS:
        raise UnsupportedPolicyError(f"its activation function is {type(module).__name__}")
    return ACTIVATIONS[type(module)](module)
