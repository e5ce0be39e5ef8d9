"""REINFORCE's search space for RL Zoo's ``-optimize``."""

from typing import Any

from sb3_pg_ext.algorithms.base.hyperparams import NETWORKS, Dimension, Space, choice, log_uniform, one_minus

MOST_EPISODES = 64


def _suggest_episodes(trial: Any, name: str, n_envs: int) -> int:
    """The same number from every environment, and up to 64 together where there are no more environments."""
    most = max(1, MOST_EPISODES // n_envs) * n_envs
    return trial.suggest_int(name, n_envs, most, step=n_envs)


SPACE = Space(
    {
        "n_episodes": Dimension(_suggest_episodes),
        "gamma": one_minus(log_uniform(1e-4, 0.1)),
        "learning_rate": log_uniform(1e-4, 3e-2),
        "ent_coef": log_uniform(1e-8, 0.1),
        "baseline": choice("none", "mean", "value"),
        "normalize_advantage": choice(False, True),
        "policy_kwargs": NETWORKS,
    },
    # The environment's file may ask for n_steps: the search is over episodes.
    derive=lambda arguments: {"n_steps": None},
)
