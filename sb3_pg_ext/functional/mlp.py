"""A multi-layer MLP in NumPy, with its derivatives.

With networks of the usual size (64-64) and batches of the usual size, PyTorch spends nearly all its time on
bookkeeping. These functions do the same sums without it, in single and in double precision.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

Parameters = list[tuple[np.ndarray, np.ndarray | None]]
"""Arrays of the shapes of every layer's weight and bias, first to last; None where there is no bias."""


class Activation(NamedTuple):
    """A function of the rows of an array, y = f(x), with its derivative.

    :param function: x ↦ f(x); it may overwrite x
    :param product: (u, x, y) ↦ J u, where J is the Jacobian of a row. It is symmetric in all of these functions, so
        that J u serves as vector-Jacobian and as Jacobian-vector product. Where f overwrites x, x may be y
    :param kind: what it is called in :mod:`~sb3_pg_ext.functional.minibatch`; ``""`` if it is not there
    :param number: what that takes beside x
    """

    function: Callable[[np.ndarray], np.ndarray]
    product: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    kind: str = ""
    number: float = 1.0


tanh = Activation(lambda x: np.tanh(x, out=x), lambda u, x, y: u * (1 - y * y), "tanh")
"""Hyperbolic tangent."""

relu = Activation(lambda x: np.maximum(x, 0, out=x), lambda u, x, y: u * (y > 0), "relu")
"""max(x, 0)."""


def leaky_relu(negative_slope: float = 0.01) -> Activation:
    """x where x > 0, else negative_slope · x."""
    return Activation(
        lambda x: np.where(x > 0, x, negative_slope * x),
        lambda u, x, y: np.where(x > 0, u, negative_slope * u),
        "leaky_relu",
        negative_slope,
    )


def elu(alpha: float = 1.0) -> Activation:
    """x where x > 0, else α(eˣ − 1)."""
    return Activation(
        lambda x: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))),
        lambda u, x, y: np.where(x > 0, u, u * (y + alpha)),
        "elu",
        alpha,
    )


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))  # in this form it overflows nowhere


