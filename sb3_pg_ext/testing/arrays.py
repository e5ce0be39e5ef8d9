"""What the properties of estimators and of baselines share: records of arrays, and comparisons of numbers."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np

TOLERANCE = 1e-4  # relative and absolute: the numbers are of order one, and float32 rounds at 1e-7

Record = TypeVar("Record")  # a dataclass, some of whose fields are arrays


def arrays_of(record: Any) -> dict[str, Any]:
    """The arrays of a record, by the names of their fields."""
    named = {field.name: getattr(record, field.name) for field in fields(record)}
    return {name: value for name, value in named.items() if isinstance(value, np.ndarray)}


def map_arrays(function: Callable[[np.ndarray], np.ndarray], record: Record) -> Record:
    """Another record, with what a function makes of every array, also of those in its tuples and records."""

    def changed(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(changed, value))
        if is_dataclass(value):
            return map_arrays(function, value)
        return function(value) if isinstance(value, np.ndarray) else value

    mapped = {field.name: changed(getattr(record, field.name)) for field in fields(record)}  # type: ignore[arg-type]
    return replace(record, **mapped)  # type: ignore[type-var]


def assert_unchanged(before: Any, after: Any) -> None:
    """Compare the arrays of two records, number by number."""
    for name, array in arrays_of(before).items():
        assert np.array_equal(getattr(after, name), array), f"it has changed {name}"


def assert_close(actual: np.ndarray, expected: np.ndarray, place: Callable[..., str]) -> None:
    """Compare two arrays up to rounding.

    :param place: ``place(*index)`` begins the message about the first number that differs
    """
    assert actual.shape == expected.shape, f"the shape is {actual.shape} instead of {expected.shape}"
    differs = np.argwhere(~np.isclose(actual, expected, TOLERANCE, TOLERANCE))
    if differs.size:
        first = tuple(differs[0])
        raise AssertionError(f"{place(*first)} {actual[first]:.6g} instead of {expected[first]:.6g}")
