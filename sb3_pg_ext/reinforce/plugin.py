"""Registers REINFORCE."""

from collections.abc import Iterable

from sb3_pg_ext.plugins import AlgorithmSpec, hookimpl
from sb3_pg_ext.reinforce import hyperparams
from sb3_pg_ext.reinforce.reinforce import REINFORCE


@hookimpl
def sb3_pg_ext_algorithms() -> Iterable[AlgorithmSpec]:
    """REINFORCE, as RL Zoo knows it."""
    yield AlgorithmSpec(
        "reinforce",
        REINFORCE,
        config="sb3_pg_ext:zoo_configs/reinforce.yml",
        sampler=hyperparams.sample,
        converter=hyperparams.convert,
    )
