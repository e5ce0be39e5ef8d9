"""The noise matrices of gSDE, which policies draw at the beginning of a rollout and do not save."""

from typing import Any

from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from torch import nn

MATRICES = ("exploration_mat", "exploration_matrices")


def note(policy: nn.Module) -> list[dict[str, Any]]:
    """The matrices that a policy, or its actor, explores with."""
    return [
        {name: getattr(distribution, name).detach() for name in MATRICES if hasattr(distribution, name)}
        for distribution in _distributions(policy)
    ]


def put_back(policy: nn.Module, noted: list[dict[str, Any]]) -> None:
    """Let a policy explore with the matrices of another."""
    for distribution, matrices in zip(_distributions(policy), noted, strict=True):
        vars(distribution).update(matrices)


def _distributions(policy: nn.Module) -> list[StateDependentNoiseDistribution]:
    found = (vars(module).get("action_dist") for module in policy.modules())
    return [distribution for distribution in found if isinstance(distribution, StateDependentNoiseDistribution)]
