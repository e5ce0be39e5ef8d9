"""Registers ActorCritic."""

from collections.abc import Iterable

from sb3_pg_ext.algorithms.ac.ac import ActorCritic
from sb3_pg_ext.algorithms.ac.hyperparams import SPACE
from sb3_pg_ext.plugins import AlgorithmSpec, hookimpl


@hookimpl
def sb3_pg_ext_algorithms() -> Iterable[AlgorithmSpec]:
    """ActorCritic, as RL Zoo knows it."""
    yield AlgorithmSpec(
        "ac",
        ActorCritic,
        config="sb3_pg_ext:zoo_configs/ac.yml",
        sampler=SPACE.sample,
        converter=SPACE.convert,
    )
