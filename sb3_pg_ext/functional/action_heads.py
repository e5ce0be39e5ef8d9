"""What a network's outputs for a single state say of one action: log π(a|s), the entropy, and a gradient.

Each function gives log π(a|s), H(π(·|s)) and the gradient of log π(a|s) + c·H in the outputs, written to ``out``. They
are for NumPy as they stand, and numba compiles them.
"""

import math

import numpy as np

LOG_STD_MIN, LOG_STD_MAX = np.float32(-20.0), np.float32(2.0)
"""Bounds of a state-dependent log σ, and the lower one of the x of softplus(x)."""

LOG_2_PI = math.log(2 * math.pi)


def categorical(
    outputs: np.ndarray, sizes: np.ndarray, action: np.ndarray, c: float, out: np.ndarray
) -> tuple[float, float]:
    """One or several choices, independent given the state.

    :param outputs: logits, [Σ k], those of one choice after those of the other; −∞ makes one impossible
    :param sizes: the numbers k
    :param action: the index of every choice
    :param c: weight of the entropy
    :param out: [Σ k]
    """
    log_prob, entropy, start = 0.0, 0.0, 0
    for choice in range(len(sizes)):
        end = start + sizes[choice]
        logits = outputs[start:end]
        log_p = logits - logits.max()
        log_p = log_p - np.log(np.exp(log_p).sum())
        p = np.exp(log_p)
        finite = np.maximum(log_p, np.float32(-1e30))
        own = -(p * finite).sum()
        out[start:end] = -p - np.float32(c) * p * (finite + own)
        chosen = start + int(action[choice])
        out[chosen] += np.float32(1.0)
        log_prob += log_p[chosen - start]
        entropy += own
        start = end
    return log_prob, entropy


def bernoulli(
    outputs: np.ndarray, sizes: np.ndarray, action: np.ndarray, c: float, out: np.ndarray
) -> tuple[float, float]:
    """Several binary actions, independent given the state.

    :param outputs: logits, [d]
    :param sizes: unused
    :param action: 0 or 1, [d]
    :param c: weight of the entropy
    :param out: [d]
    """
    p = np.float32(0.5) * (np.float32(1.0) + np.tanh(np.float32(0.5) * outputs))
    partition = np.maximum(outputs, np.float32(0.0)) + np.log1p(np.exp(-np.abs(outputs)))
    out[:] = action - p - np.float32(c) * p * (np.float32(1.0) - p) * outputs
    return (action * outputs - partition).sum(), (partition - p * outputs).sum()


def gaussian(
    outputs: np.ndarray, sizes: np.ndarray, action: np.ndarray, c: float, out: np.ndarray
) -> tuple[float, float]:
    """A Gaussian with independent dimensions.

    :param outputs: μ, then log σ, [2d]; log σ is clamped to its bounds, if ``sizes`` says so
    :param sizes: [1], whether it is
    :param action: [d]
    :param c: weight of the entropy
    :param out: [2d]
    """
    d = len(action)
    x = outputs[d:]
    log_std = np.minimum(np.maximum(x, LOG_STD_MIN), LOG_STD_MAX) if sizes[0] else x
    inside = (log_std == x).astype(np.float32)
    z = (action - outputs[:d]) / np.exp(log_std)
    out[:d] = z / np.exp(log_std)
    out[d:] = (z * z - np.float32(1.0) + np.float32(c)) * inside
    log_prob = -0.5 * (z * z).sum() - log_std.sum() - 0.5 * d * LOG_2_PI
    return log_prob, log_std.sum() + 0.5 * d * (LOG_2_PI + 1.0)


def softplus_gaussian(
    outputs: np.ndarray, sizes: np.ndarray, action: np.ndarray, c: float, out: np.ndarray
) -> tuple[float, float]:
    """A Gaussian with independent dimensions, whose standard deviations are log(1 + eˣ).

    :param outputs: μ, then x, [2d]; x is at least −20
    :param sizes: unused
    :param action: [d]
    :param c: weight of the entropy
    :param out: [2d]
    """
    d = len(action)
    x = np.maximum(outputs[d:], LOG_STD_MIN)
    inside = (x == outputs[d:]).astype(np.float32)
    std = softplus(x)
    slope = np.float32(0.5) * (np.float32(1.0) + np.tanh(np.float32(0.5) * x))
    z = (action - outputs[:d]) / std
    out[:d] = z / std
    out[d:] = (z * z - np.float32(1.0) + np.float32(c)) / std * slope * inside
    log_std = np.log(std).sum()
    log_prob = -0.5 * (z * z).sum() - log_std - 0.5 * d * LOG_2_PI
    return log_prob, log_std + 0.5 * d * (LOG_2_PI + 1.0)


def softplus(x: np.ndarray) -> np.ndarray:
    """log(1 + eˣ)."""
    return np.maximum(x, np.float32(0.0)) + np.log1p(np.exp(-np.abs(x)))


def gaussian_std(x: np.ndarray, kind: int, clamped: bool) -> np.ndarray:
    """The standard deviations of Gaussians.

    :param x: log σ, or x of softplus(x), any shape
    :param kind: which it is, by the place in :data:`HEADS`
    :param clamped: whether log σ is clamped
    """
    if kind == SOFTPLUS_GAUSSIAN:
        return softplus(np.maximum(x, LOG_STD_MIN))
    return np.exp(np.minimum(np.maximum(x, LOG_STD_MIN), LOG_STD_MAX) if clamped else x)


HEADS = (categorical, bernoulli, gaussian, softplus_gaussian)
CATEGORICAL, BERNOULLI, GAUSSIAN, SOFTPLUS_GAUSSIAN = range(len(HEADS))
