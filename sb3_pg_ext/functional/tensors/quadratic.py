"""A quadratic function of actions, Q(a) = V − ½(a−μ)ᵀP(a−μ) with P = L Lᵀ.

P is positive definite, so that the largest value is V, at a = μ. L is lower triangular with a positive diagonal. μ and
L come from unbounded numbers, the outputs of a network: first d for μ, then d for the diagonal of L, then row by row
those below it. Further dimensions before the last ones are batches.
"""

from functools import lru_cache
from typing import NamedTuple

import torch as th

LOG_DIAGONAL_BOUND = 4.0
"""The diagonal of L stays within [e⁻⁴, e⁴] ≈ [0.018, 54.6], and so the curvature of Q within some 10⁻⁴ and 10⁴."""


def n_outputs(action_dim: int) -> int:
    """How many numbers μ and L come from: d + d(d+1)/2."""
    return action_dim + action_dim * (action_dim + 1) // 2


def best_action(outputs: th.Tensor, action_dim: int) -> th.Tensor:
    """μ alone of :func:`best_action_and_factor`."""
    return outputs[..., :action_dim].tanh()


def best_action_and_factor(outputs: th.Tensor, action_dim: int) -> tuple[th.Tensor, th.Tensor]:
    """μ and L from the outputs (m, x) of a network.

        μ_i = tanh(m_i),  l_ii = exp(4·tanh(x_ii/4)),  l_ij = l_ii·tanh(x_ij) for j < i

    Every entry of L is bounded, and none exceeds the diagonal of its row. So with rows and columns scaled to a diagonal
    of ones, how small an eigenvalue of P can be depends on d alone: 6·10⁻⁶ for d = 10, and a quarter of that with each
    further dimension. Up to there P is positive definite in float32, too. The price is that not every P can be had:
    with d = 2, |p₁₂|/√(p₁₁p₂₂) stays below 1/√2.

    :param outputs: shape [..., d + d(d+1)/2]
    :param action_dim: d
    :return: μ in [−1, 1], shape [..., d], and L, shape [..., d, d]
    """
    best, bounded, below = _bounded(outputs, action_dim)
    return best, _exp(bounded).unsqueeze(-1) * _unit_lower(below, action_dim)


class Advantage(NamedTuple):
    """Q(a) − V and its gradients.

    :param value: shape [...], never positive
    :param of_outputs: its derivatives with respect to the outputs of the network, shape [..., d + d(d+1)/2]
    :param of_actions: those with respect to the actions, −P(a−μ), shape [..., d]
    """

    value: th.Tensor
    of_outputs: th.Tensor
    of_actions: th.Tensor


def advantage(outputs: th.Tensor, actions: th.Tensor) -> Advantage:
    """Q(a) − V = −½(a−μ)ᵀP(a−μ), computed as −½‖Lᵀ(a−μ)‖²: never positive, and 0 exactly at a = μ.

    The gradients are written out, since autograd would take several times as long for them. With L = D·N, D its
    diagonal: w = D(a−μ), u = Nᵀw, and the value is −½‖u‖².

    :param outputs: of the network, shape [..., d + d(d+1)/2]
    :param actions: a, of the same shape but for the last dimension, d
    """
    action_dim = actions.shape[-1]
    best, bounded, below = _bounded(outputs, action_dim)
    diagonal = _exp(bounded)
    w = diagonal * (actions - best)
    unit = _unit_lower(below, action_dim)
    u = (unit * w.unsqueeze(-1)).sum(-2)
    of_w = -(unit * u.unsqueeze(-2)).sum(-1)
    of_unit = -(w.unsqueeze(-1) * u.unsqueeze(-2)).flatten(-2)
    _, below_it = _positions(action_dim, w.device)
    of_actions = of_w * diagonal
    of_outputs = [
        of_actions * (best.square() - 1),
        of_w * w * (1 - bounded.square()),
        of_unit.index_select(-1, below_it) * (1 - below.square()),
    ]
    return Advantage(u.square().sum(-1).mul_(-0.5), th.cat(of_outputs, dim=-1), of_actions)


def precision_eigenvalues(factor: th.Tensor) -> th.Tensor:
    """The eigenvalues of P = L Lᵀ, shape [..., d], largest first: the squared singular values of L, never negative."""
    return th.linalg.svdvals(factor).square()


def sample(best_actions: th.Tensor, factor: th.Tensor, temperature: float) -> th.Tensor:
    """Sample the density that is proportional to exp(Q(a)/temperature), which is N(μ, temperature·P⁻¹).

    Of all policies this one has the largest E Q + temperature·entropy. With ε ~ N(0, I), the solution of Lᵀx = ε has
    the covariance P⁻¹. Uses PyTorch's global generator.

    :param best_actions: μ, shape [..., d]
    :param factor: L, shape [..., d, d]
    :param temperature: what a nat of entropy is worth, in the unit of Q
    :return: actions, shape [..., d], not bounded
    """
    noise = th.randn_like(best_actions).unsqueeze(-1)
    return best_actions + temperature**0.5 * th.linalg.solve_triangular(factor.mT, noise, upper=True).squeeze(-1)


def _bounded(outputs: th.Tensor, action_dim: int) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
    """μ, tanh(x_ii/4) and tanh(x_ij)."""
    n_below = outputs.shape[-1] - 2 * action_dim
    best, diagonal, below = outputs.split([action_dim, action_dim, n_below], dim=-1)
    return best.tanh(), (diagonal / LOG_DIAGONAL_BOUND).tanh(), below.tanh()


def _exp(bounded: th.Tensor) -> th.Tensor:
    return (LOG_DIAGONAL_BOUND * bounded).exp()


@lru_cache
def _positions(action_dim: int, device: th.device) -> tuple[th.Tensor, th.Tensor]:
    """Where the diagonal and what is below it lie in a flattened matrix."""
    rows, columns = th.tril_indices(action_dim, action_dim, offset=-1, device=device)
    return th.arange(action_dim, device=device) * (action_dim + 1), rows * action_dim + columns


def _unit_lower(below: th.Tensor, action_dim: int) -> th.Tensor:
    """The matrix with ones on its diagonal and given entries below it, shape [..., d, d]."""
    on_diagonal, below_it = _positions(action_dim, below.device)
    matrix = below.new_zeros((*below.shape[:-1], action_dim**2))
    matrix.index_fill_(-1, on_diagonal, 1.0)
    return matrix.index_copy(-1, below_it, below).unflatten(-1, (action_dim, action_dim))
