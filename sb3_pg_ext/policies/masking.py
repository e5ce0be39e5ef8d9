"""Action masks, laid out as sb3-contrib's users know them: which choices are allowed in a state.

A forbidden choice has the probability 0, exactly, and no derivative reaches its logit.
"""

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    Distribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from torch.distributions import Bernoulli, Categorical

Masks = np.ndarray | th.Tensor | None
"""Booleans [B, k]; ``None`` where everything is allowed."""

CERTAIN = 1e30
"""The logit of a choice that has to be made; that of one that is forbidden is −CERTAIN, and exp(−CERTAIN) is 0.

Not ∞: PyTorch multiplies it by derivatives of the entropy, and makes NaN of binary actions.
"""


class MaskLayout:
    """How the masks of an action space are laid out: one value for every choice, as in sb3-contrib.

    Those of a MultiDiscrete action stand one component after the other. A component of a MultiBinary one has two:
    whether it may be 0, and whether it may be 1.

    :param action_space: Discrete, MultiDiscrete or MultiBinary
    :raises ValueError: for another action space
    """

    def __init__(self, action_space: spaces.Space) -> None:
        self.action_space = action_space
        match action_space:
            case spaces.Discrete(n=n):
                self.sizes = [int(n)]
            case spaces.MultiDiscrete(nvec=sizes):
                self.sizes = sizes.ravel().tolist()
            case spaces.MultiBinary(n=n):
                self.sizes = [2] * int(np.prod(n))
            case _:
                raise ValueError(
                    f"action masks with the action space {action_space}; allowed: Discrete, MultiDiscrete, MultiBinary"
                )
        self.width = sum(self.sizes)
        self._starts = np.cumsum([0, *self.sizes[:-1]])

    def check(self, given: Any, n: int, place: Callable[[int], str]) -> np.ndarray:
        """Masks as :class:`~sb3_pg_ext.policies.inputs.PolicyInputs` holds them: Booleans [n, k].

        :param given: Booleans, or numbers 0 and 1, in this layout: [n, k], or [k] of a single state
        :param n: of how many states
        :param place: where a mask comes from, by its index, for messages
        :raises ValueError: if they are of another shape or have other values, or a mask allows no action
        """
        masks = np.asarray(given)
        if masks.shape != (n, self.width):
            if n != 1 or masks.shape != (self.width,):
                raise ValueError(
                    f"action masks of shape {list(masks.shape)} with the action space {self.action_space}; allowed: "
                    f"{[n, self.width]}, one value for every choice"
                )
            masks = masks[None]
        if masks.dtype != bool:
            strange = np.argwhere((masks != 0) & (masks != 1)).tolist()
            if strange:
                row, choice = strange[0]
                raise ValueError(f"action mask with {masks[row, choice]} {place(row)}; allowed: True, False, 1, 0")
            masks = masks.astype(bool)
        allowed = np.logical_or.reduceat(masks, self._starts, axis=1)
        if not allowed.all():
            row, component = np.argwhere(~allowed)[0].tolist()
            of_component = f" for component {component} of the action" if len(self.sizes) > 1 else ""
            raise ValueError(f"action mask without any allowed action{of_component} {place(row)}")
        return masks


def mask_distribution(distribution: Distribution, masks: Masks) -> Distribution:
    """Make choices impossible, in place.

    :param distribution: one of SB3's, of a batch
    :param masks: which choices are allowed, [B, k], in the layout of :class:`MaskLayout`
    :return: the same object
    :raises ValueError: if it has no choices, or there are more or fewer masks
    """
    if masks is None:
        return distribution
    held: Any = distribution
    match distribution:
        case CategoricalDistribution():
            (held.distribution,) = _masked_choices([held.distribution], masks)
        case MultiCategoricalDistribution():
            held.distribution = _masked_choices(held.distribution, masks)
        case BernoulliDistribution():
            logits = held.distribution.logits
            allowed = _allowed(masks, (len(logits), 2 * logits.shape[1]), logits.device)
            may_be_0, may_be_1 = allowed.reshape(*logits.shape, 2).unbind(-1)
            logits = logits.masked_fill(~may_be_0, CERTAIN).masked_fill(~may_be_1, -CERTAIN)
            held.distribution = Bernoulli(logits=logits)
        case _:
            raise ValueError(
                f"action masks with {type(distribution).__name__}; allowed: a Discrete, MultiDiscrete or MultiBinary "
                "action space"
            )
    return distribution


def _masked_choices(choices: list[Categorical], masks: Any) -> list[Categorical]:
    logits = [choice.logits for choice in choices]
    sizes = [of_choice.shape[1] for of_choice in logits]
    allowed = _allowed(masks, (len(logits[0]), sum(sizes)), logits[0].device).split(sizes, dim=1)
    return [Categorical(logits=x.masked_fill(~a, -CERTAIN)) for x, a in zip(logits, allowed, strict=True)]


