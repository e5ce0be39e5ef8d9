"""NAF's networks: V, the best action μ and the curvature P from one trunk, and a target network for V alone."""

from copy import deepcopy
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
)
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from sb3_pg_ext.functional.quadratic import n_outputs
from sb3_pg_ext.functional.tensors import quadratic
from sb3_pg_ext.policies.trunk_and_head import TrunkAndHead

PUBLIC_MODULE = "sb3_pg_ext.algorithms.naf"
"""Where saved files look for the policies, wherever they are defined."""


class QuadraticCritic(nn.Module):
    """Q(s, ·): V, and beside its head a second one for μ and L.

    :param value: V and the trunk
    :param action_dim: d
    """

    def __init__(self, value: TrunkAndHead, action_dim: int) -> None:
        super().__init__()
        self.value = value
        self.n_heads, self.action_dim = value.head.out_features, action_dim
        self.action_head = nn.Linear(value.latent_dim, self.n_heads * n_outputs(action_dim))

    def forward(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor]:
        """All that the networks say of a batch.

        :param obs: observations
        :return: V(s), [B, heads], and what :mod:`~sb3_pg_ext.functional.quadratic` makes μ and L of, [B, heads, …]
        """
        latent = self.value.encode(obs)
        return self.value.head(latent), self.split_heads(self.action_head(latent))

    def split_heads(self, outputs: th.Tensor) -> th.Tensor:
        """From the outputs of the second head, [B, …], to [B, heads, …]."""
        return outputs.unflatten(-1, (self.n_heads, -1))


def check_widths(net_arch: Any) -> None:
    """Refuse anything but ``None`` and a list of widths; one for each of several networks, for example.

    :param net_arch: the argument of the policy
    :raises ValueError: for anything else
    """
    widths = [] if net_arch is None else net_arch
    if not isinstance(widths, list | tuple) or not all(isinstance(w, int | np.integer) and w >= 1 for w in widths):
        raise ValueError(
            f"policy_kwargs=dict(net_arch={net_arch!r}); allowed: a list of integers ≥ 1, the widths of the one trunk "
            "that V, μ and P share"
        )


class NAFPolicy(BasePolicy):
    """Acts by μ(s), or samples N(μ(s), temperature·P(s)⁻¹).

    :param observation_space: observation space
    :param action_space: action space
    :param lr_schedule: learning rate schedule
    :param net_arch: widths of the trunk's layers; ``None`` for 200 and 200, as in the paper
    :param activation_fn: activation function of the trunk
    :param layer_norm: whether every layer of the trunk is normalised before its activation, without gain and offset
    :param n_heads: number of heads, each with its own V, μ and P; the first one acts
    :param temperature: of the sampled actions; ``None``: they are not sampled, every action is μ
    :param features_extractor_class: features extractor, shared by all heads
    :param features_extractor_kwargs: its arguments
    :param normalize_images: whether images are divided by 255
    :param optimizer_class: class of the optimiser
    :param optimizer_kwargs: its arguments, without the learning rate
    :raises ValueError: if ``net_arch`` is no list of widths
    """

    __module__ = PUBLIC_MODULE

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        net_arch: list[int] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        layer_norm: bool = False,
        n_heads: int = 1,
        temperature: float | None = None,
        features_extractor_class: type[BaseFeaturesExtractor] = FlattenExtractor,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            features_extractor_class,
            features_extractor_kwargs,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            squash_output=True,
        )
        check_widths(net_arch)
        self.net_arch = [200, 200] if net_arch is None else net_arch
        self.activation_fn = activation_fn
        self.layer_norm = layer_norm
        self.n_heads = n_heads
        self.temperature = temperature
        value = TrunkAndHead(
            observation_space,
            action_space,
            self.make_features_extractor(),
            self.net_arch,
            activation_fn,
            layer_norm,
            n_heads=n_heads,
            normalize_images=normalize_images,
        )
        self.critic = QuadraticCritic(value, get_action_dim(action_space))
        self.value_target = deepcopy(value)
        self.value_target.set_training_mode(False)
        self.optimizer = self.optimizer_class(
            self.critic.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **super()._get_constructor_parameters(),
            "net_arch": self.net_arch,
            "activation_fn": self.activation_fn,
            "layer_norm": self.layer_norm,
            "n_heads": self.n_heads,
            "temperature": self.temperature,
            "lr_schedule": self._dummy_schedule,
            "features_extractor_class": self.features_extractor_class,
            "features_extractor_kwargs": self.features_extractor_kwargs,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
        }

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        """Choose actions in [−1, 1], [B, d]."""
        return self._predict(obs, deterministic)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        outputs = self.critic.action_head(self.critic.value.encode(observation))
        return self.choose_actions(outputs, deterministic)

    def choose_actions(self, outputs: th.Tensor, deterministic: bool = False) -> th.Tensor:
        """Choose actions in [−1, 1].

        :param outputs: those of the critic's second head, [B, …]
        :param deterministic: whether every action is μ, even if there is a temperature
        :return: [B, d]
        """
        first = self.critic.split_heads(outputs)[:, 0]
        if deterministic or self.temperature is None:
            return quadratic.best_action(first, self.critic.action_dim)
        best_actions, factor = quadratic.best_action_and_factor(first, self.critic.action_dim)
        return quadratic.sample(best_actions, factor, self.temperature).clamp(-1, 1)

    def set_training_mode(self, mode: bool) -> None:
        """Put the critic into training or evaluation mode; the target network stays in evaluation mode."""
        if self.critic.training != mode:  # asked twice at every step, and slow
            self.critic.train(mode)
        self.training = mode


MlpPolicy = NAFPolicy


class CnnPolicy(NAFPolicy):
    """:class:`NAFPolicy` for images."""

    __module__ = PUBLIC_MODULE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"features_extractor_class": NatureCNN, **kwargs})


class MultiInputPolicy(NAFPolicy):
    """:class:`NAFPolicy` for Dict observations."""

    __module__ = PUBLIC_MODULE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"features_extractor_class": CombinedExtractor, **kwargs})
