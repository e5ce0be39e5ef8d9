"""Eligibility traces, and what becomes of them in a single step of learning.

    z ← γλz + g,   w ← w + α·δ·z

with the gradient g of what is predicted or chosen at this step, and the weight δ of the step, which credits with it
everything that the trace remembers. The functions take flat arrays, [P], of NumPy or PyTorch, and change traces and
moments in place.
"""

from typing import Any, NamedTuple

Array = Any
"""A flat array of NumPy or tensor of PyTorch."""

LONGEST_STEP = 1e18
"""The sum of a step's absolute values is at most this, lest squares of parameters become infinite."""


class Step(NamedTuple):
    """A step of the parameters.

    :param scale: w ← w + scale·direction
    :param direction: [P]
    :param step_size: the α that was used
    :param length: the sum of the absolute values of the step
    """

    scale: float
    direction: Array
    step_size: float
    length: float


def decay_and_add(trace: Array, decay: float, gradient: Array) -> None:
    """Let a trace decay, and add a gradient: z ← decay·z + g.

    :param trace: z
    :param decay: γλ
    :param gradient: g
    """
    trace *= decay
    trace += gradient


def sgd(trace: Array, delta: float, learning_rate: float) -> Step:
    """A step of stochastic gradient descent, α·δ·z.

    :param trace: z
    :param delta: δ
    :param learning_rate: α
    """
    scale = learning_rate * delta
    return Step(scale, trace, learning_rate, abs(scale) * _norm(trace))


def obgd(trace: Array, delta: float, learning_rate: float, kappa: float) -> Step:
    """A step that does not overshoot, α'·δ·z (Elsayed, Vasan and Mahmood, 2024, "Streaming Deep Reinforcement Learning
    Finally Works", ObGD).

        M = α·κ·max(|δ|, 1)·‖z‖₁,   α' = α / max(1, M)

    To first order a step changes the prediction at a state by α'·δ·z·g; the bound takes ‖z‖₁ for z·g.

    :param trace: z
    :param delta: δ
    :param learning_rate: α
    :param kappa: κ, how far below the point of overshooting a step stays
    """
    return _bounded(trace, delta, learning_rate, kappa)


def adaptive_obgd(
    trace: Array,
    delta: float,
    learning_rate: float,
    kappa: float,
    second_moments: Array,
    n_updates: int,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> Step:
    """The same with z / √(EMA((δz)²) + ε) for z: a step size for every parameter.

    :param second_moments: running mean of (δz)², [P], which is updated; its start from 0 is corrected for
    :param n_updates: how many updates there have been, this one included
    :param beta2: decay of that mean
    :param eps: ε
    """
    second_moments *= beta2
    second_moments += (1 - beta2) * (delta * trace) ** 2
    direction = trace / (second_moments / (1 - beta2**n_updates) + eps) ** 0.5
    return _bounded(direction, delta, learning_rate, kappa)


def rmsprop(
    gradient: Array, learning_rate: float, second_moments: Array, beta2: float = 0.999, eps: float = 1e-4
) -> Step:
    """A step of RMSProp without momentum and without correction for its start, α·g / √(EMA(g²) + ε).

    :param gradient: g, [P]
    :param learning_rate: α
    :param second_moments: running mean of g², [P], which is updated
    :param beta2: decay of that mean
    :param eps: ε, within the root
    """
    second_moments *= beta2
    second_moments += (1 - beta2) * gradient**2
    direction = gradient / (second_moments + eps) ** 0.5
    return Step(learning_rate, direction, learning_rate, learning_rate * _norm(direction))


def _bounded(direction: Array, delta: float, learning_rate: float, kappa: float) -> Step:
    norm = _norm(direction)
    step_size = learning_rate / max(1.0, learning_rate * kappa * max(abs(delta), 1.0) * norm)
    return Step(step_size * delta, direction, step_size, step_size * abs(delta) * norm)


def _norm(array: Array) -> float:
    """‖·‖₁."""
    return float(abs(array).sum())
