"""A3C's search space for RL Zoo's ``-optimize``."""

from sb3_pg_ext.algorithms.base.hyperparams import NETWORKS, Space, choice, log_uniform, one_minus, uniform

SPACE = Space(
    {
        "n_steps": choice(5, 8, 16, 32, 64),
        "gamma": one_minus(log_uniform(1e-4, 0.1)),
        "gae_lambda": uniform(0.8, 1.0),
        "learning_rate": log_uniform(1e-5, 1e-2),
        "ent_coef": log_uniform(1e-8, 0.1),
        "vf_coef": uniform(0.1, 1.0),
        "max_grad_norm": log_uniform(0.3, 5.0),
        "use_rms_prop": choice(False, True),
        "normalize_advantage": choice(False, True),
        "policy_kwargs": NETWORKS,
    }
)
