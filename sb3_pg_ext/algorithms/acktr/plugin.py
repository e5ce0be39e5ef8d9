"""Registers ACKTR."""

from collections.abc import Iterable

from sb3_pg_ext.algorithms.acktr.acktr import ACKTR
from sb3_pg_ext.algorithms.acktr.hyperparams import SPACE
from sb3_pg_ext.plugins import AlgorithmSpec, hookimpl


@hookimpl
def sb3_pg_ext_algorithms() -> Iterable[AlgorithmSpec]:
    """ACKTR, as RL Zoo knows it."""
    yield AlgorithmSpec(
        "acktr",
        ACKTR,
        config="sb3_pg_ext:zoo_configs/acktr.yml",
        sampler=SPACE.sample,
        converter=SPACE.convert,
    )
