"""A critic of states and actions."""

from functools import partial
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import get_action_dim, preprocess_obs
from stable_baselines3.common.torch_layers import FlattenExtractor, create_mlp
from torch import nn

from sb3_pg_ext.functional import mlp
from sb3_pg_ext.policies.exploration import with_layer_norm
from sb3_pg_ext.policies.plain_mlp import UnsupportedPolicyError, layers_of, linear_modules
from sb3_pg_ext.policies.sparse_init import SparseInit


class QNetwork(nn.Module):
    """Q(s, a), with a features extractor and hidden layers like those of a policy's V.

    For Discrete actions there is an output for each. Otherwise the action goes in beside the features: choices as
    one-hot vectors, the numbers of a Box as the policy gives them, not clipped.

    :param policy: the policy, of which architecture and initialisation are taken
    """

    def __init__(self, policy: ActorCriticPolicy) -> None:
        super().__init__()
        self.observation_space, self.action_space = policy.observation_space, policy.action_space
        self.normalize_images = policy.normalize_images
        self.features_extractor = policy.make_features_extractor()
        self.is_discrete = isinstance(self.action_space, spaces.Discrete)
        n_inputs = self.features_extractor.features_dim + (0 if self.is_discrete else self._action_size())
        sizes: Any = policy.net_arch
        sizes = [*sizes.get("shared", []), *sizes.get("vf", [])] if isinstance(sizes, dict) else sizes
        net = nn.Sequential(*create_mlp(n_inputs, -1, sizes, policy.activation_fn))
        self.net = with_layer_norm(net) if getattr(policy, "layer_norm", False) else net
        latent = sizes[-1] if sizes else n_inputs
        self.head = nn.Linear(latent, int(self.action_space.n) if isinstance(self.action_space, spaces.Discrete) else 1)
        if sparsity := getattr(policy, "sparse_init", 0.0):
            SparseInit(sparsity)(self)
        elif policy.ortho_init:
            for module, gain in ((self.features_extractor, np.sqrt(2)), (self.net, np.sqrt(2)), (self.head, 1.0)):
                module.apply(partial(policy.init_weights, gain=gain))

    def _action_size(self) -> int:
        if isinstance(self.action_space, spaces.MultiDiscrete):
            return int(self.action_space.nvec.sum())
        return get_action_dim(self.action_space)

    def forward(self, obs: Any, actions: th.Tensor) -> th.Tensor:
        """Q(s, a), [B].

        :param obs: observations, [B, …]
        :param actions: [B, action_dim], float32
        """
        if self.is_discrete:
            return self.outputs(obs).gather(1, actions.long()).flatten()
        if isinstance(self.action_space, spaces.MultiDiscrete):
            sizes = self.action_space.nvec.ravel().tolist()
            choices = zip(actions.long().unbind(1), sizes, strict=True)
            actions = th.cat([nn.functional.one_hot(choice, size).float() for choice, size in choices], dim=1)
        return self.head(self.net(th.cat([self._features(obs), actions], dim=1))).flatten()

    def outputs(self, obs: Any) -> th.Tensor:
        """Q(s, ·) of Discrete actions, [B, n]."""
        return self.head(self.net(self._features(obs)))

    def _features(self, obs: Any) -> th.Tensor:
        return self.features_extractor(preprocess_obs(obs, self.observation_space, self.normalize_images))

    def plain_layers(self) -> tuple[list[mlp.Layer], list[nn.Linear]]:
        """Its layers, and the modules that they are the arrays of.

        :raises UnsupportedPolicyError: if it is no plain MLP
        """
        if type(self.features_extractor) is not FlattenExtractor:
            raise UnsupportedPolicyError("it extracts features")
        return layers_of(self.net, self.head), linear_modules(self.net, self.head)

    def array_input(self, x: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """What the layers take, [B, inputs].

        :param x: flat observations, [B, …]
        :param actions: [B, action_dim]; unused where they are Discrete
        """
        if self.is_discrete:
            return x
        if isinstance(self.action_space, spaces.MultiDiscrete):
            sizes = self.action_space.nvec.ravel()
            columns = [np.eye(size, dtype=np.float32)[actions[:, i].astype(int)] for i, size in enumerate(sizes)]
            return np.concatenate([x, *columns], axis=1)
        return np.concatenate([x, actions.astype(np.float32)], axis=1)
