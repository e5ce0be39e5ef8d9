"""Registers SACV."""

from collections.abc import Iterable

from sb3_pg_ext.algorithms.sac_v.hyperparams import SPACE
from sb3_pg_ext.algorithms.sac_v.sac_v import SACV
from sb3_pg_ext.plugins import AlgorithmSpec, hookimpl


@hookimpl
def sb3_pg_ext_algorithms() -> Iterable[AlgorithmSpec]:
    """SACV, as RL Zoo knows it."""
    yield AlgorithmSpec(
        "sac_v",
        SACV,
        config="sb3_pg_ext:zoo_configs/sac_v.yml",
        sampler=SPACE.sample,
        converter=SPACE.convert,
        off_policy=True,
    )
