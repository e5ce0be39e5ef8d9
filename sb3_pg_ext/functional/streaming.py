"""One step of a TD(λ) actor-critic in one function, written for numba, which compiles it.

The same sums as in :mod:`~sb3_pg_ext.functional.mlp` and :mod:`~sb3_pg_ext.functional.eligibility`, for a single state:
whatever is done to a weight is done in one loop, so that a trace is read and written once.

A network is a table with a row for every layer: the addresses of W and b (0 where there is none), where their traces
begin, the numbers of outputs and inputs, the activation function, whether LayerNorm comes before it, and whether the
layer reads what the former one reads instead of what it makes: so a Gaussian's mean and deviation stand side by side.
"""

from typing import Any

import numpy as np

from sb3_pg_ext.functional.action_heads import bernoulli, categorical, gaussian, softplus_gaussian
from sb3_pg_ext.functional.action_heads import softplus as softplus
from sb3_pg_ext.functional.eligibility import LONGEST_STEP
from sb3_pg_ext.functional.minibatch import ZERO, activate, array_at, multiply_by_slope
from sb3_pg_ext.functional.minibatch import sigmoid as sigmoid  # which the others call, compiled with them
from sb3_pg_ext.functional.minibatch import tanh as tanh

WEIGHT, BIAS, WEIGHT_TRACE, BIAS_TRACE, OUTPUTS, INPUTS, ACTIVATION, NORMALIZES, BESIDE = range(9)
"""The columns of a network's table."""

NUMBER, EPS = range(2)
"""The columns of the numbers beside it: of the activation function, and ε of LayerNorm."""

SGD, OBGD, ADAPTIVE_OBGD = range(3)


def forward(
    table: np.ndarray, numbers: np.ndarray, x: np.ndarray, values: np.ndarray, before: np.ndarray, scales: np.ndarray
) -> int:
    """Pass a state through a network.

    :param x: [inputs]
    :param values: where what all layers make goes, one after the other
    :param before: likewise, before the activation functions
    :param scales: of every layer the factor of LayerNorm
    :return: where the outputs begin in ``values``
    """
    start, source, outputs = 0, x, 0
    for i in range(len(table)):
        n_outputs, n_inputs = table[i, OUTPUTS], table[i, INPUTS]
        end = start + n_outputs
        y = values[start:end]
        if table[i, BESIDE] == 0:
            outputs = start
            source = x if i == 0 else values[start - n_inputs : start]
        if table[i, WEIGHT]:
            np.dot(array_at(table[i, WEIGHT], (n_outputs, n_inputs)), source, y)
        else:
            y[:] = ZERO
        if table[i, BIAS]:
            y += array_at(table[i, BIAS], (n_outputs,))
        if table[i, NORMALIZES]:
            y -= y.mean()
            scales[i] = np.float32(1.0) / np.sqrt((y * y).mean() + numbers[i, EPS])
            y *= scales[i]
        before[start:end] = y
        activate(table[i, ACTIVATION], numbers[i, NUMBER], y, before[start:end])
        start = end
    return outputs


def backward(
    table: np.ndarray,
    numbers: np.ndarray,
    x: np.ndarray,
    values: np.ndarray,
    before: np.ndarray,
    scales: np.ndarray,
    u: np.ndarray,
    trace: np.ndarray,
    decay: np.float32,
) -> float:
    """Let a trace decay, and add the gradient of Σ u·outputs; its ‖·‖₁.

    :param u: [outputs], overwritten
    """
    norm = 0.0
    end = len(values)
    of_source = u
    for i in range(len(table) - 1, -1, -1):
        n_outputs, n_inputs = table[i, OUTPUTS], table[i, INPUTS]
        start, first, skipped, joins = place(table, i, end)
        own = u[skipped : skipped + n_outputs]
        before_activations(table[i], numbers[i, NUMBER], scales[i], own, before[start:end], values[start:end])
        source = x if first == 0 else values[first - n_inputs : first]
        if not joins:
            of_source = np.zeros(n_inputs, np.float32)
        if table[i, WEIGHT]:
            weight = array_at(table[i, WEIGHT], (n_outputs, n_inputs))
            offset = table[i, WEIGHT_TRACE]
            for k in range(n_outputs):
                row = trace[offset + k * n_inputs : offset + (k + 1) * n_inputs]
                norm += decay_and_add_row(row, decay, own[k], source)
            if first > 0:
                of_source += np.dot(own, weight)
        if table[i, BIAS]:
            offset = table[i, BIAS_TRACE]
            for k in range(n_outputs):
                trace[offset + k] = decay * trace[offset + k] + own[k]
                norm += abs(trace[offset + k])
        if skipped == 0:
            u = of_source
        end = start
    return norm


