"""What policy gradients ask of an action distribution: finite parameters, a frozen copy.

A policy's action distribution is one torch distribution, or, for several discrete actions, a list of them. Its batch is
the first dimension; further dimensions are independent action dimensions.
"""

from collections.abc import Sequence

import torch as th
from torch.distributions import Bernoulli, Categorical, Distribution, Normal

ActionDistribution = Distribution | Sequence[Distribution]


def parts(distribution: ActionDistribution) -> Sequence[Distribution]:
    """The torch distributions that the action distribution consists of."""
    return (distribution,) if isinstance(distribution, Distribution) else distribution


def parameters(part: Distribution) -> dict[str, th.Tensor]:
    """The parameters of one torch distribution, by the argument names of its constructor.

    :raises TypeError: if it is neither Normal nor Categorical nor Bernoulli
    """
    if isinstance(part, Normal):
        return {"loc": part.loc, "scale": part.scale}
    if isinstance(part, (Categorical, Bernoulli)):
        return {"logits": part.logits}
    raise TypeError(f"Unsupported distribution {type(part).__name__}: expected Normal, Categorical or Bernoulli")


def is_finite(distribution: ActionDistribution) -> bool:
    """Whether every parameter of the distribution (mean and scale, or logits) is finite."""
    return all(bool(p.isfinite().all()) for part in parts(distribution) for p in parameters(part).values())


def snapshot(distribution: ActionDistribution) -> list[Distribution]:
    """Copy the distribution, cut from the graph and from the network's memory: later updates leave the copy alone."""
    return [
        type(part)(**{name: p.detach().clone() for name, p in parameters(part).items()}, validate_args=False)
        for part in parts(distribution)
    ]
