"""The loss of a minibatch and its gradient in one function, written for numba, which compiles it.

Called one by one, the operations of a minibatch of 64 steps take half of their time in Python. So here are the passes
through the networks and the distributions once more, in loops, and together; the losses are those of
:mod:`~sb3_pg_ext.functional.surrogates`, compiled as they stand. Nothing is kept from one call to the next.

A network is a table with a row for every layer: the addresses of W, b and of the places for their gradients (0 for no
bias), the numbers of outputs and inputs, and which activation function follows. So one compiled function serves
networks of any depth.
"""

import ctypes
import math
from typing import Any

import numpy as np

from sb3_pg_ext.functional.arrays import mean
from sb3_pg_ext.functional.surrogates import (
    normalize,
    policy_gradient_loss,
    ratio_loss,
    ratio_statistics,
    value_loss,
)

ACTIVATIONS = ("identity", "scale", "tanh", "relu", "leaky_relu", "elu", "sigmoid", "silu")
"""The activation functions of :mod:`~sb3_pg_ext.functional.mlp`. "scale", "leaky_relu" and "elu" have a number."""

IDENTITY, SCALE, TANH, RELU, LEAKY_RELU, ELU, SIGMOID, SILU = range(len(ACTIVATIONS))

CATEGORICAL, BERNOULLI, GAUSSIAN = range(3)
"""Action distributions, as in :mod:`~sb3_pg_ext.functional.heads`."""

WEIGHT, BIAS, WEIGHT_GRADIENT, BIAS_GRADIENT, OUTPUTS, INPUTS, ACTIVATION = range(7)
"""The columns of a network's table."""

# tanh(x) = x·P(x²)/Q(x²) for |x| ≤ 8 to 7·10⁻⁹ before rounding: least squares, reweighted until no error stands out.
# numba calls the C library for every tanh, which takes 18 times as long.
P = tuple(map(np.float32, (9.99999994e-01, 1.34444888e-01, 3.57158696e-03, 2.18944706e-05, 1.52301268e-08)))
Q = tuple(map(np.float32, (1.0, 4.67778161e-01, 2.61644013e-02, 3.41127357e-04, 8.52233354e-07)))
SATURATION = np.float32(8)
ZERO, HALF, ONE = map(np.float32, (0, 0.5, 1))


BLOCK = 128
"""So many rows pass through everything together: what they leave behind stays in the cache. 2048 rows at once would
take twice as long."""


def array_at(address: int, shape: tuple[int, ...]) -> np.ndarray:
    """The array of single precision that lies at an address."""
    memory = (ctypes.c_float * int(math.prod(shape))).from_address(int(address))
    return np.ctypeslib.as_array(memory).reshape(shape)


def tanh(x: np.float32) -> np.float32:
    """Hyperbolic tangent, to 3·10⁻⁷; NaN of NaN."""
    x = SATURATION if x > SATURATION else x
    x = -SATURATION if x < -SATURATION else x
    s = x * x
    p = (((P[4] * s + P[3]) * s + P[2]) * s + P[1]) * s + P[0]
    q = (((Q[4] * s + Q[3]) * s + Q[2]) * s + Q[1]) * s + Q[0]
    return x * p / q


def sigmoid(x: np.float32) -> np.float32:
    """1 / (1 + e⁻ˣ)."""
    return HALF * (ONE + tanh(HALF * x))


def activate(kind: int, number: np.float32, x: np.ndarray, before: np.ndarray) -> None:
    """Apply an activation function in place; where its derivative needs x, that goes to ``before``."""
    if kind == SCALE:
        for i in range(x.size):
            x[i] *= number
    elif kind == TANH:
        for i in range(x.size):
            x[i] = tanh(x[i])
    elif kind == RELU:
        for i in range(x.size):
            x[i] = ZERO if x[i] < ZERO else x[i]
    elif kind == LEAKY_RELU:
        for i in range(x.size):
            before[i] = x[i]
            x[i] = number * x[i] if x[i] < ZERO else x[i]
    elif kind == ELU:
        for i in range(x.size):
            before[i] = x[i]
            x[i] = number * np.expm1(x[i]) if x[i] < ZERO else x[i]
    elif kind == SIGMOID:
        for i in range(x.size):
            x[i] = sigmoid(x[i])
    elif kind == SILU:
        for i in range(x.size):
            before[i] = x[i]
            x[i] = x[i] * sigmoid(x[i])


