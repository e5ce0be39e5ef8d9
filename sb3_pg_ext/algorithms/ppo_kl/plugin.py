"""Registers AdaptiveKLPPO."""

from collections.abc import Iterable

from sb3_pg_ext.algorithms.ppo_kl.hyperparams import SPACE
from sb3_pg_ext.algorithms.ppo_kl.ppo_kl import AdaptiveKLPPO
from sb3_pg_ext.plugins import AlgorithmSpec, hookimpl


@hookimpl
def sb3_pg_ext_algorithms() -> Iterable[AlgorithmSpec]:
    """AdaptiveKLPPO, as RL Zoo knows it."""
    yield AlgorithmSpec(
        "ppo_kl",
        AdaptiveKLPPO,
        config="sb3_pg_ext:zoo_configs/ppo_kl.yml",
        sampler=SPACE.sample,
        converter=SPACE.convert,
    )
