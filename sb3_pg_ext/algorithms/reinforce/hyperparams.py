"""REINFORCE's search space for RL Zoo's ``-optimize``."""

from typing import Any

from sb3_pg_ext.algorithms.base.hyperparams import convert_network, sample_network


def sample(trial: Any, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """Sample constructor arguments for one trial.

    :param trial: the Optuna trial
    :param n_actions: number of action dimensions; unused
    :param n_envs: number of environments, which share the episodes of an update equally
    :param additional_args: unused
    :return: arguments of :class:`~sb3_pg_ext.REINFORCE`
    """
    return convert(
        {
            "n_episodes": trial.suggest_int("n_episodes", n_envs, max(1, 64 // n_envs) * n_envs, step=n_envs),
            "one_minus_gamma": trial.suggest_float("one_minus_gamma", 1e-4, 0.1, log=True),
            "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-2, log=True),
            "ent_coef": trial.suggest_float("ent_coef", 1e-8, 0.1, log=True),
            "baseline": trial.suggest_categorical("baseline", ["none", "mean", "value"]),
            "normalize_advantage": trial.suggest_categorical("normalize_advantage", [False, True]),
            **sample_network(trial),
        }
    )


def convert(sampled: dict[str, Any]) -> dict[str, Any]:
    """From the parameters of a trial, numbers and names, to constructor arguments.

    :param sampled: what Optuna stores of a trial
    :return: arguments of :class:`~sb3_pg_ext.REINFORCE`
    """
    arguments = dict(sampled)
    arguments["gamma"] = 1 - arguments.pop("one_minus_gamma")
    convert_network(arguments)
    # The environment's file may ask for n_steps: the search is over episodes.
    arguments["n_steps"] = None
    return arguments
