"""Refuse numbers that are not finite."""

import math
from typing import SupportsFloat

import numpy as np

from sb3_pg_ext.functional.arrays import is_finite


class NonFiniteError(ArithmeticError):
    """Something is NaN or infinite that must not be. The message says what, and where."""


class NonFiniteInputError(NonFiniteError, ValueError):
    """What a function was given, or a plug-in has made, is not finite: bad input, whoever looks for it."""


def check_finite(name: str, array: np.ndarray) -> None:
    """Refuse an array that holds NaN or infinity; arrays of integers pass.

    :param name: what the array holds, for the message
    :param array: shape [T, N, …]
    :raises NonFiniteError: naming the first offending step and environment
    """
    if is_finite(array):
        return
    first = tuple(np.argwhere(~np.isfinite(array))[0])
    raise NonFiniteError(f"{name} {array[first]} at step {first[0]} of the rollout in environment {first[1]}")


def check_step(name: str, array: np.ndarray) -> None:
    """Refuse what one step gave, if it holds NaN or infinity; arrays of integers pass. Cheap, since it runs so often.

    :param name: what the array holds, for the message
    :param array: shape [N, …]
    :raises NonFiniteError: naming the first offending environment
    """
    if is_finite(array):
        return
    first = tuple(np.argwhere(~np.isfinite(array))[0])
    raise NonFiniteError(f"{name} {array[first]} in environment {first[0]}")


def check_number(name: str, number: SupportsFloat) -> float:
    """Refuse a number that is NaN or infinite.

    :param name: what it is, for the message
    :param number: a number, or a tensor with one element
    :return: the number as a float
    :raises NonFiniteError: if it is not finite
    """
    value = float(number)
    if not math.isfinite(value):
        raise NonFiniteError(f"{name} {value}")
    return value
