"""Registers the built-in baselines."""

from collections.abc import Iterable

from sb3_pg_ext.baselines.builtin import Mean, NoBaseline, Value
from sb3_pg_ext.plugins import BaselineSpec, hookimpl


@hookimpl
def sb3_pg_ext_baselines() -> Iterable[BaselineSpec]:
    """The built-in baselines."""
    yield BaselineSpec("none", NoBaseline)
    yield BaselineSpec("mean", Mean, unbiased=False)
    yield BaselineSpec("value", Value)
