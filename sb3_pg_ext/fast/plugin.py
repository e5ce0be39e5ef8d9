"""Registers the fast twins of stock algorithms. They read RL Zoo's own hyper-parameters of their twins."""

from collections.abc import Iterable

from sb3_pg_ext import fast
from sb3_pg_ext.plugins import AlgorithmSpec, hookimpl


@hookimpl
def sb3_pg_ext_algorithms() -> Iterable[AlgorithmSpec]:
    """``fast_ppo``, ``fast_a2c`` and ``fast_trpo``."""
    for twin, cls in (("ppo", fast.PPO), ("a2c", fast.A2C), ("trpo", fast.TRPO)):
        yield AlgorithmSpec(
            f"fast_{twin}",
            cls,
            config=f"rl_zoo3:hyperparams/{twin}.yml",
            sampler=f"rl_zoo3.hyperparams_opt:sample_{twin}_params",
            converter="rl_zoo3.hyperparams_opt:convert_onpolicy_params",
        )
