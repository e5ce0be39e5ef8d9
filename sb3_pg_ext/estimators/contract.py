"""What an advantage estimator is given, what it returns, and the protocol between the two."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sb3_pg_ext.arguments import check_range
from sb3_pg_ext.functional.arrays import is_finite
from sb3_pg_ext.functional.finite import NonFiniteInputError
from sb3_pg_ext.functional.returns import Bools, Floats, td_errors


@dataclass(frozen=True)
class Rollout:
    """T steps of N environments, as an advantage estimator sees them.

    All arrays are time-major, [T, N] with T, N ≥ 1, float32 or bool; nothing is broadcast, converted or copied.

    :param rewards: r_t, in the units of the environment, float32
    :param values: V(s_t), float32
    :param next_values: V(s_{t+1}), that of the terminal observation where an episode is truncated, float32. Where it
        terminates the number is unused, but must be finite
    :param terminated: whether s_{t+1} is terminal: nothing comes after it, bool
    :param truncated: whether the episode was cut at s_{t+1}, by a time limit for example: more would have come, bool
    :param gamma: discount factor γ, in [0, 1]
    :param behaviour_log_probs: log μ(a_t|s_t) of the policy that acted, float32; None where the host has none
    :param target_log_probs: log π(a_t|s_t) of the policy to evaluate, float32; None where the host has none
    :raises ValueError: naming the array that has the wrong type or shape, or the first step and environment that is not
        finite
    """

    rewards: Floats
    values: Floats
    next_values: Floats
    terminated: Bools
    truncated: Bools
    gamma: float
    behaviour_log_probs: Floats | None = None
    target_log_probs: Floats | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.rewards)
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"rewards has the shape {shape}; allowed: [T, N] with T, N ≥ 1")
        for name in ("rewards", "values", "next_values"):
            check_array(name, getattr(self, name), shape)
        for name in ("terminated", "truncated"):
            check_array(name, getattr(self, name), shape, np.bool_)
        for name in ("behaviour_log_probs", "target_log_probs"):
            if getattr(self, name) is not None:
                check_array(name, getattr(self, name), shape)
        check_unit_interval("gamma", self.gamma)

    @property
    def episode_ends(self) -> Bools:
        """Whether step t is the last of its episode: terminated ∨ truncated, [T, N]."""
        return self.terminated | self.truncated

    @property
    def discounts(self) -> Floats:
        """What V(s_{t+1}) is worth at step t: γ·(1 − terminated), [T, N]."""
        return np.where(self.terminated, 0.0, self.gamma).astype(np.float32)

    @property
    def td_errors(self) -> Floats:
        """Temporal differences δ_t = r_t + γ·(1 − terminated_t)·V(s_{t+1}) − V(s_t), [T, N]."""
        return td_errors(self.rewards, self.discounts, self.values, self.next_values)


@dataclass(frozen=True)
class AdvantageEstimate:
    """What an advantage estimator returns.

    :param advantages: estimates of A(s_t, a_t), relative to V(s_t), float32 [T, N]
    :param returns: targets for V(s_t), float32 [T, N]
    """

    advantages: Floats
    returns: Floats


class AdvantageEstimator(Protocol):
    """Any callable from a rollout to an estimate. It leaves the arrays of the rollout as they are."""

    def __call__(self, rollout: Rollout) -> AdvantageEstimate:
        """Estimate the advantages of all steps of a rollout."""
        ...


def estimate_advantages(estimator: AdvantageEstimator, rollout: Rollout) -> AdvantageEstimate:
    """Call an estimator and check what it returns.

    :param estimator: the estimator, from a plug-in perhaps
    :param rollout: what it is given
    :return: its estimate: advantages and returns are float32, [T, N] and finite
    :raises ValueError: naming the estimator, its module and what is wrong, if they are not
    """
    estimate = estimator(rollout)
    try:
        if not isinstance(estimate, AdvantageEstimate):
            raise ValueError(f"it returned {type(estimate).__name__}; allowed: AdvantageEstimate")
        check_array("advantages", estimate.advantages, rollout.rewards.shape)
        check_array("returns", estimate.returns, rollout.rewards.shape)
    except ValueError as error:
        kind = NonFiniteInputError if isinstance(error, NonFiniteInputError) else ValueError
        raise kind(f"Estimator {estimator!r} of module {estimator.__module__}: {error}") from error
    return estimate


def check_array(name: str, array: Any, shape: tuple[int, ...], dtype: type[np.generic] = np.float32) -> None:
    """Check the type, the shape and, in one pass, that all numbers are finite.

    :param name: what to call the array in the error
    :param array: the array to check
    :param shape: the shape that it must have
    :param dtype: the dtype that it must have
    :raises ValueError: naming the array; where it is not finite, a NonFiniteInputError that also names the first step
        and environment
    """
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{name} is {found}; allowed: an array of {dtype.__name__}")
    if array.shape != shape:
        raise ValueError(f"{name} has the shape {array.shape}; allowed: {shape}")
    if not is_finite(array):
        step, env = np.argwhere(~np.isfinite(array))[0]
        raise NonFiniteInputError(
            f"{name} is not finite, first at step {step} of environment {env}: {array[step, env]}"
        )


def check_unit_interval(name: str, value: Any) -> None:
    """Check that ``value`` is a number in [0, 1].

    :param name: what to call the value in the error
    :param value: the value to check
    :raises ValueError: if it is not
    """
    check_range(name, value, 0, 1, allowed="a number in [0, 1]")
