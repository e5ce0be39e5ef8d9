"""ACKTR's search space for RL Zoo's ``-optimize``."""

from sb3_pg_ext.algorithms.base.hyperparams import (
    NETWORKS,
    Space,
    choice,
    integer,
    log_uniform,
    one_minus,
    power_of_two,
)

SPACE = Space(
    {
        "n_steps": power_of_two(4, 11),
        "gamma": one_minus(log_uniform(1e-4, 0.03)),
        "gae_lambda": one_minus(log_uniform(1e-4, 0.2)),
        "learning_rate": log_uniform(0.03, 1),
        "ent_coef": log_uniform(1e-8, 0.1),
        "n_critic_updates": integer(1, 30),
        "kfac_clip": log_uniform(1e-3, 0.1),
        "kfac_damping": log_uniform(1e-4, 0.1),
        "kfac_decay": choice(0.5, 0.9, 0.95, 0.99),
        "momentum": choice(0.0, 0.5, 0.9),
        "policy_kwargs": NETWORKS,
    }
)