def place(table: np.ndarray, i: int, end: int) -> tuple[int, int, int, bool]:
    """Where a layer stands on the way back. Layers side by side share what they read, and what holds their gradients.

    :param end: where its outputs end
    :return: where they begin; where what it reads ends; how many outputs of the layer beside it come before its own;
        whether the layer after it reads the same, so that its gradient has been begun
    """
    start = end - table[i, OUTPUTS]
    skipped = table[i - 1, OUTPUTS] if table[i, BESIDE] != 0 else 0
    return start, start - skipped, skipped, i + 1 < len(table) and table[i + 1, BESIDE] != 0


def before_activations(
    layer: np.ndarray, number: np.float32, scale: np.float32, u: np.ndarray, before: np.ndarray, values: np.ndarray
) -> None:
    """Turn the gradient with respect to what a layer makes into that with respect to x Wᵀ + b.

    :param layer: its row of the table; ``number`` and ``scale`` are its activation function's, and LayerNorm's factor
    :param u: [outputs], overwritten
    """
    multiply_by_slope(layer[ACTIVATION], number, u, before, values)
    if layer[NORMALIZES]:
        u[:] = (u - u.mean() - before * (u * before).mean()) * scale


def decay_and_add_row(row: np.ndarray, decay: np.float32, factor: np.float32, x: np.ndarray) -> float:
    """z ← decay·z + factor·x; ‖z‖₁."""
    norm = ZERO
    for j in range(len(row)):
        z = decay * row[j] + factor * x[j]
        row[j] = z
        norm += abs(z)
    return norm


def direct(
    trace: np.ndarray, delta: float, moments: np.ndarray, beta2: float, correction: float, eps: float, out: np.ndarray
) -> float:
    """The direction z / √(EMA((δz)²) + ε); its ‖·‖₁."""
    norm = ZERO
    d, b, rest = np.float32(delta), np.float32(beta2), np.float32(1 - beta2)
    unbias, e = np.float32(1 / correction), np.float32(eps)
    for k in range(len(trace)):
        dz = d * trace[k]
        moments[k] = b * moments[k] + rest * dz * dz
        out[k] = trace[k] / np.sqrt(moments[k] * unbias + e)
        norm += abs(out[k])
    return norm


def move(table: np.ndarray, direction: np.ndarray, scale: np.float32) -> None:
    """Add scale·direction to the parameters of a network."""
    for i in range(len(table)):
        n_outputs, n_inputs = table[i, OUTPUTS], table[i, INPUTS]
        if table[i, WEIGHT]:
            size, offset = n_outputs * n_inputs, table[i, WEIGHT_TRACE]
            add(array_at(table[i, WEIGHT], (size,)), direction[offset : offset + size], scale)
        if table[i, BIAS]:
            offset = table[i, BIAS_TRACE]
            add(array_at(table[i, BIAS], (n_outputs,)), direction[offset : offset + n_outputs], scale)


def add(w: np.ndarray, direction: np.ndarray, scale: np.float32) -> None:
    """w ← w + scale·direction."""
    for k in range(len(w)):
        w[k] += scale * direction[k]


def choose_step_size(optimizer: int, learning_rate: float, kappa: float, delta: float, norm: float) -> float:
    """α, or what ObGD makes of it."""
    if optimizer == SGD:
        return learning_rate
    return learning_rate / max(1.0, learning_rate * kappa * max(abs(delta), 1.0) * norm)


