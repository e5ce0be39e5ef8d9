"""Registers NAF."""

from collections.abc import Iterable

from sb3_pg_ext.algorithms.naf.hyperparams import SPACE
from sb3_pg_ext.algorithms.naf.naf import NAF
from sb3_pg_ext.plugins import AlgorithmSpec, hookimpl


@hookimpl
def sb3_pg_ext_algorithms() -> Iterable[AlgorithmSpec]:
    """NAF, as RL Zoo knows it."""
    yield AlgorithmSpec(
        "naf",
        NAF,
        config="sb3_pg_ext:zoo_configs/naf.yml",
        sampler=SPACE.sample,
        converter=SPACE.convert,
        off_policy=True,
    )
