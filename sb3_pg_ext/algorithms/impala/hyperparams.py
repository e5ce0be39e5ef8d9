"""IMPALA's search space for RL Zoo's ``-optimize``."""

from sb3_pg_ext.algorithms.base.hyperparams import NETWORKS, Space, choice, log_uniform, one_minus, uniform

SPACE = Space(
    {
        "n_steps": choice(16, 20, 32, 40, 64),
        "batch_size": choice(1, 2, 4, 8),
        "surrogate": choice("policy_gradient", "clipped"),
        "gamma": one_minus(log_uniform(1e-4, 0.1)),
        "learning_rate": log_uniform(1e-5, 1e-2),
        "ent_coef": log_uniform(1e-8, 0.1),
        "vf_coef": uniform(0.1, 1.0),
        "max_grad_norm": log_uniform(0.3, 5.0),
        "use_rms_prop": choice(False, True),
        "normalize_advantage": choice(False, True),
        "policy_kwargs": NETWORKS,
    }
)
