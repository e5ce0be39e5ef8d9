"""Checks of constructor arguments. Each error names the argument, its value and what is allowed."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import numpy as np


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


def check_range(name: str, value: Any, low: float = -float("inf"), high: float = float("inf")) -> None:
    """Refuse a number outside [low, high], infinity, and NaN.

    :raises ValueError: if it is outside, or no number
    """
    if isinstance(value, (bool, str)) or value is None or not (low <= value <= high and abs(value) < float("inf")):
        unbounded = "a number" if low == -float("inf") else f"a number ≥ {low:g}"
        allowed = f"[{low:g}, {high:g}]" if high < float("inf") else unbounded
        raise ValueError(f"{name}={value!r}; allowed: {allowed}")


def check_count(name: str, value: Any, low: int = 1) -> None:
    """Refuse what is not an integer of at least ``low``.

    :raises ValueError: if it is not
    """
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < low:
        raise ValueError(f"{name}={value!r}; allowed: an integer ≥ {low}")


def check_flag(name: str, value: Any) -> None:
    """Refuse what is neither true nor false; a string would count as true.

    :raises ValueError: if it is not
    """
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name}={value!r}; allowed: True or False")


def check_positive(name: str, value: Any) -> None:
    """Refuse what is not a finite number above 0.

    :raises ValueError: if it is not
    """
    if isinstance(value, (bool, str)) or value is None or not 0 < value < float("inf"):
        raise ValueError(f"{name}={value!r}; allowed: a number > 0")


def check_schedule(name: str, value: Any) -> None:
    """Refuse what is neither a number above 0 nor a schedule that begins with one; a schedule may fall to 0.

    :raises ValueError: if it is not
    """
    check_positive(name, value(1.0) if callable(value) else value)
