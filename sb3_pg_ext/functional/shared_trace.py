"""One step of an actor-critic with one trace for all parameters, in one function, written for numba, which compiles it.

    z ← γλz + ∇(V + ½ log π),   g = δz + τ∇H,   v ← βv + (1 − β)g²,   w ← w + αg/√(v + ε)

The same sums as in :mod:`~sb3_pg_ext.functional.mlp` and :mod:`~sb3_pg_ext.functional.eligibility`, for a single state:
whatever is done to a weight before the step is done in one loop, and no gradient of a layer's weights is written down,
since it is a product of two vectors.

A part of the network, what actor and critic share or what follows of one of them, is a table as
:mod:`~sb3_pg_ext.functional.streaming` has it, the numbers beside it, and memory: what the layers make, the same before
the activation functions, and the factors of LayerNorm. A convolution is its weights, [filters, numbers], its biases,
where in a flat image every number of every patch lies, [places, numbers], and memory for the patches and for what the
filters make of them, [places, filters]; without one that has no places.
"""

import numpy as np

from sb3_pg_ext.functional.action_heads import bernoulli, categorical, gaussian, softplus_gaussian
from sb3_pg_ext.functional.action_heads import softplus as softplus
from sb3_pg_ext.functional.eligibility import LONGEST_STEP
from sb3_pg_ext.functional.minibatch import ZERO, array_at
from sb3_pg_ext.functional.minibatch import activate as activate  # which the others call, compiled with them
from sb3_pg_ext.functional.minibatch import multiply_by_slope as multiply_by_slope
from sb3_pg_ext.functional.minibatch import sigmoid as sigmoid
from sb3_pg_ext.functional.minibatch import tanh as tanh
from sb3_pg_ext.functional.streaming import (
    BIAS,
    BIAS_TRACE,
    INPUTS,
    NUMBER,
    OUTPUTS,
    WEIGHT,
    WEIGHT_TRACE,
    add,
    before_activations,
    forward,
    move,
    place,
)

Part = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
Convolution = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
Memory = tuple[np.ndarray, np.ndarray, np.ndarray]
"""The trace z, the moments v and the direction g/√(v + ε), each [P]."""
Coefficients = tuple[np.float32, np.float32, np.float32, np.float32, np.float32, np.float32]
"""γλ, δ, τ, β, 1 − β and ε."""


def features(convolution: Convolution, x: np.ndarray) -> np.ndarray:
    """What the filters make of an image, place by place; without a convolution the state itself.

    :param x: [inputs]
    """
    weight, bias, index, patches, y = convolution
    if len(index) == 0:
        return x
    for p in range(len(index)):
        for k in range(index.shape[1]):
            patches[p, k] = x[index[p, k]]
    np.dot(patches, weight.T, y)
    for p in range(len(index)):
        for f in range(len(bias)):
            y[p, f] = max(ZERO, y[p, f] + bias[f])
    return y.reshape(-1)


def outputs_of(part: Part, x: np.ndarray) -> np.ndarray:
    """What a part makes of its inputs, in its memory; without layers the inputs themselves."""
    table, numbers, values, before, scales = part
    if len(table) == 0:
        return x
    return values[forward(table, numbers, x, values, before, scales) :]


def update(part: Part, x: np.ndarray, u: np.ndarray, memory: Memory, chosen: Coefficients) -> tuple[float, np.ndarray]:
    """Update trace, moments and direction of a part's parameters.

    :param x: its inputs
    :param u: the gradients of V + ½ log π and of H with respect to its outputs, [2, outputs], overwritten
    :return: the sum of the direction's absolute values, and the gradients with respect to the inputs, [2, inputs]
    """
    table, numbers, values, before, scales = part
    trace, moments, direction = memory
    one = np.ones(1, np.float32)
    norm = 0.0
    end = len(values)
    of_source = u
    for i in range(len(table) - 1, -1, -1):
        n_outputs, n_inputs = table[i, OUTPUTS], table[i, INPUTS]
        start, first, skipped, joins = place(table, i, end)
        own = u[:, skipped : skipped + n_outputs].copy()
        for row in range(2):
            before_activations(table[i], numbers[i, NUMBER], scales[i], own[row], before[start:end], values[start:end])
        source = x if first == 0 else values[first - n_inputs : first]
        if not joins:
            of_source = np.zeros((2, n_inputs), np.float32)
        if table[i, WEIGHT]:
            offset = table[i, WEIGHT_TRACE]
            for k in range(n_outputs):
                a, b = offset + k * n_inputs, offset + (k + 1) * n_inputs
                norm += update_row(trace[a:b], moments[a:b], direction[a:b], own[0, k], own[1, k], source, chosen)
            of_source += np.dot(own, array_at(table[i, WEIGHT], (n_outputs, n_inputs)))
        if table[i, BIAS]:
            for k in range(n_outputs):
                a = table[i, BIAS_TRACE] + k
                b = a + 1
                norm += update_row(trace[a:b], moments[a:b], direction[a:b], own[0, k], own[1, k], one, chosen)
        if skipped == 0:
            u = of_source
        end = start
    return norm, of_source


def update_row(
    trace: np.ndarray,
    moments: np.ndarray,
    direction: np.ndarray,
    g: np.float32,
    h: np.float32,
    x: np.ndarray,
    chosen: Coefficients,
) -> float:
    """The same for parameters whose gradients are g·x and h·x."""
    decay, delta, tau, kept, new, eps = chosen
    norm = ZERO
    for j in range(len(x)):
        z = decay * trace[j] + g * x[j]
        d = delta * z + tau * (h * x[j])
        v = kept * moments[j] + new * (d * d)
        d = d / np.sqrt(v + eps)
        trace[j], moments[j], direction[j] = z, v, d
        norm += abs(d)
    return norm