def multiply_by_slope(kind: int, number: np.float32, u: np.ndarray, before: np.ndarray, y: np.ndarray) -> None:
    """Multiply by the derivative of an activation function in place, given what it has made."""
    if kind == SCALE:
        for i in range(u.size):
            u[i] *= number
    elif kind == TANH:
        for i in range(u.size):
            u[i] *= ONE - y[i] * y[i]
    elif kind == RELU:
        for i in range(u.size):
            u[i] = u[i] if y[i] > ZERO else u[i] * ZERO
    elif kind == LEAKY_RELU:
        for i in range(u.size):
            u[i] *= ONE if before[i] > ZERO else number
    elif kind == ELU:
        for i in range(u.size):
            u[i] *= ONE if before[i] > ZERO else y[i] + number
    elif kind == SIGMOID:
        for i in range(u.size):
            u[i] *= y[i] * (ONE - y[i])
    elif kind == SILU:
        for i in range(u.size):
            s = sigmoid(before[i])
            u[i] *= s + y[i] * (ONE - s)


def forward(layers: np.ndarray, numbers: np.ndarray, x: np.ndarray, memory: np.ndarray, before: np.ndarray) -> Any:
    """Pass a batch through a network; the outputs, which lie in its memory as what all layers make."""
    start = 0
    for i in range(len(layers)):
        n_outputs, n_inputs = layers[i, OUTPUTS], layers[i, INPUTS]
        end = start + len(x) * n_outputs
        flat = memory[start:end]
        y = flat.reshape((len(x), n_outputs))
        np.dot(x, array_at(layers[i, WEIGHT], (n_outputs, n_inputs)).T, y)
        if layers[i, BIAS]:
            bias = array_at(layers[i, BIAS], (n_outputs,))
            for row in range(len(y)):
                for j in range(n_outputs):
                    y[row, j] += bias[j]
        activate(layers[i, ACTIVATION], numbers[i], flat, before[start:end])
        start, x = end, y
    return x


def backward(
    layers: np.ndarray,
    numbers: np.ndarray,
    x: np.ndarray,
    memory: np.ndarray,
    before: np.ndarray,
    u: np.ndarray,
    adds: bool,
) -> None:
    """Write the gradient of Σ u·outputs in weights and biases to its places, or add it; u is overwritten."""
    end = memory.size
    for i in range(len(layers) - 1, -1, -1):
        n_outputs, n_inputs = layers[i, OUTPUTS], layers[i, INPUTS]
        start = end - u.size
        multiply_by_slope(layers[i, ACTIVATION], numbers[i], u.reshape(-1), before[start:end], memory[start:end])
        below = x if i == 0 else memory[start - len(x) * n_inputs : start].reshape((len(x), n_inputs))
        of_weight = array_at(layers[i, WEIGHT_GRADIENT], (n_outputs, n_inputs))
        if adds:
            part = np.empty((n_outputs, n_inputs), np.float32)
            np.dot(u.T, below, part)
            of_weight += part
        else:
            np.dot(u.T, below, of_weight)
        if layers[i, BIAS]:
            of_bias = array_at(layers[i, BIAS_GRADIENT], (n_outputs,))
            if not adds:
                of_bias[:] = ZERO
            for row in range(len(u)):
                for j in range(n_outputs):
                    of_bias[j] += u[row, j]
        if i:
            of_below = np.empty((len(x), n_inputs), np.float32)
            np.dot(u, array_at(layers[i, WEIGHT], (n_outputs, n_inputs)), of_below)
            u = of_below
        end = start


def total_outputs(layers: np.ndarray) -> int:
    """How many numbers a network makes of a row, in all of its layers."""
    total = 0
    for i in range(len(layers)):
        total += layers[i, OUTPUTS]
    return total


