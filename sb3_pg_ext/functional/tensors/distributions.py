"""What policy gradients ask of an action distribution: finite parameters, a frozen copy, some rows of its batch.

A policy's action distribution is one torch distribution, or, for several discrete actions, a list of them. Its batch is
the first dimension; further dimensions are independent action dimensions.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch as th
from torch.distributions import Categorical, Distribution

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
    """Whether every parameter is finite; of a choice, its probabilities: a logit of −∞ makes one of them 0.

    :param distribution: the distribution
    """
    return all(bool(p.isfinite().all()) for part in parts(distribution) for p in _finite_parameters(part))


def _finite_parameters(part: Distribution) -> Iterable[th.Tensor]:
    return [part.probs] if isinstance(part, Categorical) else parameters(part).values()


def snapshot(distribution: ActionDistribution) -> list[Distribution]:
    """Copy the distribution, cut from the graph and from the network's memory: later updates leave the copy alone."""
    return [
        _with_parameters(part, {k: p.detach().clone() for k, p in parameters(part).items()})
        for part in parts(distribution)
    ]


def take(distribution: ActionDistribution, rows: th.Tensor | slice) -> list[Distribution]:
    """The distribution at some rows of its batch.

    :param distribution: one of a batch
    :param rows: indices, or a slice
    """
    return [_with_parameters(part, {k: p[rows] for k, p in parameters(part).items()}) for part in parts(distribution)]


def join(batches: Sequence[ActionDistribution]) -> list[Distribution]:
    """One distribution of several batches, one after the other.

    :param batches: distributions of the same kind
    """
    joined = []
    for pieces in zip(*map(parts, batches), strict=True):
        values = [parameters(piece) for piece in pieces]
        joined.append(_with_parameters(pieces[0], {k: th.cat([value[k] for value in values]) for k in values[0]}))
    return joined


def _with_parameters(part: Distribution, values: dict[str, th.Tensor]) -> Distribution:
    kind: Any = type(part)
    return kind(**values, validate_args=False)


def unvalidated_distributions() -> AbstractContextManager[None]:
    """Within the scope, torch distributions do not check their arguments at every construction and every call."""
    return _validation(False)


def validated_distributions() -> AbstractContextManager[None]:
    """Within the scope, they do, as is PyTorch's default."""
    return _validation(True)


@contextmanager
def _validation(value: bool) -> Iterator[None]:
    before = Distribution._validate_args  # PyTorch has a public setter and no getter
    Distribution.set_default_validate_args(value)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)