def update_filters(
    convolution: Convolution, places: tuple[int, int], u: np.ndarray, memory: Memory, chosen: Coefficients
) -> float:
    """The same for a convolution.

    :param places: where its weights and its biases begin in the trace
    :param u: the gradients with respect to what it makes, [2, places·filters], overwritten
    """
    weight, bias, index, patches, y = convolution
    trace, moments, direction = memory
    n = len(bias)
    of_weight = np.empty((2, *weight.shape), np.float32)
    of_bias = np.zeros((2, n), np.float32)
    for row in range(2):
        own = u[row].reshape(y.shape)
        for p in range(len(index)):
            for f in range(n):
                if y[p, f] <= 0:
                    own[p, f] = 0
                of_bias[row, f] += own[p, f]
        of_weight[row] = np.dot(own.T, patches)
    g, h = of_weight[0].reshape(-1), of_weight[1].reshape(-1)
    one = np.ones(1, np.float32)
    norm = 0.0
    for k in range(len(g)):
        a = places[0] + k
        norm += update_row(trace[a : a + 1], moments[a : a + 1], direction[a : a + 1], g[k], h[k], one, chosen)
    for k in range(n):
        a = places[1] + k
        own_trace, own_moments, own_direction = trace[a : a + 1], moments[a : a + 1], direction[a : a + 1]
        norm += update_row(own_trace, own_moments, own_direction, of_bias[0, k], of_bias[1, k], one, chosen)
    return norm


def learn(
    convolution: Convolution,
    places: tuple[int, int],
    trunk: Part,
    actor: Part,
    critic: Part,
    head: int,
    sizes: np.ndarray,
    x: np.ndarray,
    action: np.ndarray,
    reward: float,
    terminated: bool,
    next_x: np.ndarray,
    memory: Memory,
    gamma: float,
    trace_decay: float,
    ent_coef: float,
    learning_rate: float,
    beta2: float,
    eps: float,
    out: np.ndarray,
) -> int:
    """Learn from one transition. Everything is float32, but for tables and numbers that stand alone.

    :param convolution: before the trunk, with the ``places`` of its weights and biases in the trace
    :param trunk: what actor and critic share
    :param actor: what follows, up to logits or means
    :param critic: what follows, up to V(s)
    :param head: which function of :data:`~sb3_pg_ext.functional.action_heads.HEADS`, and the ``sizes`` that it takes
    :param x: the state s
    :param action: a; choices, too, are float32
    :param reward: r
    :param terminated: whether there is no state s' to come
    :param next_x: s'
    :param memory: trace, moments and direction
    :param gamma: γ
    :param trace_decay: γλ
    :param ent_coef: τ
    :param learning_rate: α
    :param beta2: β
    :param eps: ε
    :param out: δ, V(s), log π(a|s), the entropy, and the sum of the step's absolute values
    :return: 0; 1 if δ is not finite, 2 if the step is not, or too long: then no parameter has changed
    """
    next_value = 0.0
    if not terminated:
        next_value = outputs_of(critic, outputs_of(trunk, features(convolution, next_x)))[0]
    seen = features(convolution, x)
    latent = outputs_of(trunk, seen)
    value = outputs_of(critic, latent)[0]
    delta = reward + gamma * next_value - value
    out[0], out[1] = delta, value
    if not np.isfinite(delta):
        return 1
    outputs = outputs_of(actor, latent)
    u = np.empty((2, len(outputs)), np.float32)
    for row in range(2):
        c = float(row)
        if head == 0:
            log_prob, entropy = categorical(outputs, sizes, action, c, u[row])
        elif head == 1:
            log_prob, entropy = bernoulli(outputs, sizes, action, c, u[row])
        elif head == 2:
            log_prob, entropy = gaussian(outputs, sizes, action, c, u[row])
        else:
            log_prob, entropy = softplus_gaussian(outputs, sizes, action, c, u[row])
    u[1] -= u[0]
    u[0] *= np.float32(0.5)
    of_value = np.zeros((2, 1), np.float32)
    of_value[0, 0] = np.float32(1)
    chosen = (
        np.float32(trace_decay),
        np.float32(delta),
        np.float32(ent_coef),
        np.float32(beta2),
        np.float32(1 - beta2),
        np.float32(eps),
    )
    norm, of_latent = update(actor, latent, u, memory, chosen)
    more, of_latent_too = update(critic, latent, of_value, memory, chosen)
    norm += more
    of_latent += of_latent_too
    if len(trunk[0]):
        more, of_latent = update(trunk, seen, of_latent, memory, chosen)
        norm += more
    if len(convolution[2]):
        norm += update_filters(convolution, places, of_latent, memory, chosen)

    out[2], out[3], out[4] = log_prob, entropy, learning_rate * norm
    if not out[4] <= LONGEST_STEP:
        return 2
    direction, rate = memory[2], np.float32(learning_rate)
    move(trunk[0], direction, rate)
    move(actor[0], direction, rate)
    move(critic[0], direction, rate)
    if len(convolution[2]):
        weight, bias = convolution[0].reshape(-1), convolution[1]
        add(weight, direction[places[0] : places[0] + len(weight)], rate)
        add(bias, direction[places[1] : places[1] + len(bias)], rate)
    return 0


def predict(convolution: Convolution, trunk: Part, actor: Part, x: np.ndarray) -> np.ndarray:
    """The actor's outputs for a state; they lie in its memory."""
    return outputs_of(actor, outputs_of(trunk, features(convolution, x)))