def learn(
    actor: np.ndarray,
    actor_numbers: np.ndarray,
    critic: np.ndarray,
    critic_numbers: np.ndarray,
    actor_memory: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    critic_memory: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    head: int,
    sizes: np.ndarray,
    x: np.ndarray,
    action: np.ndarray,
    reward: float,
    terminated: bool,
    next_x: np.ndarray,
    traces: tuple[np.ndarray, np.ndarray],
    moments: tuple[np.ndarray, np.ndarray],
    gamma: float,
    trace_decay: float,
    discount: float,
    ent_coef: float,
    optimizer: int,
    learning_rates: tuple[float, float],
    kappas: tuple[float, float],
    beta2: float,
    correction: float,
    eps: float,
    out: np.ndarray,
) -> int:
    """Learn from one transition. Everything is float32, but for tables and numbers that stand alone.

    :param actor: its table; ``actor_numbers`` stand beside it, as ``critic_numbers`` beside that of the critic
    :param actor_memory: what :func:`forward` writes, and room for the direction of a step
    :param critic_memory: likewise
    :param head: which function of :data:`~sb3_pg_ext.functional.action_heads.HEADS`
    :param sizes: what it takes
    :param x: the state s
    :param action: a; choices, too, are float32
    :param reward: r
    :param terminated: whether there is no state s' to come
    :param next_x: s'
    :param traces: of actor and critic
    :param moments: of actor and critic, for ``ADAPTIVE_OBGD``
    :param gamma: γ
    :param trace_decay: γλ
    :param discount: γᵗ or 1, the weight of this state for the actor
    :param ent_coef: τ
    :param optimizer: ``SGD``, ``OBGD`` or ``ADAPTIVE_OBGD``
    :param learning_rates: of actor and critic
    :param kappas: likewise, for ObGD
    :param beta2: decay of the moments, with its ``correction`` 1 − beta2ᵗ, and ``eps``
    :param out: δ, V(s), log π(a|s), the entropy, the step sizes and the lengths of the steps of actor and critic
    :return: 0; 1 if δ is not finite, 2 if a step is not, or too long: then no parameter has changed
    """
    values, before, scales, direction = critic_memory
    next_value = 0.0
    if not terminated:
        next_value = values[forward(critic, critic_numbers, next_x, values, before, scales)]
    value = values[forward(critic, critic_numbers, x, values, before, scales)]
    delta = reward + gamma * next_value - value
    out[0], out[1] = delta, value
    if not np.isfinite(delta):
        return 1
    decay = np.float32(trace_decay)
    of_value = np.ones(1, np.float32)
    critic_norm = backward(critic, critic_numbers, x, values, before, scales, of_value, traces[1], decay)
    critic_direction = traces[1]
    if optimizer == ADAPTIVE_OBGD:
        critic_direction = direction
        critic_norm = direct(traces[1], delta, moments[1], beta2, correction, eps, critic_direction)

    values, before, scales, direction = actor_memory
    start = forward(actor, actor_numbers, x, values, before, scales)
    outputs = values[start:]
    u = np.empty(len(outputs), np.float32)
    c = ent_coef * np.sign(delta)
    if head == 0:
        log_prob, entropy = categorical(outputs, sizes, action, c, u)
    elif head == 1:
        log_prob, entropy = bernoulli(outputs, sizes, action, c, u)
    elif head == 2:
        log_prob, entropy = gaussian(outputs, sizes, action, c, u)
    else:
        log_prob, entropy = softplus_gaussian(outputs, sizes, action, c, u)
    u *= np.float32(discount)
    actor_norm = backward(actor, actor_numbers, x, values, before, scales, u, traces[0], decay)
    actor_direction = traces[0]
    if optimizer == ADAPTIVE_OBGD:
        actor_direction = direction
        actor_norm = direct(traces[0], delta, moments[0], beta2, correction, eps, actor_direction)

    out[2], out[3] = log_prob, entropy
    out[4] = choose_step_size(optimizer, learning_rates[0], kappas[0], delta, actor_norm)
    out[5] = choose_step_size(optimizer, learning_rates[1], kappas[1], delta, critic_norm)
    out[6], out[7] = out[4] * abs(delta) * actor_norm, out[5] * abs(delta) * critic_norm
    if not (out[6] <= LONGEST_STEP and out[7] <= LONGEST_STEP):
        return 2
    move(critic, critic_direction, np.float32(out[5] * delta))
    move(actor, actor_direction, np.float32(out[4] * delta))
    return 0


def predict(
    table: np.ndarray, numbers: np.ndarray, memory: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], x: np.ndarray
) -> Any:
    """The outputs for a state; they lie in the memory."""
    values, before, scales, _ = memory
    return values[forward(table, numbers, x, values, before, scales) :]
