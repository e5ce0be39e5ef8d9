"""GumbelDDPG's networks: logits of the actions, Q of observations and one-hot actions, and target networks of both."""

from copy import deepcopy
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel, BasePolicy, ContinuousCritic
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
    create_mlp,
    get_actor_critic_arch,
)
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from sb3_pg_ext.policies.trunk_and_head import TrunkAndHead

PUBLIC_MODULE = "sb3_pg_ext.algorithms.gumbel_ddpg"
"""Where saved files look for the policies, wherever they are defined."""


def block_sizes(action_space: spaces.Space) -> list[int]:
    """How many choices each discrete action has."""
    if isinstance(action_space, spaces.Discrete):
        return [int(action_space.n)]
    assert isinstance(action_space, spaces.MultiDiscrete)
    return [int(size) for size in action_space.nvec.flatten()]


class LinearCritic(BaseModel):
    """Q_i(s, a) = Σ_j a_j·q_ij(s), of one-hot actions a side by side: linear in a, and so its own mean between them.

    Its arguments are those of SB3's ``ContinuousCritic``.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        net_arch: list[int],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        activation_fn: type[nn.Module] = nn.ReLU,
        normalize_images: bool = True,
        n_critics: int = 2,
        share_features_extractor: bool = True,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            features_extractor=features_extractor,
            normalize_images=normalize_images,
        )
        self.share_features_extractor = share_features_extractor
        sizes = features_dim, action_space.shape[0], net_arch, activation_fn
        self.q_networks = nn.ModuleList(nn.Sequential(*create_mlp(*sizes)) for _ in range(n_critics))

    def forward(self, obs: PyTorchObs, actions: th.Tensor) -> tuple[th.Tensor, ...]:
        """Q of every network, [B, 1] each."""
        assert self.features_extractor is not None
        features = self.extract_features(obs, self.features_extractor)
        return tuple((net(features) * actions).sum(1, keepdim=True) for net in self.q_networks)


class GumbelPolicy(BasePolicy):
    """Samples softmax(l(s)), by the largest of l + g with Gumbel noise g, or takes the largest of l.

    :param observation_space: observation space
    :param action_space: action space, Discrete or MultiDiscrete
    :param lr_schedule: learning rate schedule
    :param net_arch: widths of the layers, or those of each network as ``dict(pi=[…], qf=[…])``; ``None`` for 64 and 64
    :param activation_fn: activation function
    :param n_critics: number of Q-networks
    :param linear_critic: whether Q is linear in the one-hot action, Σ_j a_j·q_j(s), instead of a network of s and a;
        of several choices it is a sum over them then
    :param features_extractor_class: features extractor, of which actor and critic have one each
    :param features_extractor_kwargs: its arguments
    :param normalize_images: whether images are divided by 255
    :param optimizer_class: class of the two optimisers
    :param optimizer_kwargs: their arguments, without the learning rate
    """

    __module__ = PUBLIC_MODULE

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete | spaces.MultiDiscrete,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        n_critics: int = 1,
        linear_critic: bool = False,
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
        )
        self.net_arch = [64, 64] if net_arch is None else net_arch
        self.activation_fn = activation_fn
        self.n_critics = n_critics
        self.linear_critic = linear_critic
        self.sizes = block_sizes(action_space)
        actor_arch, critic_arch = get_actor_critic_arch(self.net_arch)
        self.actor = TrunkAndHead(
            observation_space,
            action_space,
            self.make_features_extractor(),
            actor_arch,
            activation_fn,
            n_heads=sum(self.sizes),
            normalize_images=normalize_images,
        )
        extractor = self.make_features_extractor()
        make_critic = LinearCritic if linear_critic else ContinuousCritic
        self.critic = make_critic(
            observation_space,
            spaces.Box(0, 1, (sum(self.sizes),), np.float32),  # one-hot vectors
            critic_arch,
            extractor,
            extractor.features_dim,
            activation_fn,
            normalize_images=normalize_images,
            n_critics=n_critics,
            share_features_extractor=False,
        )
        self.actor_target, self.critic_target = deepcopy(self.actor), deepcopy(self.critic)
        for target in (self.actor_target, self.critic_target):
            target.set_training_mode(False)
        make_optimizer: Any = self.optimizer_class
        for network in (self.actor, self.critic):
            network.optimizer = make_optimizer(network.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **super()._get_constructor_parameters(),
            "net_arch": self.net_arch,
            "activation_fn": self.activation_fn,
            "n_critics": self.n_critics,
            "linear_critic": self.linear_critic,
            "lr_schedule": self._dummy_schedule,
            "features_extractor_class": self.features_extractor_class,
            "features_extractor_kwargs": self.features_extractor_kwargs,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
        }

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        """Choose actions, [B] or, of several, [B, actions]."""
        return self._predict(obs, deterministic)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        logits = self.actor(observation)
        if not deterministic:
            logits = logits - th.empty_like(logits).exponential_().log()
        choices = th.stack([block.argmax(1) for block in logits.split(self.sizes, 1)], 1)
        return choices.reshape(-1, *(self.action_space.shape or ()))

    def set_training_mode(self, mode: bool) -> None:
        """Put actor and critic into training or evaluation mode; the targets stay in evaluation mode."""
        if {self.actor.training, self.critic.training} != {mode}:  # asked at every step, and slow
            self.actor.set_training_mode(mode)
            self.critic.set_training_mode(mode)
        self.training = mode


MlpPolicy = GumbelPolicy


class CnnPolicy(GumbelPolicy):
    """:class:`GumbelPolicy` for images."""

    __module__ = PUBLIC_MODULE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"features_extractor_class": NatureCNN, **kwargs})


class MultiInputPolicy(GumbelPolicy):
    """:class:`GumbelPolicy` for Dict observations."""

    __module__ = PUBLIC_MODULE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"features_extractor_class": CombinedExtractor, **kwargs})
