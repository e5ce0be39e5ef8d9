"""Run properties over data, and say in one line which one fails on which data."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Property = Callable[[Any, Any], None]


def find_failures(properties: Iterable[Property], subject: Any, data: Mapping[str, Any]) -> list[str]:
    """Try every property on all data.

    :param properties: functions ``property(subject, datum)``, named like a sentence about the subject, that raise if
        it is not true
    :param subject: what has the properties
    :param data: what to try them on, by a description that completes "on …"
    :return: one message for every property that fails, with the first data on which it does
    """
    failures = []
    for is_true in properties:
        for description, datum in data.items():
            try:
                is_true(subject, datum)
            except Exception as error:
                failures.append(f"{is_true.__name__.replace('_', ' ')}: {_describe(error)}, on {description}")
                break
    return failures


@contextmanager
def hint(text: str) -> Iterator[None]:
    """Whatever fails in here, by a comparison or by an error of the subject, is reported with a hint after it.

    :param text: the hint
    """
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{_describe(error)} ({text})") from error


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
