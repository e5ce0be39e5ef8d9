"""Kronecker-factored curvature of modules: what :mod:`sb3_pg_ext.functional.kronecker` needs from PyTorch."""

from typing import Any

import numpy as np
import torch as th
from torch import nn
from torch.distributions import Bernoulli, Categorical, Distribution, Normal
from torch.nn.functional import unfold

from sb3_pg_ext.functional import kronecker
from sb3_pg_ext.functional.finite import NonFiniteError
from sb3_pg_ext.functional.kronecker import Eigen
from sb3_pg_ext.functional.tensors.distributions import ActionDistribution, parts


def has_factors(module: nn.Module) -> bool:
    """Whether the curvature of a module is known to be a Kronecker product: linear layers, and plain convolutions.

    :param module: any module; a subclass may compute something else
    """
    if type(module) is nn.Conv2d:
        return module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return type(module) is nn.Linear


def positions_of_inputs(module: Any, inputs: th.Tensor) -> th.Tensor:
    """The inputs of a layer as vectors, one for every place where its weights are used.

    :param module: a linear layer, or a convolution, whose places are the positions of its kernel
    :param inputs: [B, …]
    :return: [B, T, n], or [B, T, n + 1] where there is a bias, with 1 for it
    """
    if isinstance(module, nn.Conv2d):
        padding: Any = module.padding  # in numbers, of those that have factors
        patches = unfold(inputs, module.kernel_size, module.dilation, padding, module.stride)
        vectors = patches.transpose(1, 2)
    else:
        vectors = inputs.reshape(len(inputs), -1, inputs.shape[-1])
    if module.bias is None:
        return vectors
    return th.cat([vectors, vectors.new_ones(*vectors.shape[:2], 1)], dim=2)


def positions_of_outputs(module: nn.Module, gradients: th.Tensor) -> th.Tensor:
    """Gradients with respect to a layer's outputs, likewise.

    :param module: the layer
    :param gradients: [B, …], of the shape of its outputs
    :return: [B, T, m]
    """
    if isinstance(module, nn.Conv2d):
        return gradients.flatten(2).transpose(1, 2)
    return gradients.reshape(len(gradients), -1, gradients.shape[-1])


def input_factor(inputs: th.Tensor) -> th.Tensor:
    """A of a layer that is used at T places of every sample.

    What the places contribute to the gradient is taken to be uncorrelated, and the same everywhere (KFC, Grosse &
    Martens, 2016, https://arxiv.org/abs/1602.01407): A is summed over them, G averaged. With T = 1 these are those of a
    linear layer.

    :param inputs: a, [B, T, n]
    :return: [n, n]
    """
    rows = inputs.flatten(0, 1)
    return rows.T @ rows / len(inputs)


def output_factor(gradients: th.Tensor) -> th.Tensor:
    """G of such a layer.

    :param gradients: g, [B, T, m]
    :return: [m, m]
    """
    rows = gradients.flatten(0, 1)
    return rows.T @ rows / len(rows)


def information_roots(distribution: ActionDistribution) -> list[tuple[th.Tensor, th.Tensor]]:
    """Roots of the Fisher information of a distribution's parameters: M = Σ r rᵀ at every state.

    Brought back through the network they give its Fisher information, with an exact expectation over actions.

    :param distribution: of a batch of states, with its graph
    :return: pairs of parameters of the distribution, [B, …], and one r at every state, of their shape
    :raises TypeError: if the information of a distribution of this kind is not known
    """
    return [pair for part in parts(distribution) for pair in _roots(part) if pair[0].requires_grad]


def _roots(part: Distribution) -> list[tuple[th.Tensor, th.Tensor]]:
    match part:
        case Categorical():
            p = part.probs.detach()
            chosen = th.eye(p.shape[-1], dtype=p.dtype, device=p.device)
            return [(part.logits, p[..., i : i + 1].sqrt() * (chosen[i] - p)) for i in range(p.shape[-1])]
        case Bernoulli():
            p = part.probs.detach()
            return _of_each_dimension(part.logits, (p * (1 - p)).sqrt())
        case Normal():
            std = part.scale.detach()
            return _of_each_dimension(part.loc, 1 / std) + _of_each_dimension(part.scale, 2**0.5 / std)
    raise TypeError(f"The Fisher information of {type(part).__name__} is not known: Bernoulli, Categorical, Normal are")


def _of_each_dimension(output: th.Tensor, root: th.Tensor) -> list[tuple[th.Tensor, th.Tensor]]:
    """Those of independent dimensions, the last axis."""
    units = th.eye(root.shape[-1], dtype=root.dtype, device=root.device)
    return [(output, root * unit) for unit in units]


def sampled_scores(distribution: ActionDistribution, rng: np.random.Generator) -> list[tuple[th.Tensor, th.Tensor]]:
    """Log π(a|s) at sampled actions, in the same form: a single random root, of whatever carries a graph.

    :param distribution: of a batch of states, with its graph
    :param rng: draws the actions, just as that of :meth:`sb3_pg_ext.functional.heads.Head.sample`
    """
    log_probs = [part.log_prob(_sample(part, rng)) for part in parts(distribution)]
    total = th.stack([each.reshape(len(each), -1).sum(1) for each in log_probs]).sum(0)
    return [(total, th.ones_like(total))] if total.requires_grad else []


def _sample(part: Distribution, rng: np.random.Generator) -> th.Tensor:
    def tensor(noise: np.ndarray, like: th.Tensor) -> th.Tensor:
        return th.as_tensor(noise, dtype=like.dtype, device=like.device)

    match part:
        case Categorical():
            noise = np.log(rng.exponential(size=tuple(part.logits.shape)))
            return (part.logits.detach() - tensor(noise, part.logits)).argmax(-1)
        case Bernoulli():
            uniform = rng.random(tuple(part.probs.shape))
            return (tensor(uniform, part.probs) < part.probs.detach()).to(part.probs.dtype)
        case Normal():
            noise = rng.standard_normal(tuple(part.loc.shape))
            return (part.loc + part.scale * tensor(noise, part.loc)).detach()
    return part.sample()


def decompose(factor: th.Tensor) -> Eigen:
    """The eigen-decomposition of a factor, as :func:`sb3_pg_ext.functional.kronecker.decompose`, on any device.

    :param factor: [n, n]
    :raises NonFiniteError: if the factor is not finite, or the decomposition does not converge
    """
    if factor.device.type == "cpu":
        of_array = kronecker.decompose(factor.numpy())
        return Eigen(*(th.from_numpy(np.ascontiguousarray(array)) for array in of_array))
    try:
        values, vectors = th.linalg.eigh(factor.double())
    except th.linalg.LinAlgError as error:
        raise NonFiniteError(f"eigenvalues of a Kronecker factor: {error}") from error
    if not bool(values.isfinite().all() & vectors.isfinite().all()):
        raise NonFiniteError("a Kronecker factor that is not finite")
    return Eigen(values.clamp(min=0).to(factor.dtype), vectors.to(factor.dtype))