def _silu_product(u: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    s = _sigmoid(x)
    return u * (s + y * (1 - s))


sigmoid = Activation(_sigmoid, lambda u, x, y: u * y * (1 - y), "sigmoid")
"""1 / (1 + e⁻ˣ)."""

silu = Activation(lambda x: x * _sigmoid(x), _silu_product, "silu")
"""x · sigmoid(x)."""


def scale(factor: float) -> Activation:
    """factor · x."""
    return Activation(lambda x: np.multiply(x, factor, out=x), lambda u, x, y: u * factor, "scale", factor)


def layer_norm(eps: float = 1e-5) -> Activation:
    """(x − mean) / √(variance + eps) of every row (Ba et al., 2016), without gain and offset."""

    def deviation(centred: np.ndarray) -> np.ndarray:
        return np.sqrt(np.square(centred).mean(-1, keepdims=True) + eps)

    def function(x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        return np.divide(centred, deviation(centred), out=centred)

    def product(u: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        projected = u - u.mean(-1, keepdims=True) - y * (u * y).mean(-1, keepdims=True)
        return projected / deviation(x - x.mean(-1, keepdims=True))

    return Activation(function, product, "layer_norm", eps)


class Layer(NamedTuple):
    """One layer, x ↦ f(x Wᵀ + b).

    :param weight: W, shape [outputs, inputs], as PyTorch stores it
    :param bias: b, shape [outputs]; None for none
    :param activations: what f consists of, first to last
    """

    weight: np.ndarray
    bias: np.ndarray | None
    activations: tuple[Activation, ...] = ()


def laid_out(layers: Sequence[Layer], batch_size: int) -> list[Layer]:
    """Copy layers into the layout that is fastest for many passes of the same small batch size.

    Columns of weights lie together, and the biases are repeated for every row, since NumPy takes three times as long to
    broadcast them. A pass costs about two thirds.

    :param layers: the layers, first to last
    :param batch_size: the number of rows of all batches to come
    :return: the same functions; as copies they do not follow changes of the originals
    """
    return [
        layer._replace(
            weight=np.array(layer.weight, order="F"),
            bias=None if layer.bias is None else np.tile(layer.bias, (batch_size, 1)),
        )
        for layer in layers
    ]


def forward(layers: Sequence[Layer], x: np.ndarray) -> np.ndarray:
    """Pass a batch through the layers.

    :param layers: the layers, first to last
    :param x: inputs, shape [batch, inputs]; left as it is
    :return: outputs, shape [batch, outputs]
    """
    for weight, bias, activations in layers:
        # np.dot costs 0.7 µs less than @ on such small arrays.
        x = np.dot(x, weight.T)
        if bias is not None:
            x += bias
        for activation in activations:
            x = activation.function(x)
    return x


Trace = list[list[np.ndarray]]
"""What a pass leaves behind: of every layer its inputs, x Wᵀ + b, and what each of its activations made of it."""


def trace(layers: Sequence[Layer], x: np.ndarray) -> Trace:
    """Pass a batch through the layers, as :func:`forward` does, and keep what the derivatives need.

    :param layers: the layers, first to last
    :param x: inputs, shape [batch, inputs]
    :return: all values on the way; the last of the last layer are the outputs
    """
    values = []
    for weight, bias, activations in layers:
        z = np.dot(x, weight.T)
        if bias is not None:
            z += bias
        values.append([x, z])
        for index, activation in enumerate(activations):
            y = values[-1][-1]
            values[-1].append(activation.function(y.copy() if index else y))  # the former one's product may need y
        x = values[-1][-1]
    return values


def pulled_back(layers: Sequence[Layer], values: Trace, cotangents: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The gradients of Σ_bk c_bk·y_bk with respect to x Wᵀ + b of every layer, from the last to the first.

    :param layers: the layers, first to last
    :param values: what :func:`trace` has kept
    :param cotangents: c, shape [batch, outputs]; or several, [many, batch, outputs]
    :return: pairs of the layer's index and its gradient, [batch, outputs of that layer] or [many, batch, …]
    """
    multiply = np.dot if cotangents.ndim == 2 else np.matmul  # of several batches np.dot takes twenty times as long
    for index in range(len(layers) - 1, -1, -1):
        _, *steps = values[index]
        for activation, before, after in zip(layers[index].activations[::-1], steps[-2::-1], steps[:0:-1], strict=True):
            cotangents = activation.product(cotangents, before, after)
        yield index, cotangents
        if index:
            cotangents = multiply(cotangents, layers[index].weight)


def vjp(
    layers: Sequence[Layer], values: Trace, cotangents: np.ndarray, out: Parameters | None = None
) -> tuple[Parameters, np.ndarray]:
    """Vector-Jacobian products: the gradient of Σ_bk c_bk·y_bk with respect to weights and biases.

    :param layers: the layers, first to last
    :param values: what :func:`trace` has kept
    :param cotangents: c, shape [batch, outputs]
    :param out: arrays to write the gradients to; ``None`` for new ones
    :return: the gradients, and that with respect to x Wᵀ + b of the first layer, [batch, outputs of that layer]
    """
    if out is None:
        out = [(np.empty_like(layer.weight), None if layer.bias is None else layer.bias.copy()) for layer in layers]
    ones = np.ones(len(cotangents), cotangents.dtype)
    gradient = cotangents
    for index, gradient in pulled_back(layers, values, cotangents):
        weight_gradient, bias_gradient = out[index]
        np.dot(gradient.T, values[index][0], out=weight_gradient)
        if bias_gradient is not None:
            np.dot(ones, gradient, out=bias_gradient)  # a third of sum(0)
    return out, gradient


def input_vjp(layers: Sequence[Layer], values: Trace, cotangents: np.ndarray, columns: slice) -> np.ndarray:
    """The gradient of Σ_bk c_bk·y_bk with respect to some of the inputs, without that of weights: at half the cost.

    :param layers: the layers, first to last
    :param values: what :func:`trace` has kept
    :param cotangents: c, shape [batch, outputs]
    :param columns: which of the inputs
    :return: shape [batch, these inputs]
    """
    *_, (_, gradient) = pulled_back(layers, values, cotangents)
    return np.dot(gradient, layers[0].weight[:, columns])


def jvp(layers: Sequence[Layer], values: Trace, tangents: Parameters) -> np.ndarray:
    """Jacobian-vector products: how the outputs change with weights and biases.

    :param layers: the layers, first to last
    :param values: what :func:`trace` has kept
    :param tangents: the changes of weights and biases
    :return: the changes of the outputs to first order, shape [batch, outputs]
    """
    change: np.ndarray | None = None
    for layer, (x, *steps), (of_weight, of_bias) in zip(layers, values, tangents, strict=True):
        of_x = change
        change = np.dot(x, of_weight.T)
        if of_bias is not None:
            change += of_bias
        if of_x is not None:
            change += np.dot(of_x, layer.weight.T)
        for activation, before, after in zip(layer.activations, steps[:-1], steps[1:], strict=True):
            change = activation.product(change, before, after)
    assert change is not None
    return change
