"""Registers the fast twins of stock algorithms. They read RL Zoo's own hyper-parameters of their twins."""

from collections.abc import Iterable

from sb3_pg_ext import fast
from sb3_pg_ext.plugins import AlgorithmSpec, hookimpl


@hookimpl
def sb3_pg_ext_algorithms() -> Iterable[AlgorithmSpec]:
    """``fast_ppo``, ``fast_a2c``, ``fast_trpo`` and ``fast_maskable_ppo``."""
    for name, cls, source, own in (
        ("fast_ppo", fast.PPO, "ppo", ("sb3_pg_ext:zoo_configs/fast_ppo.yml",)),
        ("fast_a2c", fast.A2C, "a2c", ()),
        ("fast_trpo", fast.TRPO, "trpo", ()),
        ("fast_maskable_ppo", fast.MaskablePPO, "ppo", ()),  # RL Zoo has none of its own
    ):
        yield AlgorithmSpec(
            name,
            cls,
            config=(*own, f"rl_zoo3:hyperparams/{source}.yml"),
            sampler=f"rl_zoo3.hyperparams_opt:sample_{source}_params",
            converter="rl_zoo3.hyperparams_opt:convert_onpolicy_params",
        )
