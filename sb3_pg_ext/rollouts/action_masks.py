"""Which actions the environments allow, as sb3-contrib's users let them say it: by a method ``action_masks()``."""

import warnings
from collections.abc import Callable

import numpy as np
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_pg_ext.arguments import check_flag
from sb3_pg_ext.policies.masking import MaskLayout, takes_masks, why_unmaskable

MaskReader = Callable[[int], np.ndarray | None]
"""From the number of a step within the rollout to the masks of all environments, Booleans [N, k]; or to ``None``."""


def uses_masks(env: VecEnv, policy: BasePolicy, use_masking: bool | None) -> bool:
    """Whether the environments are asked which actions they allow.

    With ``None`` a policy that does not take what they say is warned of: it may have a way of its own.

    :param env: the environments
    :param policy: the policy
    :param use_masking: whether they are to be asked; ``None``: where they have ``action_masks()`` and the policy takes
        them
    :raises ValueError: if they are to be asked, and cannot answer, or the policy does not take an answer; if some of a
        ``DummyVecEnv`` have masks and others have none
    """
    if use_masking is not None:
        check_flag("use_masking", use_masking, "None, True or False")
        if not use_masking:
            return False
    if not _has_masks(env):
        base = env.unwrapped
        having = list(map(is_masking_supported, base.envs)) if isinstance(base, DummyVecEnv) else []
        if any(having) and not all(having):
            without = ", ".join(str(index) for index, has in enumerate(having) if not has)
            raise ValueError(
                f"use_masking={use_masking}, but environments {without} have no action_masks(), and the others do; "
                "allowed: the same for all, or use_masking=False"
            )
        if use_masking:
            raise ValueError(
                "use_masking=True, but the environment does not support action masking: it has no action_masks(), "
                "which sb3-contrib's ActionMasker can give it; allowed: None, False"
            )
        return False
    if (obstacle := why_unmaskable(policy)) is None:
        return True
    if use_masking:
        raise ValueError(f"use_masking=True, but {obstacle}; allowed: None, False")
    warnings.warn(
        f"The environment's action_masks() are not used, since {obstacle}. use_masking=False says so without a warning",
        UserWarning,
        stacklevel=3,
    )
    return False


def _has_masks(env: VecEnv) -> bool:
    try:
        supported = is_masking_supported(env)
    except NotImplementedError:  # of a VecEnv that knows no attributes
        return False
    base = env.unwrapped
    # SB3's default asks for the attribute. There are VecEnvs that say None, whatever they are asked for.
    answers_itself = type(base).has_attr is not VecEnv.has_attr
    return supported and (answers_itself or all(map(callable, base.get_attr("action_masks"))))


def acts_with_masks(model: BaseAlgorithm, env: VecEnv) -> bool:
    """Whether a model, be it this package's or sb3-contrib's, can be given the environments' masks to act.

    :param model: the model
    :param env: the environments that it acts in
    """
    return takes_masks(model.predict) and _has_masks(env) and why_unmaskable(model.policy) is None


def make_mask_reader(
    env: VecEnv, policy: BasePolicy, use_masking: bool | None, first_environment: int = 0
) -> MaskReader:
    """Choose whether the environments are asked which actions they allow.

    :param env: the environments
    :param policy: the policy
    :param use_masking: whether they are asked, see :func:`uses_masks`
    :param first_environment: the number of the first of them, for messages
    :return: what asks them
    :raises ValueError: if they are to be asked and cannot answer
    """
    if not uses_masks(env, policy, use_masking):
        return lambda step: None
    layout = MaskLayout(policy.action_space)

    def read(step: int) -> np.ndarray:
        def place(row: int) -> str:
            return f"at step {step} of the rollout in environment {row + first_environment}"

        return layout.check(get_action_masks(env), env.num_envs, place)

    return read
