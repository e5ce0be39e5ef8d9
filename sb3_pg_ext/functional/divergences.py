"""Divergences between action distributions."""

from typing import cast

import torch as th
from torch.distributions import kl_divergence

from sb3_pg_ext.functional.distributions import ActionDistribution, parts


def kl(old: ActionDistribution, new: ActionDistribution) -> th.Tensor:
    """KL(old‖new) for every sample of the batch, summed over action dimensions.

    For Gaussians this is Σ_d [ln(σ'_d/σ_d) + (σ_d² + (μ_d − μ'_d)²) / 2σ'_d² − ½]; for several discrete actions it is
    the sum over them, since they are independent given the state.

    :param old: the distribution that acted
    :param new: the distribution to compare with, of the same kind and shape
    :return: shape [batch], in nats
    """
    terms = (kl_divergence(p, q) for p, q in zip(parts(old), parts(new), strict=True))
    return cast(th.Tensor, sum(term.reshape(len(term), -1).sum(1) for term in terms))
