"""What the search spaces of the algorithms for RL Zoo's ``-optimize`` have in common."""

from typing import Any

from torch import nn

NET_ARCHS = {"tiny": [64], "small": [64, 64], "medium": [256, 256]}
ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


def sample_network(trial: Any) -> dict[str, str]:
    """Sample the form of the networks, by names: ``net_arch`` and ``activation_fn``.

    :param trial: the Optuna trial
    """
    return {
        "net_arch": trial.suggest_categorical("net_arch", list(NET_ARCHS)),
        "activation_fn": trial.suggest_categorical("activation_fn", list(ACTIVATIONS)),
    }


def convert_network(arguments: dict[str, Any]) -> None:
    """Replace those two names by ``policy_kwargs``, in place.

    :param arguments: constructor arguments in the making
    """
    hidden = NET_ARCHS[arguments.pop("net_arch")]
    arguments["policy_kwargs"] = {
        "net_arch": {"pi": hidden, "vf": hidden},
        "activation_fn": ACTIVATIONS[arguments.pop("activation_fn")],
    }