def evaluate_categorical(
    outputs: np.ndarray,
    probs: np.ndarray,
    sizes: np.ndarray,
    masks: np.ndarray,
    actions: np.ndarray,
    old: tuple[np.ndarray, np.ndarray],
    log_probs: np.ndarray,
    entropies: np.ndarray,
    kls: np.ndarray,
) -> None:
    """Of one or several choices. Logits become log-probabilities in place; impossible choices are left out of sums."""
    old_logits, old_probs = old
    for row in range(len(outputs)):
        log_prob = entropy = kl = ZERO
        start = 0
        for choice in range(len(sizes)):
            end = start + sizes[choice]
            largest = np.float32(-np.inf)
            for j in range(start, end):
                if masks.size and not masks[row, j]:
                    outputs[row, j] = -np.inf
                if outputs[row, j] > largest or outputs[row, j] != outputs[row, j]:
                    largest = outputs[row, j]
            total = ZERO
            for j in range(start, end):
                outputs[row, j] -= largest
                probs[row, j] = np.exp(outputs[row, j])
                total += probs[row, j]
            log_total = np.log(total)
            for j in range(start, end):
                outputs[row, j] -= log_total
                probs[row, j] /= total
                if probs[row, j] != ZERO:
                    entropy -= probs[row, j] * outputs[row, j]
                if old_probs.size and old_probs[row, j] != ZERO:
                    kl += old_probs[row, j] * (old_logits[row, j] - outputs[row, j])
            log_prob += outputs[row, start + int(actions[row, choice])]
            start = end
        log_probs[row], entropies[row], kls[row] = log_prob, entropy, kl


def differentiate_categorical(
    log_p: np.ndarray,
    probs: np.ndarray,
    sizes: np.ndarray,
    actions: np.ndarray,
    old_probs: np.ndarray,
    of_log_prob: np.ndarray,
    of_entropy: np.float32,
    of_kl: np.float32,
    out: np.ndarray,
) -> None:
    """The gradient in the logits."""
    for row in range(len(log_p)):
        start = 0
        for choice in range(len(sizes)):
            end = start + sizes[choice]
            entropy = ZERO
            for j in range(start, end):
                if probs[row, j] != ZERO:
                    entropy -= probs[row, j] * log_p[row, j]
            for j in range(start, end):
                p = probs[row, j]
                u = -of_log_prob[row] * p
                if of_entropy != ZERO and p != ZERO:
                    u -= of_entropy * p * (log_p[row, j] + entropy)
                if old_probs.size:
                    u += of_kl * (p - old_probs[row, j])
                out[row, j] = u
            out[row, start + int(actions[row, choice])] += of_log_prob[row]
            start = end


def softplus(x: np.float32) -> np.float32:
    """log(1 + eˣ)."""
    return (x if x > ZERO else ZERO) + np.log1p(np.exp(-abs(x)))


def evaluate_bernoulli(
    logits: np.ndarray,
    probs: np.ndarray,
    actions: np.ndarray,
    old: tuple[np.ndarray, np.ndarray],
    log_probs: np.ndarray,
    entropies: np.ndarray,
    kls: np.ndarray,
) -> None:
    """Of several binary actions."""
    old_logits, old_probs = old
    for row in range(len(logits)):
        log_prob = entropy = kl = ZERO
        for j in range(logits.shape[1]):
            x = logits[row, j]
            p, partition = sigmoid(x), softplus(x)
            probs[row, j] = p
            log_prob += actions[row, j] * x - partition
            entropy += partition - p * x
            if old_probs.size:
                kl += partition - softplus(old_logits[row, j]) + old_probs[row, j] * (old_logits[row, j] - x)
        log_probs[row], entropies[row], kls[row] = log_prob, entropy, kl


def differentiate_bernoulli(
    logits: np.ndarray,
    probs: np.ndarray,
    actions: np.ndarray,
    old_probs: np.ndarray,
    of_log_prob: np.ndarray,
    of_entropy: np.float32,
    of_kl: np.float32,
    out: np.ndarray,
) -> None:
    """The gradient in the logits."""
    for row in range(len(logits)):
        for j in range(logits.shape[1]):
            p = probs[row, j]
            out[row, j] = of_log_prob[row] * (actions[row, j] - p)
            if of_entropy != ZERO:
                out[row, j] -= of_entropy * p * (ONE - p) * logits[row, j]
            if old_probs.size:
                out[row, j] += of_kl * (p - old_probs[row, j])


