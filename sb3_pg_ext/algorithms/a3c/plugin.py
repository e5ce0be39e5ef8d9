"""Registers A3C."""

from collections.abc import Iterable

from sb3_pg_ext.algorithms.a3c.a3c import A3C
from sb3_pg_ext.algorithms.a3c.hyperparams import SPACE
from sb3_pg_ext.plugins import AlgorithmSpec, hookimpl


@hookimpl
def sb3_pg_ext_algorithms() -> Iterable[AlgorithmSpec]:
    """A3C, as RL Zoo knows it."""
    yield AlgorithmSpec(
        "a3c",
        A3C,
        config="sb3_pg_ext:zoo_configs/a3c.yml",
        sampler=SPACE.sample,
        converter=SPACE.convert,
    )
