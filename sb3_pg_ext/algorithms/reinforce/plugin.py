"""Registers REINFORCE."""

from collections.abc import Iterable

from sb3_pg_ext.algorithms.reinforce.hyperparams import SPACE
from sb3_pg_ext.algorithms.reinforce.reinforce import REINFORCE
from sb3_pg_ext.plugins import AlgorithmSpec, hookimpl


@hookimpl
def sb3_pg_ext_algorithms() -> Iterable[AlgorithmSpec]:
    """REINFORCE, as RL Zoo knows it."""
    yield AlgorithmSpec(
        "reinforce",
        REINFORCE,
        config="sb3_pg_ext:zoo_configs/reinforce.yml",
        sampler=SPACE.sample,
        converter=SPACE.convert,
    )