def evaluate_gaussian(
    mean: np.ndarray,
    log_std: np.ndarray,
    std: np.ndarray,
    actions: np.ndarray,
    old: tuple[np.ndarray, np.ndarray],
    log_probs: np.ndarray,
    entropies: np.ndarray,
    kls: np.ndarray,
) -> None:
    """Of a Gaussian with independent dimensions; of the old one's standard deviations there is one row."""
    old_mean, old_std = old
    constant = np.float32(0.5 * math.log(2 * math.pi))
    for row in range(len(mean)):
        log_prob = entropy = kl = ZERO
        for j in range(mean.shape[1]):
            z = (actions[row, j] - mean[row, j]) / std[j]
            log_prob -= HALF * z * z + log_std[j] + constant
            entropy += log_std[j] + constant + HALF
            if old_std.size:
                ratio, shift = old_std[0, j] / std[j], (mean[row, j] - old_mean[row, j]) / std[j]
                kl += HALF * (ratio * ratio - ONE + shift * shift) - np.log(ratio)
        log_probs[row], entropies[row], kls[row] = log_prob, entropy, kl


def differentiate_gaussian(
    mean: np.ndarray,
    std: np.ndarray,
    actions: np.ndarray,
    old: tuple[np.ndarray, np.ndarray],
    of_log_prob: np.ndarray,
    of_entropy: np.float32,
    of_kl: np.float32,
    out: np.ndarray,
    of_log_std: np.ndarray,
) -> None:
    """The gradients in μ and in log σ; the latter is added to what there is."""
    old_mean, old_std = old
    for j in range(mean.shape[1]):
        total = of_entropy * np.float32(len(mean))
        for row in range(len(mean)):
            z = (actions[row, j] - mean[row, j]) / std[j]
            out[row, j] = of_log_prob[row] * z / std[j]
            total += of_log_prob[row] * (z * z - ONE)
            if old_std.size:
                ratio, shift = old_std[0, j] / std[j], (mean[row, j] - old_mean[row, j]) / std[j]
                out[row, j] += of_kl * shift / std[j]
                total += of_kl * (ONE - ratio * ratio - shift * shift)
        of_log_std[j] += total


