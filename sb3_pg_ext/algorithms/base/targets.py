"""Target networks: copies that follow a network slowly."""

from typing import NamedTuple

import torch as th
from torch import nn


class Target(NamedTuple):
    """What follows what, and how fast.

    :param source: the network that is learned, with parameters θ
    :param copy: the target network, with parameters θ'; of the same structure
    :param tau: by which part of the way it follows, in (0, 1]
    :param interval: number of updates after which it follows
    """

    source: nn.Module
    copy: nn.Module
    tau: float
    interval: int = 1


@th.no_grad()
def follow(target: Target) -> None:
    """Let a target network follow: θ' ← θ' + tau·(θ − θ'); running statistics are copied.

    :param target: what follows what
    """
    parameters, statistics = _tensors(target.source)
    own_parameters, own_statistics = _tensors(target.copy)
    th._foreach_lerp_(own_parameters, parameters, target.tau)
    for statistic, latest in zip(own_statistics, statistics, strict=True):
        statistic.copy_(latest)


def _tensors(module: nn.Module) -> tuple[list[th.Tensor], list[th.Tensor]]:
    """Parameters and running statistics, in one walk: at less than half of what parameters() costs."""
    modules = [module]
    for each in modules:  # grows on the way
        modules += filter(None, each._modules.values())
    parameters = {id(p): p for m in modules for p in m._parameters.values() if p is not None}
    return [*parameters.values()], [b for m in modules for b in m._buffers.values() if b is not None]
