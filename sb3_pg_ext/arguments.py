"""Checks of constructor arguments. Each error names the argument, its value and what is allowed."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from numbers import Real
from typing import Any

import numpy as np

_BOOLS = (bool, np.bool_)
"""True would pass for the number 1."""


def check_choice(name: str, value: Any, allowed: Iterable[str]) -> None:
    """Refuse a value that is not one of the allowed names, and suggest close ones.

    :raises ValueError: if it is not
    """
    allowed = list(allowed)
    if value in allowed:
        return
    close = get_close_matches(str(value), allowed, n=2)
    hint = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
    raise ValueError(f"{name}={value!r}{hint}; allowed: {', '.join(map(repr, allowed))}")


def check_range(
    name: str, value: Any, low: float = -float("inf"), high: float = float("inf"), allowed: str | None = None
) -> None:
    """Refuse a number outside [low, high], infinity, and NaN.

    :param allowed: what to say that is allowed; by default the range
    :raises ValueError: if it is outside, or no number
    """
    if not (_is_real(value) and low <= value <= high and abs(value) < float("inf")):
        unbounded = "a number" if low == -float("inf") else f"a number ≥ {low:g}"
        in_range = f"[{low:g}, {high:g}]" if high < float("inf") else unbounded
        raise ValueError(f"{name}={value!r}; allowed: {allowed or in_range}")


def check_count(name: str, value: Any, low: int = 1, allowed: str | None = None) -> None:
    """Refuse what is not an integer of at least ``low``.

    :param allowed: what to say that is allowed; by default the range
    :raises ValueError: if it is not
    """
    if isinstance(value, _BOOLS) or not hasattr(value, "__index__") or value < low:
        raise ValueError(f"{name}={value!r}; allowed: {allowed or f'an integer ≥ {low}'}")


def check_flag(name: str, value: Any, allowed: str = "True or False") -> None:
    """Refuse what is neither true nor false; a string would count as true.

    :param allowed: what to say that is allowed
    :raises ValueError: if it is not
    """
    if not isinstance(value, _BOOLS):
        raise ValueError(f"{name}={value!r}; allowed: {allowed}")


def check_positive(name: str, value: Any, allowed: str = "a number > 0") -> None:
    """Refuse what is not a finite number above 0.

    :param allowed: what to say that is allowed
    :raises ValueError: if it is not
    """
    if not (_is_real(value) and 0 < value < float("inf")):
        raise ValueError(f"{name}={value!r}; allowed: {allowed}")


def check_schedule(name: str, value: Any) -> None:
    """Refuse what is neither a number above 0 nor a schedule that begins with one; a schedule may fall to 0.

    :raises ValueError: if it is not
    """
    check_positive(name, value(1.0) if callable(value) else value)


def read_schedule(name: str, schedule: Callable[[float], float], progress_remaining: float) -> float:
    """What a schedule gives at a point of the training.

    :param name: the argument's name
    :param progress_remaining: from 1, at the beginning, to 0
    :return: a number ≥ 0, or one that is not finite, which is noticed by what it does
    :raises ValueError: if it has fallen below 0
    """
    number = schedule(progress_remaining)
    if number < 0:
        raise ValueError(f"{name}={number} at a remaining progress of {progress_remaining:.3g}; allowed: a number ≥ 0")
    return number


def check_max_grad_norm(value: Any) -> None:
    """Refuse a norm to which gradients cannot be scaled down.

    :raises ValueError: if it is neither ``None`` nor a number above 0, which may be infinite
    """
    if value not in (None, float("inf")):
        check_positive("max_grad_norm", value, allowed="a number > 0, or None")


def _is_real(value: Any) -> bool:
    """Whether a value is a number, or holds a single one, so that it can be compared with another."""
    if isinstance(value, _BOOLS):
        return False
    if isinstance(value, Real):
        return True
    return getattr(value, "ndim", None) == 0  # arrays and tensors without axes


def check_learning_rate(value: Any) -> None:
    """Refuse a learning rate, or a schedule that begins with one, below 0. RL Zoo loads models with 0, to act.

    :raises ValueError: if it is
    """
    check_range("learning_rate", value(1.0) if callable(value) else value, 0)
