"""μ and L of :mod:`sb3_pg_ext.functional.quadratic` in PyTorch, for policies that act on any device, and for whoever
differentiates through their actions. What updates need of Q is calculated in NumPy, by that module.
"""

from functools import lru_cache

import torch as th

from sb3_pg_ext.functional.quadratic import LOG_DIAGONAL_BOUND


def best_action(outputs: th.Tensor, action_dim: int) -> th.Tensor:
    """μ alone of :func:`best_action_and_factor`."""
    return outputs[..., :action_dim].tanh()


def best_action_and_factor(outputs: th.Tensor, action_dim: int) -> tuple[th.Tensor, th.Tensor]:
    """See :func:`sb3_pg_ext.functional.quadratic.best_action_and_factor`.

    :param outputs: shape [..., d + d(d+1)/2]
    :param action_dim: d
    :return: μ in [−1, 1], shape [..., d], and L, shape [..., d, d]
    """
    n_below = outputs.shape[-1] - 2 * action_dim
    best, on_diagonal, below = outputs.split([action_dim, action_dim, n_below], dim=-1)
    diagonal = (LOG_DIAGONAL_BOUND * (on_diagonal / LOG_DIAGONAL_BOUND).tanh()).exp()
    return best.tanh(), diagonal.unsqueeze(-1) * _unit_lower(below.tanh(), action_dim)


def sample(best_actions: th.Tensor, factor: th.Tensor, temperature: float) -> th.Tensor:
    """See :func:`sb3_pg_ext.functional.quadratic.sample`; the noise is drawn from PyTorch's global generator.

    :param best_actions: μ, shape [..., d]
    :param factor: L, shape [..., d, d]
    :param temperature: what a nat of entropy is worth, in the unit of Q
    :return: actions, shape [..., d], not bounded
    """
    noise = th.randn_like(best_actions).unsqueeze(-1)
    return best_actions + temperature**0.5 * th.linalg.solve_triangular(factor.mT, noise, upper=True).squeeze(-1)


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
