"""Registers GumbelDDPG."""

from collections.abc import Iterable

from sb3_pg_ext.algorithms.gumbel_ddpg.gumbel_ddpg import GumbelDDPG
from sb3_pg_ext.algorithms.gumbel_ddpg.hyperparams import SPACE
from sb3_pg_ext.plugins import AlgorithmSpec, hookimpl


@hookimpl
def sb3_pg_ext_algorithms() -> Iterable[AlgorithmSpec]:
    """GumbelDDPG, as RL Zoo knows it."""
    yield AlgorithmSpec(
        "gumbel_ddpg",
        GumbelDDPG,
        config="sb3_pg_ext:zoo_configs/gumbel_ddpg.yml",
        sampler=SPACE.sample,
        converter=SPACE.convert,
        off_policy=True,
    )
