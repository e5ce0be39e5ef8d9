"""NAF's search space for RL Zoo's ``-optimize``."""

from typing import Any

NET_ARCHS = {"small": [64, 64], "medium": [200, 200], "big": [400, 300]}
HINDSIGHT = ("n_sampled_goal", "goal_selection_strategy")


def sample(trial: Any, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """Sample constructor arguments for one trial. How to explore is left to the environment's file.

    :param trial: the Optuna trial
    :param n_actions: number of action dimensions; unused
    :param n_envs: number of environments; unused
    :param additional_args: whether a hindsight replay buffer is used, whose other arguments stay as they are
    :return: arguments of :class:`~sb3_pg_ext.NAF`
    """
    sampled = {
        "one_minus_gamma": trial.suggest_float("one_minus_gamma", 1e-4, 0.1, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True),
        "log2_batch_size": trial.suggest_int("log2_batch_size", 5, 9),
        "tau": trial.suggest_float("tau", 1e-3, 0.1, log=True),
        "train_freq": trial.suggest_int("train_freq", 1, 10),
        "loss": trial.suggest_categorical("loss", ["mse", "huber"]),
        "double": trial.suggest_categorical("double", [False, True]),
        "net_arch": trial.suggest_categorical("net_arch", list(NET_ARCHS)),
        "layer_norm": trial.suggest_categorical("layer_norm", [False, True]),
    }
    if additional_args["using_her_replay_buffer"]:
        sampled["n_sampled_goal"] = trial.suggest_int("n_sampled_goal", 1, 5)
        strategies = ["final", "episode", "future"]
        sampled["goal_selection_strategy"] = trial.suggest_categorical("goal_selection_strategy", strategies)
    return convert(sampled)


def convert(sampled: dict[str, Any]) -> dict[str, Any]:
    """From the parameters of a trial, numbers and names, to constructor arguments.

    :param sampled: what Optuna stores of a trial
    :return: arguments of :class:`~sb3_pg_ext.NAF`
    """
    arguments = {name: value for name, value in sampled.items() if name not in HINDSIGHT}
    arguments["gamma"] = 1 - arguments.pop("one_minus_gamma")
    arguments["batch_size"] = 2 ** arguments.pop("log2_batch_size")
    arguments["gradient_steps"] = arguments["train_freq"]  # one update a step
    arguments["policy_kwargs"] = {
        "net_arch": NET_ARCHS[arguments.pop("net_arch")],
        "layer_norm": arguments.pop("layer_norm"),
    }
    hindsight = {name: sampled[name] for name in HINDSIGHT if name in sampled}
    if hindsight:
        arguments["replay_buffer_kwargs"] = hindsight
    return arguments
