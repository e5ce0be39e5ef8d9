"""A network of its own that takes observations, as off-policy algorithms have several."""

from functools import partial
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn


class TrunkAndHead(BaseModel):
    """Features extractor, trunk and linear head, for V(s) or the logits of a policy.

    :param observation_space: observation space
    :param action_space: action space
    :param features_extractor: from observations to features
    :param net_arch: widths of the trunk's layers
    :param activation_fn: activation function of the trunk
    :param layer_norm: whether every layer of the trunk is normalised before its activation, without gain and offset
    :param n_heads: number of outputs
    :param normalize_images: whether images are divided by 255
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        features_extractor: BaseFeaturesExtractor,
        net_arch: list[int],
        activation_fn: type[nn.Module],
        layer_norm: bool = False,
        n_heads: int = 1,
        normalize_images: bool = True,
    ) -> None:
        super().__init__(
            observation_space, action_space, features_extractor=features_extractor, normalize_images=normalize_images
        )
        norms: list[Any] = [partial(nn.LayerNorm, elementwise_affine=False)] if layer_norm else []
        features_dim = features_extractor.features_dim
        self.trunk = nn.Sequential(*create_mlp(features_dim, 0, net_arch, activation_fn, post_linear_modules=norms))
        self.latent_dim = [features_dim, *net_arch][-1]
        self.head = nn.Linear(self.latent_dim, n_heads)

    def encode(self, obs: PyTorchObs) -> th.Tensor:
        """What the trunk makes of observations, [B, latent_dim]."""
        assert self.features_extractor is not None
        return self.trunk(self.extract_features(obs, self.features_extractor))

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        """From observations to the outputs, [B, heads]."""
        return self.head(self.encode(obs))
