"""A3C's search space for RL Zoo's ``-optimize``."""

from typing import Any

from sb3_pg_ext.algorithms.base.hyperparams import convert_network, sample_network


def sample(trial: Any, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """Sample constructor arguments for one trial.

    :param trial: the Optuna trial
    :param n_actions: number of action dimensions; unused
    :param n_envs: number of environments, which is that of the workers; unused
    :param additional_args: unused
    :return: arguments of :class:`~sb3_pg_ext.A3C`
    """
    return convert(
        {
            "n_steps": trial.suggest_categorical("n_steps", [5, 8, 16, 32, 64]),
            "one_minus_gamma": trial.suggest_float("one_minus_gamma", 1e-4, 0.1, log=True),
            "gae_lambda": trial.suggest_float("gae_lambda", 0.8, 1.0),
            "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True),
            "ent_coef": trial.suggest_float("ent_coef", 1e-8, 0.1, log=True),
            "vf_coef": trial.suggest_float("vf_coef", 0.1, 1.0),
            "max_grad_norm": trial.suggest_float("max_grad_norm", 0.3, 5.0, log=True),
            "use_rms_prop": trial.suggest_categorical("use_rms_prop", [False, True]),
            "normalize_advantage": trial.suggest_categorical("normalize_advantage", [False, True]),
            **sample_network(trial),
        }
    )


def convert(sampled: dict[str, Any]) -> dict[str, Any]:
    """From the parameters of a trial, numbers and names, to constructor arguments.

    :param sampled: what Optuna stores of a trial
    :return: arguments of :class:`~sb3_pg_ext.A3C`
    """
    arguments = dict(sampled)
    arguments["gamma"] = 1 - arguments.pop("one_minus_gamma")
    convert_network(arguments)
    return arguments
