"""Objectives whose gradients are policy gradients, and the losses that go with them."""

import torch as th
from torch.nn import functional as F


def policy_gradient_loss(log_probs: th.Tensor, advantages: th.Tensor, denominator: float) -> th.Tensor:
    """The pseudo-loss whose gradient is the negative policy gradient, −(1/d) Σ_j log π(a_j|s_j)·A_j.

    With d the number of episodes it is the gradient of the expected return (Williams, 1992); with d the number of
    steps it has the same direction, whatever the length of the episodes.

    :param log_probs: log π(a|s) of the actions taken, shape [batch]
    :param advantages: what each log-probability is weighted with, shape [batch]; no gradient flows through it
    :param denominator: d
    :return: a scalar
    """
    return -(log_probs * advantages.detach()).sum() / denominator


def ratio_loss(ratios: th.Tensor, advantages: th.Tensor, clip_range: float | None = None) -> th.Tensor:
    """The negative surrogate objective of a policy that did not act itself.

        −mean(r·A),  or with a clip range ε  −mean(min(r·A, clip(r, 1 − ε, 1 + ε)·A))

    The second is a lower bound on the first, and has no gradient where r has left [1 − ε, 1 + ε] in the direction that
    A calls for (Schulman et al., 2017, https://arxiv.org/abs/1707.06347, equations 6 and 7).

    :param ratios: r = π(a|s) / π_old(a|s), shape [batch]
    :param advantages: A, shape [batch]; no gradient flows through it
    :param clip_range: ε; ``None`` for no clipping
    :return: a scalar
    """
    advantages = advantages.detach()
    objective = ratios * advantages
    if clip_range is not None:
        objective = th.min(objective, ratios.clamp(1 - clip_range, 1 + clip_range) * advantages)
    return -objective.mean()


def value_loss(
    values: th.Tensor, returns: th.Tensor, old_values: th.Tensor, clip_range: float | None = None
) -> th.Tensor:
    """The critic's mean squared error, as SB3's PPO has it.

        mean((V' − R)²),  V' = V,  or with a clip range ε  V' = V_old + clip(V − V_old, −ε, ε)

    :param values: V(s), shape [batch]
    :param returns: R, shape [batch]
    :param old_values: V(s) before the update, shape [batch]
    :param clip_range: ε, in units of the return; ``None`` for no clipping
    :return: a scalar
    """
    if clip_range is not None:
        values = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return F.mse_loss(values, returns)


def normalize(advantages: th.Tensor) -> th.Tensor:
    """Scale advantages to mean 0 and deviation 1, as SB3 does; a single one has no deviation and is left alone.

    :param advantages: shape [batch]
    """
    if len(advantages) < 2:
        return advantages
    std, mean = th.std_mean(advantages)
    return (advantages - mean) / (std + 1e-8)
