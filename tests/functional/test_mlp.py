"""The perceptron in NumPy against PyTorch and against loops."""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sb3_pg_ext.functional import mlp

ACTIVATIONS = {
    "identity": (mlp.identity, nn.Identity()),
    "tanh": (mlp.tanh, nn.Tanh()),
    "relu": (mlp.relu, nn.ReLU()),
    "leaky_relu": (mlp.leaky_relu, nn.LeakyReLU()),
    "steep leaky_relu": (partial(mlp.leaky_relu, negative_slope=0.3), nn.LeakyReLU(0.3)),
    "elu": (mlp.elu, nn.ELU()),
    "weak elu": (partial(mlp.elu, alpha=0.4), nn.ELU(0.4)),
    "sigmoid": (mlp.sigmoid, nn.Sigmoid()),
    "silu": (mlp.silu, nn.SiLU()),
}
each_activation = pytest.mark.parametrize(("ours", "theirs"), ACTIVATIONS.values(), ids=ACTIVATIONS.keys())


@each_activation
@given(x=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8))
def test_activations_in_double_precision(ours, theirs, x):
    np.testing.assert_allclose(ours(np.array(x)), theirs(th.tensor(x, dtype=th.float64)), rtol=1e-13, atol=1e-13)


@each_activation
def test_activations_of_extreme_numbers(ours, theirs):
    x = np.array([-3e38, -90, -0.0, 0.0, 90, 3e38], np.float32)
    np.testing.assert_allclose(ours(x.copy()), theirs(th.from_numpy(x)), rtol=1e-6, atol=1e-30)


@each_activation
def test_not_a_number_passes_through(ours, theirs):
    assert np.isnan(ours(np.array([[np.nan]], np.float32))).all()


def test_layer_norm():
    x = np.random.default_rng(0).normal(3, 5, (4, 7))
    expected = [(row - row.mean()) / math.sqrt(((row - row.mean()) ** 2).mean() + 1e-5) for row in x]
    np.testing.assert_allclose(mlp.layer_norm(x.copy()), expected, rtol=1e-13)
    np.testing.assert_allclose(mlp.layer_norm(x.copy(), 0.5), nn.functional.layer_norm(th.from_numpy(x), (7,), eps=0.5))


def test_composition():
    x = np.random.default_rng(0).normal(size=(4, 7))
    np.testing.assert_array_equal(mlp.compose(mlp.tanh, mlp.relu)(x.copy()), np.maximum(np.tanh(x), 0))
    assert mlp.compose(mlp.identity, mlp.relu) is mlp.relu


def random_layers(activations, widths=(5, 7, 3)):
    rng = np.random.default_rng(0)
    return [
        mlp.Layer(rng.normal(size=(outputs, inputs)), rng.normal(size=outputs), activation)
        for inputs, outputs, activation in zip(widths[:-1], widths[1:], activations, strict=True)
    ]


@each_activation
def test_forward_is_what_loops_give(ours, theirs):
    layers = random_layers([ours, mlp.identity])
    x = np.random.default_rng(1).normal(size=(4, 5))
    for row, output in zip(x, mlp.forward(layers, x), strict=True):
        hidden = [sum(w * v for w, v in zip(weights, row, strict=True)) for weights in layers[0].weight]
        hidden = [theirs(th.tensor(h + b)).item() for h, b in zip(hidden, layers[0].bias, strict=True)]
        expected = [sum(w * v for w, v in zip(weights, hidden, strict=True)) for weights in layers[1].weight]
        np.testing.assert_allclose(output, expected + layers[1].bias, rtol=1e-12, atol=1e-12)


def test_layers_without_bias():
    (layer,) = random_layers([mlp.identity], widths=(5, 3))
    x = np.ones((2, 5))
    np.testing.assert_allclose(mlp.forward([layer._replace(bias=None)], x), x @ layer.weight.T, rtol=1e-15)


@each_activation
@pytest.mark.parametrize("activate_first", [False, True])
def test_forward_leaves_its_arguments_alone(ours, theirs, activate_first):
    layers = random_layers([ours if activate_first else mlp.identity, ours])
    x = np.random.default_rng(1).normal(size=(4, 5))
    arguments = [x, *(array for layer in layers for array in (layer.weight, layer.bias))]
    before = [array.copy() for array in arguments]
    first, second = mlp.forward(layers, x), mlp.forward(layers, x)
    np.testing.assert_array_equal(first, second)
    for array, copy in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_single_precision_stays_single():
    layers = [
        layer._replace(weight=layer.weight.astype(np.float32), bias=layer.bias.astype(np.float32))
        for layer in random_layers([partial(mlp.elu, alpha=1.0), mlp.silu])
    ]
    assert mlp.forward(layers, np.ones((2, 5), np.float32)).dtype == np.float32


@pytest.mark.parametrize("activation", [mlp.tanh, mlp.relu, mlp.identity])
@pytest.mark.parametrize("biased", [True, False])
def test_vector_jacobian_products_are_those_of_autograd(activation, biased):
    rng = np.random.default_rng(0)
    sizes, batch = [3, 5, 4, 2], 6
    layers = [
        mlp.Layer(rng.normal(size=(m, n)), rng.normal(size=m) if biased else None, activation)
        for n, m in pairwise(sizes[:-1])
    ]
    layers.append(mlp.Layer(rng.normal(size=(sizes[-1], sizes[-2])), rng.normal(size=sizes[-1]), mlp.identity))
    x, cotangents = rng.normal(size=(batch, 3)), rng.normal(size=(batch, 2))

    y = th.from_numpy(x)
    expected = []
    for layer in layers:
        weight = th.tensor(layer.weight, requires_grad=True)
        bias = th.tensor(np.zeros(len(layer.weight)) if layer.bias is None else layer.bias, requires_grad=True)
        expected += [weight, bias]
        y = {mlp.tanh: th.tanh, mlp.relu: th.relu, mlp.identity: lambda z: z}[layer.activation](y @ weight.T + bias)
    gradients = th.autograd.grad(y, expected, th.from_numpy(cotangents))

    values = mlp.trace(layers, x)
    np.testing.assert_allclose(values[-1], y.detach(), rtol=1e-13)
    actual = [array for pair in mlp.vjp(layers, values, cotangents) for array in pair]
    for one, other in zip(actual, gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)
