"""Divergences between action distributions."""

from typing import cast

import torch as th
from torch.distributions import Bernoulli, Categorical, Distribution, kl_divergence
from torch.nn.functional import logsigmoid

from sb3_pg_ext.functional.tensors.distributions import ActionDistribution, parts


def kl(old: ActionDistribution, new: ActionDistribution) -> th.Tensor:
    """KL(old‖new) for every sample of the batch, summed over action dimensions.

    For Gaussians this is Σ_d [ln(σ'_d/σ_d) + (σ_d² + (μ_d − μ'_d)²) / 2σ'_d² − ½]; for several discrete actions it is
    the sum over them, since they are independent given the state. Discrete ones are computed from logits: PyTorch's own
    function gives infinity where a probability of the new distribution is rounded to 0 or 1, however small it is.

    :param old: the distribution that acted
    :param new: the distribution to compare with, of the same kind and shape
    :return: shape [batch], in nats
    """
    terms = (_kl(p, q) for p, q in zip(parts(old), parts(new), strict=True))
    return cast(th.Tensor, sum(term.reshape(len(term), -1).sum(1) for term in terms))


def _kl(p: Distribution, q: Distribution) -> th.Tensor:
    if type(p) is type(q) is Categorical:
        terms = p.probs * (p.logits - q.logits)
        return th.where(p.probs == 0, 0.0, terms).sum(-1)  # also where both logits are −∞
    if type(p) is type(q) is Bernoulli:
        of_one = p.logits.sigmoid() * (logsigmoid(p.logits) - logsigmoid(q.logits))
        of_zero = (-p.logits).sigmoid() * (logsigmoid(-p.logits) - logsigmoid(-q.logits))
        return of_one + of_zero
    return kl_divergence(p, q)
