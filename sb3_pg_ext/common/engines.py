"""The choice of the engine that differentiates a policy."""

import numpy as np
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_pg_ext.common.array_engine import ArrayEngine
from sb3_pg_ext.common.autograd_engine import AutogradEngine
from sb3_pg_ext.common.perceptrons import UnfitPolicy
from sb3_pg_ext.common.quantities import Engine

ENGINES = ("auto", "autograd", "array")


def make_engine(
    policy: ActorCriticPolicy, choice: str = "auto", gradient: np.ndarray | None = None
) -> tuple[Engine, str]:
    """Choose how a policy is differentiated. Both ways give the same gradients, to rounding.

    :param policy: the policy
    :param choice: ``"array"`` for NumPy, ``"autograd"`` for PyTorch, ``"auto"`` for NumPy where it can
    :param gradient: where the gradients of all parameters go, one after the other, [P]; ``None`` for anywhere
    :return: the engine and, in words, which it is and why
    :raises ValueError: for ``"array"`` where NumPy cannot do it
    """
    if choice == "autograd":
        return AutogradEngine(policy, gradient), "autograd, as asked for"
    try:
        return ArrayEngine(policy, gradient), "arrays"
    except UnfitPolicy as reason:
        if choice == "array":
            raise ValueError(
                f"engine='array' cannot differentiate this policy: {reason}; allowed: 'auto', 'autograd'"
            ) from None
        return AutogradEngine(policy, gradient), f"autograd, because {reason}"
