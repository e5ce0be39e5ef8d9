"""Search spaces for RL Zoo's ``-optimize``: ActorCritic's around the streaming recipe, and DAC's."""

from sb3_pg_ext.algorithms.base.hyperparams import Space, choice, log_uniform, one_minus, uniform

SPACE = Space(
    {
        "gamma": one_minus(log_uniform(1e-3, 0.1)),
        "trace_lambda": uniform(0.0, 0.99),
        "optimizer": choice("obgd", "adaptive_obgd"),
        "learning_rate": log_uniform(0.1, 1.0),
        "ent_coef": log_uniform(1e-4, 0.1),
        "actor_kappa": uniform(1.0, 6.0),
        "critic_kappa": uniform(1.0, 6.0),
    }
)

DAC_SPACE = Space(
    {
        "gamma": one_minus(log_uniform(1e-3, 0.1)),
        "critic": choice("q", "compatible"),
        "trace_lambda": uniform(0.0, 0.99),
        "exploration_std": log_uniform(0.05, 1.0),
        "actor_learning_rate": log_uniform(1e-6, 1e-2),
        "critic_learning_rate": log_uniform(1e-5, 1e-2),
    }
)
