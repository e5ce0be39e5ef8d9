"""Registers IMPALA."""

from collections.abc import Iterable

from sb3_pg_ext.algorithms.impala.hyperparams import SPACE
from sb3_pg_ext.algorithms.impala.impala import IMPALA
from sb3_pg_ext.plugins import AlgorithmSpec, hookimpl


@hookimpl
def sb3_pg_ext_algorithms() -> Iterable[AlgorithmSpec]:
    """IMPALA, as RL Zoo knows it."""
    yield AlgorithmSpec(
        "impala",
        IMPALA,
        config="sb3_pg_ext:zoo_configs/impala.yml",
        sampler=SPACE.sample,
        converter=SPACE.convert,
    )
