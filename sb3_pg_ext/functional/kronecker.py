"""Kronecker-factored curvature of linear layers (Martens & Grosse, 2015, https://arxiv.org/abs/1503.05671).

A layer z = W a, whose inputs a end with a 1 where there is a bias, has the Fisher information E[(a aᵀ) ⊗ (g gᵀ)],
where g is the gradient of log p with respect to z. It is approximated by A ⊗ G with A = E[a aᵀ] and G = E[g gᵀ], and
what lies between different layers is left out. With one input, or where a and g are independent, the layer's block is
exact.

These functions are pure. But for :func:`input_factor` and :func:`decompose`, which are NumPy's, they take PyTorch's
tensors as well. The gradient of a layer is one matrix, [outputs, inputs], with that of the bias as its last column.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from sb3_pg_ext.functional.finite import NonFiniteError


class Eigen(NamedTuple):
    """A factor M = Q diag(λ) Qᵀ.

    :param values: λ ≥ 0, ascending, [n]
    :param vectors: Q, one column for each, [n, n]
    """

    values: Any
    vectors: Any


class Block(NamedTuple):
    """The curvature of a layer, A ⊗ G.

    :param inputs: A, [inputs, inputs]
    :param outputs: G, [outputs, outputs]
    """

    inputs: Eigen
    outputs: Eigen


def input_factor(inputs: np.ndarray, has_bias: bool) -> np.ndarray:
    """A, the mean of a aᵀ over a batch.

    :param inputs: a without the 1, [B, n]
    :param has_bias: whether a has it
    :return: [n + 1, n + 1], or [n, n] without a bias
    """
    n_samples, n = inputs.shape
    if not has_bias:
        return np.dot(inputs.T, inputs) / n_samples
    factor = np.empty((n + 1, n + 1), inputs.dtype)
    factor[:n, :n] = np.dot(inputs.T, inputs)
    factor[n, :n] = factor[:n, n] = np.dot(np.ones(n_samples, inputs.dtype), inputs)
    factor[n, n] = n_samples
    factor /= n_samples
    return factor


def output_factor(gradients: Any, n_samples: int) -> Any:
    """G, the mean of g gᵀ over a batch.

    :param gradients: g, [rows, m]; several of one sample, where an expectation over actions is a sum, are rows each
    :param n_samples: B
    :return: [m, m]
    """
    return gradients.T @ gradients / n_samples


def averaging_weight(n_before: float, decay: float) -> float:
    """The weight of a new term in a running average: that of a plain mean, but at least 1 − decay.

    So the average is unbiased from the first term on.

    :param n_before: the number of terms so far
    :param decay: the weight that the average keeps in the long run
    """
    return max(1 - decay, 1 / (n_before + 1))


def decompose(factor: np.ndarray) -> Eigen:
    """The eigen-decomposition of a factor, computed in double precision. Negative eigenvalues become 0.

    :param factor: symmetric and positive semi-definite to rounding, [n, n]
    :return: in the factor's own precision
    :raises NonFiniteError: if the factor is not finite, or the decomposition does not converge
    """
    try:
        values, vectors = np.linalg.eigh(factor.astype(np.float64, copy=False))
    except np.linalg.LinAlgError as error:
        raise NonFiniteError(f"eigenvalues of a Kronecker factor: {error}") from error
    if not (np.isfinite(values).all() and np.isfinite(vectors).all()):
        raise NonFiniteError("a Kronecker factor that is not finite")
    return Eigen(np.maximum(values, 0).astype(factor.dtype), vectors.astype(factor.dtype))


def precondition(gradient: Any, block: Block, damping: float) -> Any:
    """(A ⊗ G + ε·I)⁻¹ ∇W = Q_G [(Q_Gᵀ ∇W Q_A) ⊘ (λ_G λ_Aᵀ + ε)] Q_Aᵀ.

    :param gradient: ∇W, [outputs, inputs]
    :param block: the layer's curvature
    :param damping: ε > 0, with which singular factors, too, have an inverse
    """
    (of_inputs, q_inputs), (of_outputs, q_outputs) = block
    rotated = q_outputs.T @ gradient @ q_inputs
    rotated /= of_outputs[:, None] * of_inputs + damping
    return q_outputs @ rotated @ q_inputs.T


def curvature(step: Any, inputs: Any, outputs: Any) -> float:
    """ΔWᵀ (A ⊗ G) ΔW = ⟨ΔW, G ΔW A⟩; half of it is the KL divergence that a step is predicted to cause.

    :param step: ΔW, [outputs, inputs]
    :param inputs: A
    :param outputs: G
    """
    return float((step * (outputs @ step @ inputs)).sum())


def trust_region(curvature: float, rate: float, limit: float) -> float:
    """ν = min(1, √(limit / (rate²·ΔᵀFΔ))), with which the step rate·ν·Δ has ΔᵀFΔ ≤ limit.

    :param curvature: ΔᵀFΔ; for an undamped natural gradient Δ = F⁻¹∇ that is Σ Δ·∇
    :param rate: the learning rate
    :param limit: the trust region's δ, twice the KL divergence
    :return: ν; 0 where ΔᵀFΔ ≤ 0, since there is no descent in such a step
    :raises NonFiniteError: if ΔᵀFΔ is not finite
    """
    if not math.isfinite(curvature):
        raise NonFiniteError(f"curvature along the preconditioned gradient {curvature}")
    if curvature <= 0:
        return 0.0
    length = rate * math.sqrt(curvature)
    return min(1.0, math.sqrt(limit) / length) if length else 1.0


def condition_number(block: Block, damping: float) -> float:
    """The condition number of A ⊗ G + ε·I: its largest eigenvalue over its smallest.

    :param block: the layer's curvature
    :param damping: ε > 0
    """
    largest, smallest = (float(block.inputs.values[i]) * float(block.outputs.values[i]) for i in (-1, 0))
    return (largest + damping) / (smallest + damping)
