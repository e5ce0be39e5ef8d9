"""Objectives whose gradients are policy gradients."""

import torch as th


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
