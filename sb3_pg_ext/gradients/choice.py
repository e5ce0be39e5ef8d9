"""The choice of the engine that differentiates a policy."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_pg_ext.arguments import check_choice
from sb3_pg_ext.gradients.array_backend import ArrayBackend
from sb3_pg_ext.gradients.autograd_backend import AutogradBackend
from sb3_pg_ext.gradients.policy_backend import PolicyBackend
from sb3_pg_ext.policies.plain_mlp import UnsupportedPolicyError

ENGINES = ("auto", "autograd", "array")

T = TypeVar("T")


def choose(choice: str, make_array: Callable[[], T], make_autograd: Callable[[], T]) -> tuple[T, str]:
    """Choose how a policy is differentiated. Both ways give the same gradients, to rounding.

    :param choice: ``"array"`` for NumPy, ``"autograd"`` for PyTorch, ``"auto"`` for NumPy where it can
    :param make_array: makes the one;
        raises :class:`~sb3_pg_ext.policies.plain_mlp.UnsupportedPolicyError` where it cannot
    :param make_autograd: makes the other
    :return: the engine and, in words, which it is and why
    :raises ValueError: for another choice, and for ``"array"`` where NumPy cannot do it
    """
    check_choice("engine", choice, ENGINES)
    if choice == "autograd":
        return make_autograd(), "autograd, as asked for"
    try:
        return make_array(), "arrays"
    except UnsupportedPolicyError as reason:
        if choice == "array":
            raise ValueError(
                f"engine='array' cannot differentiate this policy: {reason}; allowed: 'auto', 'autograd'"
            ) from None
        return make_autograd(), f"autograd, because {reason}"


def make_backend(
    policy: ActorCriticPolicy, choice: str = "auto", gradient: np.ndarray | None = None
) -> tuple[PolicyBackend, str]:
    """The engine of an actor-critic policy, chosen as by :func:`choose`.

    :param policy: the policy
    :param choice: which engine
    :param gradient: where the gradients of all parameters go, one after the other, [P]; ``None`` for anywhere
    """
    return choose(choice, lambda: ArrayBackend(policy, gradient), lambda: AutogradBackend(policy, gradient))