def _allowed(masks: Any, shape: tuple[int, int], device: th.device) -> th.Tensor:
    allowed = th.as_tensor(masks, dtype=th.bool, device=device)
    if allowed.shape != shape and (1, *allowed.shape) != shape:
        raise ValueError(
            f"action masks of shape {list(allowed.shape)}; allowed: {list(shape)}, one value for every choice"
        )
    return allowed.reshape(shape)


def check_masks(action_space: spaces.Space, obs: PyTorchObs, given: Any) -> np.ndarray:
    """Masks to act with, Booleans [B, k].

    :param action_space: Discrete, MultiDiscrete or MultiBinary
    :param obs: observations, [B, …]
    :param given: as :meth:`MaskLayout.check` takes them
    :raises ValueError: if it refuses them
    """
    n = len(next(iter(obs.values())) if isinstance(obs, dict) else obs)
    return MaskLayout(action_space).check(given, n, lambda row: f"for observation {row}")


MASKED_METHODS = ("forward", "get_distribution", "evaluate_actions", "_predict")
"""The methods of a policy that take ``action_masks``, if it takes any."""


def why_unmaskable(policy: BasePolicy) -> str | None:
    """What stands between a policy and action masks, in words; ``None`` where it takes them."""
    if isinstance(policy.action_space, spaces.Box):
        return f"the action space {policy.action_space} has no choices"
    for name in MASKED_METHODS:
        if not takes_masks(getattr(policy, name)):
            return (
                f"{type(policy).__name__}.{name}() has no argument action_masks, which the policies of "
                "sb3_pg_ext.policies and sb3-contrib's maskable ones have"
            )
    return None


def takes_masks(method: Callable[..., Any]) -> bool:
    """Whether a method has an argument ``action_masks``."""
    parameters = signature(method).parameters
    return "action_masks" in parameters or any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())


class MaskablePolicy(ActorCriticPolicy):
    """SB3's actor-critic policy, whose methods take action masks as those of sb3-contrib's maskable policies do.

    Without masks it is SB3's own, bit by bit. Masks are for Discrete, MultiDiscrete and MultiBinary actions, laid out
    as :class:`MaskLayout` says. A forbidden choice has the probability 0, exactly.
    """

    def forward(
        self, obs: th.Tensor, deterministic: bool = False, action_masks: Masks = None
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """Act, and evaluate the states.

        :param obs: observations, [B, …]
        :param deterministic: whether to take the most probable actions
        :param action_masks: which choices are allowed, [B, k]; ``None`` for all
        :return: actions, values and log-probabilities
        """
        if action_masks is None:
            return super().forward(obs, deterministic)
        latent_pi, latent_vf = self._latent_features(obs)
        distribution = mask_distribution(self._get_action_dist_from_latent(latent_pi), action_masks)
        actions = distribution.get_actions(deterministic)
        log_probs = distribution.log_prob(actions)
        return actions.reshape((-1, *(self.action_space.shape or ()))), self.value_net(latent_vf), log_probs

    def evaluate_actions(
        self, obs: PyTorchObs, actions: th.Tensor, action_masks: Masks = None
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
        """Evaluate states, and actions taken there.

        :param obs: observations, [B, …]
        :param actions: actions, [B, …]
        :param action_masks: which choices were allowed, [B, k]; ``None`` for all
        :return: values, log-probabilities and entropies
        """
        if action_masks is None:
            return super().evaluate_actions(obs, actions)
        latent_pi, latent_vf = self._latent_features(obs)
        distribution = mask_distribution(self._get_action_dist_from_latent(latent_pi), action_masks)
        return self.value_net(latent_vf), distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: PyTorchObs, action_masks: Masks = None) -> Distribution:
        """The action distributions.

        :param obs: observations, [B, …]
        :param action_masks: which choices are allowed, [B, k]; ``None`` for all
        """
        return mask_distribution(super().get_distribution(obs), action_masks)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False, action_masks: Masks = None) -> th.Tensor:
        if action_masks is None:
            return super()._predict(observation, deterministic)
        return self.get_distribution(observation, action_masks).get_actions(deterministic)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Act.

        :param observation: one observation, or several
        :param state: unused: there is no recurrence
        :param episode_start: likewise
        :param deterministic: whether to take the most probable actions
        :param action_masks: which choices are allowed, [k] or [B, k]; ``None`` for all
        :return: actions, and ``state``
        :raises ValueError: if a mask allows no action, or has another shape or other values
        """
        if action_masks is None:
            return super().predict(observation, state, episode_start, deterministic)
        self.set_training_mode(False)
        obs, several = self.obs_to_tensor(observation)
        masks = check_masks(self.action_space, obs, action_masks)
        with th.no_grad():
            predicted = self._predict(obs, deterministic, masks)
        actions = predicted.cpu().numpy().reshape((-1, *(self.action_space.shape or ())))
        return actions if several else actions[0], state

    def _latent_features(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor]:
        """What the actor's and the critic's last layers see."""
        features = self.extract_features(obs)
        if self.share_features_extractor:
            return self.mlp_extractor(features)
        of_actor, of_critic = features
        return self.mlp_extractor.forward_actor(of_actor), self.mlp_extractor.forward_critic(of_critic)
