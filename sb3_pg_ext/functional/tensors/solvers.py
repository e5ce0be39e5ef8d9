"""Solvers that say how well they did."""

from collections.abc import Callable
from typing import NamedTuple

import torch as th

from sb3_pg_ext.functional.tensors.curvature import Product


class Solution(NamedTuple):
    """What conjugate gradients found.

    :param x: the approximate solution of (A + λI) x = b, [n]
    :param image: A x, without the damping, [n]
    :param residual: ‖b − (A + λI) x‖ / ‖b‖, from ``x`` itself, not from the recurrence; 0 if b = 0
    :param n_steps: number of steps made
    :param broke_down: whether it stopped at a direction along which A + λI has no curvature, or a negative one, or one
        that drowns in rounding errors; ``x`` is what it had until then
    """

    x: th.Tensor
    image: th.Tensor
    residual: float
    n_steps: int
    broke_down: bool


def conjugate_gradients(
    product: Product, b: th.Tensor, max_steps: int, damping: float = 0.0, tolerance: float = 1e-5
) -> Solution:
    """Solve (A + λI) x = b for a positive semi-definite A (Hestenes & Stiefel, 1952), starting from x = 0.

    It costs one product a step, and one at the end.

    :param product: v ↦ A v
    :param b: right-hand side, [n]
    :param max_steps: the most steps to make
    :param damping: λ ≥ 0
    :param tolerance: it stops when the residual of the recurrence falls to ``tolerance``·‖b‖
    """
    x, residual, direction = th.zeros_like(b), b.clone(), b
    start = squared_norm = float(b @ b)
    largest_curvature, n_steps, broke_down = 0.0, 0, False
    while n_steps < max_steps and squared_norm > tolerance**2 * start:
        image = product(direction) + damping * direction
        curvature = float(direction @ image)
        relative_curvature = curvature / float(direction @ direction)
        if not relative_curvature > th.finfo(b.dtype).eps * largest_curvature:
            broke_down = True
            break
        largest_curvature = max(largest_curvature, relative_curvature)
        x.add_(direction, alpha=squared_norm / curvature)
        residual.sub_(image, alpha=squared_norm / curvature)
        previous, squared_norm = squared_norm, float(residual @ residual)
        direction = residual + (squared_norm / previous) * direction
        n_steps += 1
    image = product(x)
    true_residual = float(th.linalg.vector_norm(b - image - damping * x))
    return Solution(x, image, true_residual / start**0.5 if start else 0.0, n_steps, broke_down)


class LineSearch(NamedTuple):
    """What a line search found.

    :param scale: the accepted fraction of the full step; 0 if none was
    :param n_steps: number of fractions tried
    """

    scale: float
    n_steps: int


def backtrack(accepts: Callable[[float], bool], shrinking_factor: float, max_steps: int) -> LineSearch:
    """Try the full step, then ever smaller fractions of it, until one is accepted.

    :param accepts: whether a fraction of the full step is good enough
    :param shrinking_factor: what the fraction is multiplied with after each failure, in (0, 1)
    :param max_steps: how many fractions to try
    """
    scale = 1.0
    for n_steps in range(1, max_steps + 1):
        if accepts(scale):
            return LineSearch(scale, n_steps)
        scale *= shrinking_factor
    return LineSearch(0.0, max_steps)
