"""AdaptiveKLPPO's search space for RL Zoo's ``-optimize``."""

from sb3_pg_ext.algorithms.base.hyperparams import (
    NETWORKS,
    Space,
    choice,
    log_uniform,
    one_minus,
    power_of_two,
    uniform,
)

SPACE = Space(
    {
        "n_steps": power_of_two(5, 12),
        "batch_size": power_of_two(4, 10),
        "n_epochs": choice(1, 5, 10, 20),
        "gamma": one_minus(log_uniform(1e-4, 0.03)),
        "gae_lambda": one_minus(log_uniform(1e-4, 0.2)),
        "learning_rate": log_uniform(1e-5, 2e-3),
        "ent_coef": log_uniform(1e-8, 0.1),
        "max_grad_norm": uniform(0.3, 2),
        "adaptive_kl": choice(True, False),
        "kl_coef": log_uniform(0.1, 10),
        "target_kl": log_uniform(3e-3, 0.1),
        "policy_kwargs": NETWORKS,
    }
)