def differentiate(
    actor: np.ndarray,
    actor_numbers: np.ndarray,
    critic: np.ndarray,
    critic_numbers: np.ndarray,
    head: int,
    sizes: np.ndarray,
    log_std: np.ndarray,
    of_log_std: np.ndarray,
    x: np.ndarray,
    masks: np.ndarray,
    actions: np.ndarray,
    old_log_probs: np.ndarray,
    old_values: np.ndarray,
    advantages: np.ndarray,
    returns: np.ndarray,
    old: tuple[np.ndarray, np.ndarray],
    ent_coef: float,
    vf_coef: float,
    kl_coef: float,
    normalizes: bool,
    has_ratio: bool,
    clip_range: float,
    clip_range_vf: float,
) -> tuple[float, float, float, float, float, float]:
    """The terms of :class:`~sb3_pg_ext.gradients.objectives.Objective`; its gradient goes to its places.

    All arrays are float32, but for tables and sizes (int64) and masks (Booleans); what is missing has no elements.

    :param actor: table of the network that gives logits or means
    :param actor_numbers: the numbers beside its activation functions
    :param critic: table of the network that gives values
    :param critic_numbers: the numbers beside its activation functions
    :param head: which distribution the actor's outputs make
    :param sizes: how many actions every choice has
    :param log_std: log σ of a Gaussian, [d]
    :param of_log_std: where its gradient goes
    :param x: observations, [B, inputs]
    :param masks: which actions are allowed, [B, outputs]
    :param actions: [B, action_dim]; choices, too, are float32
    :param old_log_probs: log π_old(a|s), [B]
    :param old_values: V(s) at that time, [B]
    :param advantages: A, [B]
    :param returns: R, [B]
    :param old: log-probabilities or logits, and probabilities, of the old policy; of a Gaussian μ, and one row of σ
    :param ent_coef: weight of the entropy
    :param vf_coef: weight of the critic's loss
    :param kl_coef: weight of the penalty
    :param normalizes: whether advantages are normalised
    :param has_ratio: whether the first term has the ratio
    :param clip_range: to what it is clipped; infinity for no clipping
    :param clip_range_vf: to what the change of values is clipped, likewise
    :return: losses of policy and critic, the means of entropy and KL, and
        :func:`~sb3_pg_ext.functional.surrogates.ratio_statistics`
    """
    # In double precision: numba takes every number for such, and arrays with it.
    weights = advantages.astype(np.float64)
    if normalizes:
        weights = normalize(weights)
    n, size, critic_size = len(x), total_outputs(actor), total_outputs(critic)
    most = min(n, BLOCK)
    memory, critic_memory = np.empty(most * size, np.float32), np.empty(most * critic_size, np.float32)
    before, critic_before = np.empty_like(memory), np.empty_like(critic_memory)
    std = np.exp(log_std)
    of_log_std[:] = ZERO
    of_entropy, of_kl = np.float32(-ent_coef / n), np.float32(kl_coef / n)
    terms = np.zeros(6)
    for i in range(0, n, BLOCK):
        rows = slice(i, min(i + BLOCK, n))
        x_here, actions_here, masks_here = x[rows], actions[rows], masks[rows]
        old_here = old[0][rows], old[1] if head == GAUSSIAN else old[1][rows]
        n_here = len(x_here)
        layers, critic_layers = memory[: n_here * size], critic_memory[: n_here * critic_size]
        logits = forward(actor, actor_numbers, x_here, layers, before).copy()
        values = forward(critic, critic_numbers, x_here, critic_layers, critic_before)[:, 0].astype(np.float64)

        probs, u = np.empty_like(logits), np.empty_like(logits)
        log_probs, entropies, kls = np.empty(n_here), np.empty(n_here), np.empty(n_here)
        if head == CATEGORICAL:
            evaluate_categorical(logits, probs, sizes, masks_here, actions_here, old_here, log_probs, entropies, kls)
        elif head == BERNOULLI:
            evaluate_bernoulli(logits, probs, actions_here, old_here, log_probs, entropies, kls)
        else:
            evaluate_gaussian(logits, log_std, std, actions_here, old_here, log_probs, entropies, kls)

        old_log_probs_here = old_log_probs[rows].astype(np.float64)
        old_values_here = old_values[rows].astype(np.float64)
        if has_ratio:
            policy = ratio_loss(log_probs, old_log_probs_here, weights[rows], clip_range)
        else:
            policy = policy_gradient_loss(log_probs, weights[rows], n_here)
        value = value_loss(values, returns[rows].astype(np.float64), old_values_here, clip_range_vf)
        moved = ratio_statistics(log_probs, old_log_probs_here, clip_range)
        share = n_here / n
        terms[0] += share * policy.value
        terms[1] += share * value.value
        terms[2] += share * mean(entropies)
        terms[3] += share * mean(kls)
        terms[4] += share * moved[0]
        terms[5] += share * moved[1]

        of_log_prob = (share * policy.gradient).astype(np.float32)
        if head == CATEGORICAL:
            differentiate_categorical(
                logits, probs, sizes, actions_here, old_here[1], of_log_prob, of_entropy, of_kl, u
            )
        elif head == BERNOULLI:
            differentiate_bernoulli(logits, probs, actions_here, old_here[1], of_log_prob, of_entropy, of_kl, u)
        else:
            differentiate_gaussian(logits, std, actions_here, old_here, of_log_prob, of_entropy, of_kl, u, of_log_std)
        of_values = (share * vf_coef * value.gradient).astype(np.float32).reshape((n_here, 1))
        backward(actor, actor_numbers, x_here, layers, before, u, i > 0)
        backward(critic, critic_numbers, x_here, critic_layers, critic_before, of_values, i > 0)
    return terms[0], terms[1], terms[2], terms[3], terms[4], terms[5]
