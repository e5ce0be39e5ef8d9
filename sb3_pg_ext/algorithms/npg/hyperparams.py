"""NPG's search space for RL Zoo's ``-optimize``."""

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
        "n_steps": power_of_two(5, 12),
        "batch_size": power_of_two(5, 10),
        "gamma": one_minus(log_uniform(1e-4, 0.03)),
        "gae_lambda": one_minus(log_uniform(1e-4, 0.2)),
        "learning_rate": log_uniform(1e-4, 1e-2),
        "n_critic_updates": integer(5, 30),
        "target_kl": log_uniform(3e-3, 0.1),
        "cg_max_steps": integer(5, 30),
        "cg_damping": log_uniform(1e-4, 0.3),
        "line_search": choice(False, True),
        "policy_kwargs": NETWORKS,
    }
)
