"""Products with the Fisher information matrix of a policy, which itself is never formed."""

from collections.abc import Callable, Sequence

import torch as th
from torch.distributions import Bernoulli, Categorical, Distribution, Normal

from sb3_pg_ext.functional.tensors.distributions import ActionDistribution, parts
from sb3_pg_ext.functional.tensors.vectors import flatten, split_like

Product = Callable[[th.Tensor], th.Tensor]
"""v ↦ A v, for a symmetric matrix A of shape [n, n] and vectors of shape [n]."""


def fisher_product(distribution: ActionDistribution, parameters: Sequence[th.Tensor]) -> Product:
    """Products with the Fisher information matrix of π_θ, averaged over the states of a batch.

        F = (1/B) Σ_s E_{a∼π}[∇ log π(a|s) ∇ log π(a|s)ᵀ] = (1/B) Jᵀ M J

    with J the Jacobian of the distributions' parameters (logits, or mean and standard deviation) with respect to θ and
    M their own Fisher information, known in closed form: the Gauss–Newton form. It is the Hessian of
    KL(π_old‖π_θ) at θ_old, and positive semi-definite. The expectation over actions is exact; no action is sampled.

    Jv is the derivative of w ↦ Jᵀw, which is linear. Its graph is built once, so that each product costs two backward
    passes. That takes less time than differentiating the gradient of the KL twice, and much less than
    forward-mode differentiation, which repeats the forward pass.

    :param distribution: π_θ of a batch of states, with its graph; the memory of the graph is held by the result
    :param parameters: θ, all of which the distribution depends on
    :return: v ↦ F v, flattened and joined in the order of ``parameters``
    :raises TypeError: if the information of a distribution of this kind is not known
    """
    outputs, informations = zip(*_differentiable_outputs(distribution), strict=True)
    weights = [th.zeros_like(output, requires_grad=True) for output in outputs]
    pulled_back = th.autograd.grad(outputs, parameters, weights, create_graph=True)
    batch_size = len(outputs[0])

    def product(vector: th.Tensor) -> th.Tensor:
        tangents = th.autograd.grad(pulled_back, weights, split_like(vector, parameters), retain_graph=True)
        cotangents = [information(tangent) for information, tangent in zip(informations, tangents, strict=True)]
        return flatten(th.autograd.grad(outputs, parameters, cotangents, retain_graph=True)) / batch_size

    return product


def _differentiable_outputs(distribution: ActionDistribution) -> list[tuple[th.Tensor, Product]]:
    """The parameters of the distribution that carry a graph, each with products with its information matrix."""
    outputs = [pair for part in parts(distribution) for pair in _outputs(part)]
    return [(output, information) for output, information in outputs if output.requires_grad]


def _outputs(part: Distribution) -> list[tuple[th.Tensor, Product]]:
    match part:
        case Categorical():
            p = part.probs.detach()
            return [(part.logits, lambda u: p * (u - (p * u).sum(-1, keepdim=True)))]
        case Bernoulli():
            p = part.probs.detach()
            return [(part.logits, lambda u: p * (1 - p) * u)]
        case Normal():
            # Divided twice, since the square may underflow.
            std = part.scale.detach()
            return [(part.loc, lambda u: u / std / std), (part.scale, lambda u: 2 * u / std / std)]
    raise TypeError(f"The Fisher information of {type(part).__name__} is not known: Bernoulli, Categorical, Normal are")
