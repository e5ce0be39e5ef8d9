"""Registers SPO, with what RL Zoo needs of it."""

from collections.abc import Iterator

from sb3_pg_ext import AlgorithmSpec, hookimpl
from sb3_pg_ext.algorithms.base.hyperparams import NETWORKS, Space, choice, log_uniform, one_minus, power_of_two
from sb3_pg_ext_spo.spo import SPO

SPACE = Space(
    {
        "n_steps": power_of_two(5, 11),
        "batch_size": power_of_two(5, 10),
        "n_epochs": choice(5, 10, 20),
        "gamma": one_minus(log_uniform(1e-4, 0.03)),
        "gae_lambda": one_minus(log_uniform(1e-4, 0.2)),
        "learning_rate": log_uniform(1e-5, 2e-3),
        "epsilon": choice(0.1, 0.2, 0.3),
        "policy_kwargs": NETWORKS,
    }
)


@hookimpl
def sb3_pg_ext_algorithms() -> Iterator[AlgorithmSpec]:
    """Yield the one algorithm of this package."""
    yield AlgorithmSpec("spo", SPO, "sb3_pg_ext_spo:spo.yml", sampler=SPACE.sample, converter=SPACE.convert)
