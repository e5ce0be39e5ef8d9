"""A quadratic function of actions, Q(a) = V − ½(a−μ)ᵀP(a−μ) with P = L Lᵀ.

P is positive definite, so that the largest value is V, at a = μ. L is lower triangular with a positive diagonal. Further
dimensions before the last ones are batches.
"""

from functools import lru_cache

import torch as th

LOG_DIAGONAL_BOUND = 4.0
"""The diagonal of L stays within [e⁻⁴, e⁴] ≈ [0.018, 54.6], and so the curvature of Q within some 10⁻⁴ and 10⁴."""


def n_cholesky_entries(action_dim: int) -> int:
    """How many numbers L has: d(d+1)/2."""
    return action_dim * (action_dim + 1) // 2


@lru_cache
def _positions(action_dim: int, device: th.device) -> th.Tensor:
    """Where the diagonal, and then the entries below it, lie in a flattened matrix."""
    rows, columns = th.tril_indices(action_dim, action_dim, offset=-1, device=device)
    diagonal = th.arange(action_dim, device=device) * (action_dim + 1)
    return th.cat([diagonal, rows * action_dim + columns])


def cholesky_factor(entries: th.Tensor, action_dim: int) -> th.Tensor:
    """L from unbounded numbers x, the outputs of a network.

        l_ii = exp(4·tanh(x_ii/4)),  l_ij = l_ii·tanh(x_ij) for j < i

    Every entry is bounded, and none exceeds the diagonal of its row. So P is positive definite in float32, too: with
    rows and columns scaled to a diagonal of ones its condition number depends on d alone. The price is that not every P
    can be had: with d = 2, |p₁₂|/√(p₁₁p₂₂) stays below 1/√2.

    :param entries: x, shape [..., d(d+1)/2]: first those of the diagonal, then row by row those below it
    :param action_dim: d
    :return: L, shape [..., d, d]
    """
    log_diagonal, below = entries.split([action_dim, entries.shape[-1] - action_dim], dim=-1)
    diagonal = (LOG_DIAGONAL_BOUND * (log_diagonal / LOG_DIAGONAL_BOUND).tanh()).exp()
    with_unit_diagonal = entries.new_zeros((*entries.shape[:-1], action_dim**2)).index_copy(
        -1, _positions(action_dim, entries.device), th.cat([th.ones_like(diagonal), below.tanh()], dim=-1)
    )
    return diagonal.unsqueeze(-1) * with_unit_diagonal.unflatten(-1, (action_dim, action_dim))


def precision(factor: th.Tensor) -> th.Tensor:
    """P = L Lᵀ, shape [..., d, d]."""
    return factor @ factor.mT


def precision_eigenvalues(factor: th.Tensor) -> th.Tensor:
    """The eigenvalues of P, shape [..., d], largest first: the squared singular values of L, never negative."""
    return th.linalg.svdvals(factor).square()


def advantage(actions: th.Tensor, best_actions: th.Tensor, factor: th.Tensor) -> th.Tensor:
    """Q(a) − V = −½(a−μ)ᵀP(a−μ), computed as −½‖Lᵀ(a−μ)‖²: never positive, and 0 exactly at a = μ.

    :param actions: a, shape [..., d]
    :param best_actions: μ, shape [..., d]
    :param factor: L, shape [..., d, d]
    :return: shape [...]
    """
    difference = (actions - best_actions).unsqueeze(-1)
    return -0.5 * (factor * difference).sum(-2).square().sum(-1)


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
