"""Registers NPG."""

from collections.abc import Iterable

from sb3_pg_ext.algorithms.npg.hyperparams import SPACE
from sb3_pg_ext.algorithms.npg.npg import NPG
from sb3_pg_ext.plugins import AlgorithmSpec, hookimpl


@hookimpl
def sb3_pg_ext_algorithms() -> Iterable[AlgorithmSpec]:
    """NPG, as RL Zoo knows it."""
    yield AlgorithmSpec(
        "npg",
        NPG,
        config="sb3_pg_ext:zoo_configs/npg.yml",
        sampler=SPACE.sample,
        converter=SPACE.convert,
    )
