"""Which actions the environments allow, as sb3-contrib's users let them say it: by a method ``action_masks()``."""

from collections.abc import Callable

import numpy as np
from gymnasium import spaces
from sb3_contrib.common.maskable.distributions import (
    MaskableCategoricalDistribution,
    MaskableMultiCategoricalDistribution,
    make_masked_proba_distribution,
)
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common.vec_env import VecEnv

MaskReader = Callable[[int], np.ndarray | None]
"""From the number of a step within the rollout to the masks of all environments, Booleans [N, k]; or to ``None``."""


def make_mask_reader(env: VecEnv, action_space: spaces.Space, use_masking: bool | None) -> MaskReader:
    """Choose whether the environments are asked which actions they allow.

    :param env: the environments
    :param action_space: their action space
    :param use_masking: whether they are asked; ``None``: where they have ``action_masks()``
    :return: what asks them
    :raises ValueError: if they are to be asked and cannot answer
    """
    if use_masking is False or (use_masking is None and not is_masking_supported(env)):
        return lambda step: None
    if not is_masking_supported(env):
        raise ValueError(
            "use_masking=True, but the environment does not support action masking: it has no action_masks(), which "
            "sb3-contrib's ActionMasker can give it; allowed: None, False"
        )
    sizes = _choices(action_space)
    width, starts = sum(sizes), np.cumsum([0, *sizes[:-1]])

    def read(step: int) -> np.ndarray:
        given = get_action_masks(env)
        if given.size != env.num_envs * width:
            raise ValueError(
                f"action_masks() gives {given.size // env.num_envs} values in an environment with {action_space}; "
                f"allowed: {width}, one for every choice"
            )
        masks = given.reshape(env.num_envs, width).astype(bool, copy=False)
        allowed = np.logical_or.reduceat(masks, starts, axis=1)
        if not allowed.all():
            n, choice = np.argwhere(~allowed)[0].tolist()
            of_choice = f" for component {choice} of the action" if len(sizes) > 1 else ""
            raise ValueError(
                f"action mask without any allowed action{of_choice} at step {step} of the rollout in environment {n}"
            )
        return masks

    return read


def _choices(action_space: spaces.Space) -> list[int]:
    """The number of values that every component of an action can have."""
    distribution = make_masked_proba_distribution(action_space)
    if isinstance(distribution, MaskableMultiCategoricalDistribution):
        return [int(size) for size in distribution.action_dims]
    assert isinstance(distribution, MaskableCategoricalDistribution)
    return [distribution.action_dim]
