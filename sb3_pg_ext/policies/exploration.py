"""SB3's actor-critic policies, with a choice of how much they explore, and where.

With default arguments they are SB3's own, bit by bit. Nothing in them depends on the algorithm: they work in stock PPO,
A2C and TRPO too.
"""

from typing import Any, TypeVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    MultiInputActorCriticPolicy,
)
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from sb3_pg_ext.arguments import check_choice, check_flag, check_range
from sb3_pg_ext.policies.masking import MaskablePolicy
from sb3_pg_ext.policies.sparse_init import SparseInit
from sb3_pg_ext.policies.trunk import TrunkExtractor, check_net_arch, has_trunk

SelfGaussian = TypeVar("SelfGaussian", bound="StateDependentGaussianDistribution")

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0
"""Bounds of a state-dependent log σ(s), those of SB3's SAC. Beyond them it is clamped, and has no gradient."""

MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-3, 1e3
"""Beyond them the actions are certain, or uniform, whatever the logits."""


class TemperedLinear(nn.Linear):
    """A linear layer whose output is divided by a temperature; it shares the parameters of the layer it is made of.

    :param linear: the layer
    :param temperature: τ, a positive number
    """

    def __init__(self, linear: nn.Linear, temperature: float) -> None:
        # On the meta device nothing is drawn from the random generator for parameters that are replaced at once.
        super().__init__(linear.in_features, linear.out_features, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.temperature = temperature

    def forward(self, input: th.Tensor) -> th.Tensor:
        """(x Wᵀ + b) / τ, [B, outputs]."""
        return super().forward(input) / self.temperature


class SideBySide(nn.Module):
    """Two networks of the same input, whose outputs are joined.

    :param first: gives the first half of the output
    :param second: gives the other half
    """

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, features: th.Tensor) -> th.Tensor:
        """Both outputs, [B, 2·width]."""
        return th.cat([self.first(features), self.second(features)], dim=1)


class GaussianHead(nn.Module):
    """Two linear layers side by side: the mean, and by how much log σ(s) differs from ``log_std``.

    :param latent_dim: number of latent features
    :param action_dim: number d of action dimensions
    :param separate: whether the first half of the features is for the mean alone, and the other for σ
    """

    def __init__(self, latent_dim: int, action_dim: int, separate: bool = False) -> None:
        super().__init__()
        self.separate = separate
        latent_dim //= 1 + separate
        self.mean = nn.Linear(latent_dim, action_dim)
        self.log_std = nn.Linear(latent_dim, action_dim, bias=False)  # the policy's log_std is its bias

    def forward(self, latent: th.Tensor) -> th.Tensor:
        """Both, [B, 2d]."""
        of_mean, of_std = latent.chunk(2, dim=1) if self.separate else (latent, latent)
        return th.cat([self.mean(of_mean), self.log_std(of_std)], dim=1)


class StateDependentGaussianDistribution(DiagGaussianDistribution):
    """A Gaussian with diagonal covariance whose standard deviation depends on the state.

        μ(s) = W h(s) + b,   log σ(s) = clamp(log_std + U h(s), −20, 2)

    with the actor's latent features h, and the parameter ``log_std``, [d], that SB3's Gaussian has alone. The bounds
    are those of SB3's SAC. With ``std_function="softplus"`` the same sum x makes σ(s) = log(1 + eˣ), x ≥ −20. If they
    are separate, μ sees the first half of h, and σ the other.

    :param action_dim: number d of action dimensions
    :param std_function: ``"exp"`` or ``"softplus"``
    :param separate: whether the latent features of μ and σ are separate
    """

    def __init__(self, action_dim: int, std_function: str = "exp", separate: bool = False) -> None:
        super().__init__(action_dim)
        self.std_function = std_function
        self.separate = separate

    def proba_distribution_net(self, latent_dim: int, log_std_init: float = 0.0) -> tuple[nn.Module, nn.Parameter]:
        """Create the layers and the parameter ``log_std``.

        :param latent_dim: number of latent features of the actor
        :param log_std_init: initial value of ``log_std``
        """
        head = GaussianHead(latent_dim, self.action_dim, self.separate)
        return head, nn.Parameter(th.full((self.action_dim,), log_std_init))

    def proba_distribution(self: SelfGaussian, mean_actions: th.Tensor, log_std: th.Tensor) -> SelfGaussian:
        """Create the distribution.

        :param mean_actions: what the layers give, [B, 2d]: means, then differences of log σ from ``log_std``
        :param log_std: [d]
        """
        mean, difference = mean_actions.chunk(2, dim=1)
        x = log_std + difference
        if self.std_function == "softplus":
            return super().proba_distribution(mean, nn.functional.softplus(x.clamp(min=LOG_STD_MIN)).log())
        return super().proba_distribution(mean, x.clamp(LOG_STD_MIN, LOG_STD_MAX))


def with_layer_norm(net: nn.Module) -> nn.Sequential:
    """The same layers, with LayerNorm without parameters after every linear one.

    :param net: an ``nn.Sequential``
    """
    layers: list[nn.Module] = []
    for layer in net.children():
        layers.append(layer)
        if isinstance(layer, nn.Linear):
            layers.append(nn.LayerNorm(layer.out_features, elementwise_affine=False))
    return nn.Sequential(*layers)


