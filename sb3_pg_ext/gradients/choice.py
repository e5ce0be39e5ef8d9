"""The choice of the engine that differentiates a policy."""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import numpy as np
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_pg_ext.arguments import check_choice
from sb3_pg_ext.gradients.array_backend import ArrayBackend
from sb3_pg_ext.gradients.autograd_backend import AutogradBackend
from sb3_pg_ext.gradients.compiled_backend import CompiledBackend
from sb3_pg_ext.gradients.policy_backend import PolicyBackend
from sb3_pg_ext.policies.plain_mlp import UnsupportedPolicyError

ENGINES = ("auto", "autograd", "array")

T = TypeVar("T")


def choose(
    choice: str,
    make_array: Callable[[], T],
    make_autograd: Callable[[], T],
    make_compiled: Callable[[], T] | None = None,
) -> tuple[T, str]:
    """Choose how a policy is differentiated. All ways give the same gradients, to rounding.

    :param choice: ``"array"`` for NumPy, ``"autograd"`` for PyTorch, ``"compiled"`` for NumPy and numba; ``"auto"`` for
        the first of compiled, array and autograd that can
    :param make_array: makes the one;
        raises :class:`~sb3_pg_ext.policies.plain_mlp.UnsupportedPolicyError` where it cannot
    :param make_autograd: makes the other
    :param make_compiled: likewise, where updates have something to compile
    :return: the engine and, in words, which it is and why
    :raises ValueError: for another choice, and for one that cannot do it
    """
    check_choice("engine", choice, ENGINES if make_compiled is None else (*ENGINES, "compiled"))
    if choice == "autograd":
        return make_autograd(), "autograd, as asked for"
    makers = {"compiled": (make_compiled, "compiled arrays"), "array": (make_array, "arrays")}
    because = ""
    for name, (make, description) in makers.items():
        if make is not None and choice in ("auto", name):
            try:
                return make(), description + because
            except UnsupportedPolicyError as reason:
                because = f", because {reason}"
                if choice == name:
                    others = ["auto", "autograd"]
                    if name == "compiled":
                        with suppress(UnsupportedPolicyError):
                            make_array()
                            others.insert(1, "array")
                    raise ValueError(
                        f"engine={name!r} cannot differentiate this policy: {reason}; "
                        f"allowed: {', '.join(map(repr, others))}"
                    ) from None
    return make_autograd(), f"autograd{because}"


def make_backend(
    policy: ActorCriticPolicy, choice: str = "auto", gradient: np.ndarray | None = None, compiles: bool = False
) -> tuple[PolicyBackend, str]:
    """The engine of an actor-critic policy, chosen as by :func:`choose`.

    :param policy: the policy
    :param choice: which engine
    :param gradient: where the gradients of all parameters go, one after the other, [P]; ``None`` for anywhere
    :param compiles: whether what is asked for is mostly :meth:`PolicyBackend.differentiate`, which can be compiled
    """
    return choose(
        choice,
        lambda: ArrayBackend(policy, gradient),
        lambda: AutogradBackend(policy, gradient),
        (lambda: CompiledBackend(policy, gradient)) if compiles else None,
    )
