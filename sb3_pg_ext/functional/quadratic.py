"""A quadratic function of actions, Q(a) = V − ½(a−μ)ᵀP(a−μ) with P = L Lᵀ.

P is positive definite, so that the largest value is V, at a = μ. L is lower triangular with a positive diagonal. μ and
L come from unbounded numbers, the outputs of a network: first d for μ, then d for the diagonal of L, then row by row
those below it. Further dimensions before the last ones are batches.

:mod:`sb3_pg_ext.functional.tensors.quadratic` has μ and L for PyTorch, where something else has to be differentiated
through them.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

LOG_DIAGONAL_BOUND = 4.0
"""The diagonal of L stays within [e⁻⁴, e⁴] ≈ [0.018, 54.6], and so the curvature of Q within some 10⁻⁴ and 10⁴."""


def n_outputs(action_dim: int) -> int:
    """How many numbers μ and L come from: d + d(d+1)/2."""
    return action_dim + action_dim * (action_dim + 1) // 2


def best_action(outputs: np.ndarray, action_dim: int) -> np.ndarray:
    """μ alone of :func:`best_action_and_factor`."""
    return np.tanh(outputs[..., :action_dim])


def best_action_and_factor(outputs: np.ndarray, action_dim: int) -> tuple[np.ndarray, np.ndarray]:
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
    return best, np.exp(LOG_DIAGONAL_BOUND * bounded)[..., None] * _unit_lower(below, action_dim)


def precision(factor: np.ndarray) -> np.ndarray:
    """P = L Lᵀ, shape [..., d, d].

    :param factor: L, shape [..., d, d]
    """
    return factor @ factor.swapaxes(-1, -2)


def precision_eigenvalues(factor: np.ndarray) -> np.ndarray:
    """The eigenvalues of P = L Lᵀ, shape [..., d], largest first: the squared singular values of L, never negative.

    :param factor: L, shape [..., d, d]
    """
    return np.square(np.linalg.svd(factor, compute_uv=False))


class Advantage(NamedTuple):
    """Q(a) − V and its gradients. Vector-Jacobian products are c·gradient, with one number c for every value.

    :param value: shape [...], never positive
    :param of_outputs: its derivatives with respect to the outputs of the network, shape [..., d + d(d+1)/2]
    :param of_actions: those with respect to the actions, −P(a−μ), shape [..., d]
    """

    value: np.ndarray
    of_outputs: np.ndarray
    of_actions: np.ndarray


def advantage(outputs: np.ndarray, actions: np.ndarray) -> Advantage:
    """Q(a) − V = −½(a−μ)ᵀP(a−μ), computed as −½‖Lᵀ(a−μ)‖²: never positive, and 0 exactly at a = μ.

    With L = D·N, D its diagonal: w = D(a−μ), u = Nᵀw, and the value is −½‖u‖².

    :param outputs: of the network, shape [..., d + d(d+1)/2]
    :param actions: a, shape [..., d]; dimensions before the last one are repeated as the outputs need it
    """
    action_dim = actions.shape[-1]
    best, bounded, below = _bounded(outputs, action_dim)
    diagonal = np.exp(LOG_DIAGONAL_BOUND * bounded)
    w = diagonal * (actions - best)
    unit = _unit_lower(below, action_dim)
    u = (unit * w[..., None]).sum(-2)
    of_w = -(unit * u[..., None, :]).sum(-1)
    of_outputs = np.empty_like(outputs)
    rows, columns = _below_diagonal(action_dim)
    of_actions = of_w * diagonal
    of_outputs[..., :action_dim] = of_actions * (best * best - 1)
    of_outputs[..., action_dim : 2 * action_dim] = of_w * w * (1 - bounded * bounded)
    of_outputs[..., 2 * action_dim :] = w[..., rows] * u[..., columns] * (below * below - 1)
    return Advantage(-0.5 * (u * u).sum(-1), of_outputs, of_actions)


def sample(best_actions: np.ndarray, factor: np.ndarray, noise: np.ndarray, temperature: float) -> np.ndarray:
    """Sample the density that is proportional to exp(Q(a)/temperature), which is N(μ, temperature·P⁻¹).

    Of all policies this one has the largest E Q + temperature·entropy. With ε ~ N(0, I), the solution of Lᵀx = ε has
    the covariance P⁻¹.

    :param best_actions: μ, shape [..., d]
    :param factor: L, shape [..., d, d]
    :param noise: ε, shape [..., d]
    :param temperature: what a nat of entropy is worth, in the unit of Q
    :return: actions, shape [..., d], not bounded
    """
    scattered = np.linalg.solve(factor.swapaxes(-1, -2), noise[..., None])[..., 0]
    return best_actions + temperature**0.5 * scattered


def _bounded(outputs: np.ndarray, action_dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """μ, tanh(x_ii/4) and tanh(x_ij)."""
    scaled = outputs.copy()
    scaled[..., action_dim : 2 * action_dim] /= LOG_DIAGONAL_BOUND
    np.tanh(scaled, out=scaled)
    return scaled[..., :action_dim], scaled[..., action_dim : 2 * action_dim], scaled[..., 2 * action_dim :]


@lru_cache
def _below_diagonal(action_dim: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows and the columns of what is below the diagonal of a matrix."""
    return np.tril_indices(action_dim, -1)


def _unit_lower(below: np.ndarray, action_dim: int) -> np.ndarray:
    """The matrix with ones on its diagonal and given entries below it, shape [..., d, d]."""
    rows, columns = _below_diagonal(action_dim)
    matrix = np.zeros((*below.shape[:-1], action_dim, action_dim), below.dtype)
    matrix.reshape(*below.shape[:-1], -1)[..., :: action_dim + 1] = 1
    matrix[..., rows, columns] = below
    return matrix
