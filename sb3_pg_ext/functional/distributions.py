"""What policy gradients ask of an action distribution: finite parameters, a frozen copy.

A policy's action distribution is one torch distribution, or, for several discrete actions, a list of them. Its batch is
the first dimension; further dimensions are independent action dimensions.
"""

from collections.abc import Sequence
from typing import Any

import torch as th
from torch.distributions import Distribution

ActionDistribution = Distribution | Sequence[Distribution]


def parts(distribution: ActionDistribution) -> Sequence[Distribution]:
    """The torch distributions that the action distribution consists of."""
    return (distribution,) if isinstance(distribution, Distribution) else distribution


def parameters(part: Distribution) -> dict[str, th.Tensor]:
    """The parameters of one torch distribution, by the argument names of its constructor.

    Where a distribution can be given by logits or by probabilities, these are the logits.
    """
    names = part.arg_constraints
    return {name: getattr(part, name) for name in (["logits"] if "logits" in names else names)}


def is_finite(distribution: ActionDistribution) -> bool:
    """Whether every parameter of the distribution (mean and scale, or logits) is finite."""
    return all(bool(p.isfinite().all()) for part in parts(distribution) for p in parameters(part).values())


def snapshot(distribution: ActionDistribution) -> list[Distribution]:
    """Copy the distribution, cut from the graph and from the network's memory: later updates leave the copy alone."""
    copies: list[Distribution] = []
    for part in parts(distribution):
        kind: Any = type(part)
        copies.append(kind(**{name: p.detach().clone() for name, p in parameters(part).items()}, validate_args=False))
    return copies
