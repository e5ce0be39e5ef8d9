"""AdaptiveKLPPO's search space for RL Zoo's ``-optimize``."""

from typing import Any

from sb3_pg_ext.algorithms.base.hyperparams import convert_network, sample_network


def sample(trial: Any, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """Sample constructor arguments for one trial.

    :param trial: the Optuna trial
    :param n_actions: number of action dimensions; unused
    :param n_envs: number of environments; unused
    :param additional_args: unused
    :return: arguments of :class:`~sb3_pg_ext.AdaptiveKLPPO`
    """
    return convert(
        {
            "n_steps_pow": trial.suggest_int("n_steps_pow", 5, 12),
            "batch_size_pow": trial.suggest_int("batch_size_pow", 4, 10),
            "n_epochs": trial.suggest_categorical("n_epochs", [1, 5, 10, 20]),
            "one_minus_gamma": trial.suggest_float("one_minus_gamma", 1e-4, 0.03, log=True),
            "one_minus_gae_lambda": trial.suggest_float("one_minus_gae_lambda", 1e-4, 0.2, log=True),
            "learning_rate": trial.suggest_float("learning_rate", 1e-5, 2e-3, log=True),
            "ent_coef": trial.suggest_float("ent_coef", 1e-8, 0.1, log=True),
            "max_grad_norm": trial.suggest_float("max_grad_norm", 0.3, 2),
            "adaptive_kl": trial.suggest_categorical("adaptive_kl", [True, False]),
            "kl_coef": trial.suggest_float("kl_coef", 0.1, 10, log=True),
            "target_kl": trial.suggest_float("target_kl", 3e-3, 0.1, log=True),
            **sample_network(trial),
        }
    )


def convert(sampled: dict[str, Any]) -> dict[str, Any]:
    """From the parameters of a trial, numbers and names, to constructor arguments.

    :param sampled: what Optuna stores of a trial
    :return: arguments of :class:`~sb3_pg_ext.AdaptiveKLPPO`
    """
    arguments = dict(sampled)
    for name in ("n_steps", "batch_size"):
        arguments[name] = 2 ** arguments.pop(f"{name}_pow")
    for name in ("gamma", "gae_lambda"):
        arguments[name] = 1 - arguments.pop(f"one_minus_{name}")
    convert_network(arguments)
    return arguments
