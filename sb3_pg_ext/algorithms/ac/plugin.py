"""Registers ActorCritic and DAC."""

from collections.abc import Iterable

from sb3_pg_ext.algorithms.ac.ac import ActorCritic
from sb3_pg_ext.algorithms.ac.dac import DAC
from sb3_pg_ext.algorithms.ac.hyperparams import DAC_SPACE, SPACE
from sb3_pg_ext.plugins import AlgorithmSpec, hookimpl


@hookimpl
def sb3_pg_ext_algorithms() -> Iterable[AlgorithmSpec]:
    """ActorCritic and DAC, as RL Zoo knows them."""
    yield AlgorithmSpec(
        "ac",
        ActorCritic,
        config="sb3_pg_ext:zoo_configs/ac.yml",
        sampler=SPACE.sample,
        converter=SPACE.convert,
    )
    yield AlgorithmSpec(
        "dac",
        DAC,
        config="sb3_pg_ext:zoo_configs/dac.yml",
        sampler=DAC_SPACE.sample,
        converter=DAC_SPACE.convert,
    )