class ExploringPolicy(MaskablePolicy):
    """What the policies below add to SB3's.

    :param args: arguments of SB3's policy
    :param temperature: τ of π(a|s) ∝ exp(logit_a / τ), from 0.001 to 1000, for Discrete, MultiDiscrete and MultiBinary
        actions: above 1 it flattens the distribution, below it sharpens it; the most probable action stays the same
    :param state_dependent_std: whether the standard deviation of a Gaussian is a function of the state, for Box
        actions without gSDE: see :class:`StateDependentGaussianDistribution`. ``log_std_init`` is its initial
        logarithm, up to the small random weights of its layer. ``"separate"`` gives it hidden layers of its own, as
        many and as wide as those of the mean; not with layers that actor and critic share
    :param std_function: how that function makes a standard deviation of the output x of its layer: ``"exp"``, eˣ, or
        ``"softplus"``, log(1 + eˣ), for which ``log_std_init`` is the initial x
    :param layer_norm: whether the outputs of every hidden layer, before its activation function, are normalised to
        mean 0 and variance 1 (LayerNorm without parameters)
    :param sparse_init: which part of the initial weights of all layers is zero, in [0, 1): see
        :class:`~sb3_pg_ext.policies.SparseInit`; 0 leaves initialisation to ``ortho_init``
    :param kwargs: arguments of SB3's policy
    :raises ValueError: if an argument is out of range, or does not go with the action space or with gSDE
    """

    def __init__(
        self,
        *args: Any,
        temperature: float = 1.0,
        state_dependent_std: bool | str = False,
        std_function: str = "exp",
        layer_norm: bool = False,
        sparse_init: float = 0.0,
        **kwargs: Any,
    ) -> None:
        self.temperature = temperature
        self.state_dependent_std = state_dependent_std
        self.std_function = std_function
        self.layer_norm = layer_norm
        self.sparse_init = sparse_init
        super().__init__(*args, **kwargs)

    def _check_exploration(self) -> None:
        check_net_arch(self.net_arch)
        continuous = isinstance(self.action_space, spaces.Box)
        check_range("temperature", self.temperature, MIN_TEMPERATURE, MAX_TEMPERATURE)
        if self.state_dependent_std not in (False, True, "separate"):
            raise ValueError(f"state_dependent_std={self.state_dependent_std!r}; allowed: True, False or 'separate'")
        if self.state_dependent_std == "separate" and has_trunk(self.net_arch):
            raise ValueError(f"state_dependent_std='separate' with net_arch={self.net_arch}; allowed: no shared layers")
        check_flag("layer_norm", self.layer_norm)
        check_range("sparse_init", self.sparse_init, 0, 1)
        check_choice("std_function", self.std_function, ("exp", "softplus"))
        if self.std_function != "exp" and not self.state_dependent_std:
            raise ValueError(
                f"std_function={self.std_function!r} with state_dependent_std=False, where it is unused; allowed: 'exp'"
            )
        if self.temperature != 1 and continuous:
            raise ValueError(
                f"temperature={self.temperature!r} with the action space {self.action_space}; allowed: 1, or a "
                "Discrete, MultiDiscrete or MultiBinary action space"
            )
        if not self.state_dependent_std:
            return
        if not continuous or self.use_sde:
            raise ValueError(
                f"state_dependent_std={self.state_dependent_std!r} with the action space {self.action_space} and "
                f"use_sde={self.use_sde!r}; allowed: False, or a Box action space and use_sde=False"
            )
        check_range("log_std_init", self.log_std_init, LOG_STD_MIN, LOG_STD_MAX)

    def _build_mlp_extractor(self) -> None:
        self._build_one_extractor()
        if self.state_dependent_std == "separate":
            extractor = self.mlp_extractor
            self._build_one_extractor()
            both = SideBySide(extractor.policy_net, self.mlp_extractor.policy_net)
            extractor.policy_net = both  # type: ignore[assignment]
            extractor.latent_dim_pi *= 2
            self.mlp_extractor = extractor

    def _build_one_extractor(self) -> None:
        if not has_trunk(self.net_arch):
            super()._build_mlp_extractor()
        else:
            assert isinstance(self.net_arch, dict)
            self.mlp_extractor = TrunkExtractor(self.features_dim, self.net_arch, self.activation_fn, self.device)
        if self.layer_norm:
            for name, net in self.mlp_extractor.named_children():
                setattr(self.mlp_extractor, name, with_layer_norm(net))

    def _build(self, lr_schedule: Schedule) -> None:
        self._check_exploration()
        if self.state_dependent_std:
            action_dim = get_action_dim(self.action_space)
            separate = self.state_dependent_std == "separate"
            self.action_dist = StateDependentGaussianDistribution(action_dim, self.std_function, separate)
        super()._build(lr_schedule)
        if self.temperature != 1:
            assert isinstance(self.action_net, nn.Linear)
            self.action_net = TemperedLinear(self.action_net, self.temperature)
        if self.sparse_init:
            SparseInit(self.sparse_init)(self)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **super()._get_constructor_parameters(),
            "temperature": self.temperature,
            "state_dependent_std": self.state_dependent_std,
            "std_function": self.std_function,
            "layer_norm": self.layer_norm,
            "sparse_init": self.sparse_init,
        }


class MlpPolicy(ExploringPolicy):
    """An MLP: SB3's ``ActorCriticPolicy``, and what :class:`ExploringPolicy` adds."""


class CnnPolicy(ExploringPolicy, ActorCriticCnnPolicy):
    """For images: SB3's ``ActorCriticCnnPolicy``, and what :class:`ExploringPolicy` adds."""


class MultiInputPolicy(ExploringPolicy, MultiInputActorCriticPolicy):
    """For Dict observations: SB3's ``MultiInputActorCriticPolicy``, and what :class:`ExploringPolicy` adds."""
