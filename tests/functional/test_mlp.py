"""The MLP in NumPy, and its derivatives, against PyTorch in double precision and against loops."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from sb3_pg_ext.functional import mlp

ELEMENTWISE = {
    "tanh": (mlp.tanh, th.tanh),
    "relu": (mlp.relu, th.relu),
    "leaky_relu": (mlp.leaky_relu(), nn.LeakyReLU()),
    "steep leaky_relu": (mlp.leaky_relu(0.3), nn.LeakyReLU(0.3)),
    "elu": (mlp.elu(), nn.ELU()),
    "weak elu": (mlp.elu(0.4), nn.ELU(0.4)),
    "sigmoid": (mlp.sigmoid, th.sigmoid),
    "silu": (mlp.silu, nn.SiLU()),
    "scale": (mlp.scale(0.3), lambda x: 0.3 * x),
}
NORMS = {
    "layer_norm": (mlp.layer_norm(), lambda x: functional.layer_norm(x, x.shape[-1:])),
    "soft layer_norm": (mlp.layer_norm(0.5), lambda x: functional.layer_norm(x, x.shape[-1:], eps=0.5)),
}
ACTIVATIONS = ELEMENTWISE | NORMS
each_elementwise = pytest.mark.parametrize(("ours", "theirs"), ELEMENTWISE.values(), ids=ELEMENTWISE.keys())

CHAINS = [
    (),
    *((name,) for name in ACTIVATIONS),
    ("layer_norm", "relu"),
    ("layer_norm", "tanh"),
    ("tanh", "layer_norm"),
    ("tanh", "scale"),
    ("scale", "tanh"),
    ("elu", "tanh", "sigmoid"),
    ("silu", "relu", "layer_norm", "relu"),
]
"""What may follow a linear layer, by name."""
each_chain = pytest.mark.parametrize("chain", CHAINS, ids="+".join)
biased_or_not = pytest.mark.parametrize("biased", [True, False])


def make_layers(rng, sizes, chains, biased=True, dtype=np.float64):
    return [
        mlp.Layer(
            rng.normal(size=(outputs, inputs)).astype(dtype),
            rng.normal(size=outputs).astype(dtype) if biased else None,
            tuple(ACTIVATIONS[name][0] for name in chain),
        )
        for (inputs, outputs), chain in zip(pairwise(sizes), chains, strict=True)
    ]


def present(parameters):
    """All arrays, layer by layer, without the missing biases."""
    return [array for pair in parameters for array in pair[:2] if array is not None]


def changes_like(rng, layers):
    return [
        tuple(None if a is None else rng.normal(size=a.shape).astype(a.dtype) for a in layer[:2]) for layer in layers
    ]


class Oracle:
    """The same MLP in PyTorch: a function of its parameters and of an offset to the first layer's x Wᵀ + b."""

    def __init__(self, layers, chains, x):
        self.biased = [layer.bias is not None for layer in layers]
        self.chains, self.x = chains, th.from_numpy(x)
        self.arguments = (
            th.zeros(len(x), len(layers[0].weight), dtype=th.float64),
            *map(th.from_numpy, present(layers)),
        )

    def __call__(self, offset, *parameters):
        x, rest = self.x, iter(parameters)
        for index, (biased, chain) in enumerate(zip(self.biased, self.chains, strict=True)):
            x = x @ next(rest).T
            if biased:
                x = x + next(rest)
            if index == 0:
                x = x + offset
            for name in chain:
                x = ACTIVATIONS[name][1](x)
        return x

    def vjp(self, cotangents):
        """Of the parameters, and of the offset."""
        _, (of_offset, *of_parameters) = th.autograd.functional.vjp(self, self.arguments, th.from_numpy(cotangents))
        return of_parameters, of_offset

    def jvp(self, changes):
        tangents = (th.zeros_like(self.arguments[0]), *map(th.from_numpy, present(changes)))
        return th.autograd.functional.jvp(self, self.arguments, tangents)[1]


def assert_close(one, other):
    np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)


def assert_is_what_autograd_gives(rng, sizes, chains, biased, batch):
    layers, x = make_layers(rng, sizes, chains, biased), rng.normal(size=(batch, sizes[0]))
    cotangents, changes = rng.normal(size=(batch, sizes[-1])), changes_like(rng, layers)
    oracle, values = Oracle(layers, chains, x), mlp.trace(layers, x)
    outputs = oracle(*oracle.arguments)
    assert_close(mlp.forward(layers, x), outputs)
    assert_close(values[-1][-1], outputs)
    gradients, of_first = mlp.vjp(layers, values, cotangents)
    expected, expected_of_first = oracle.vjp(cotangents)
    for one, other in zip(present(gradients), expected, strict=True):
        assert_close(one, other)
    assert_close(of_first, expected_of_first)
    assert_close(mlp.jvp(layers, values, changes), oracle.jvp(changes))


@biased_or_not
@each_chain
def test_every_chain_of_activations_against_autograd(chain, biased):
    assert_is_what_autograd_gives(np.random.default_rng(0), [3, 5, 4, 2], [chain, chain, ()], biased, batch=6)


@biased_or_not
@each_chain
def test_a_single_layer_against_autograd(chain, biased):
    assert_is_what_autograd_gives(np.random.default_rng(1), [3, 4], [chain], biased, batch=5)


@settings(max_examples=50)
@given(data=st.data())
def test_every_size_against_autograd(data):
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=2, max_size=5))
    chains = data.draw(st.lists(st.sampled_from(CHAINS), min_size=len(sizes) - 1, max_size=len(sizes) - 1))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    assert_is_what_autograd_gives(rng, sizes, chains, data.draw(st.booleans()), data.draw(st.integers(1, 6)))


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), chains=st.lists(st.sampled_from(CHAINS), min_size=1, max_size=3))
def test_the_two_products_are_adjoint(seed, chains):
    """⟨c, J t⟩ = ⟨Jᵀ c, t⟩."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 7, len(chains) + 1)
    layers = make_layers(rng, sizes, chains)
    values = mlp.trace(layers, rng.normal(size=(4, sizes[0])))
    c, t = rng.normal(size=(4, sizes[-1])), changes_like(rng, layers)
    gradients, _ = mlp.vjp(layers, values, c)
    terms = [(one * other).sum() for one, other in zip(present(gradients), present(t), strict=True)]
    product = mlp.jvp(layers, values, t)
    assert_close((c * product).sum(), sum(terms))


@each_elementwise
@given(x=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8))
def test_functions_in_double_precision(ours, theirs, x):
    expected = theirs(th.tensor(x, dtype=th.float64))
    np.testing.assert_allclose(ours.function(np.array(x)), expected, rtol=1e-13, atol=1e-13)


@each_elementwise
def test_extreme_numbers(ours, theirs):
    x = np.array([-3e38, -90, -0.0, 0.0, 90, 3e38], np.float32)
    tensor = th.tensor(x, requires_grad=True)
    expected = theirs(tensor)
    (slopes,) = th.autograd.grad(expected.sum(), tensor)
    before = x.copy()
    y = ours.function(x)
    np.testing.assert_allclose(y, expected.detach(), rtol=1e-6, atol=1e-30)
    # As in a trace: where the function has overwritten x, its derivative makes do with y.
    np.testing.assert_allclose(ours.product(np.ones(6, np.float32), x, y), slopes, rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(ours.product(np.ones(6, np.float32), before, y), slopes, rtol=1e-6, atol=1e-30)


@each_chain
def test_not_a_number_passes_through(chain):
    layers = make_layers(np.random.default_rng(0), [2, 3, 2], [chain, chain], dtype=np.float32)
    x = np.array([[np.nan, 1], [1, 1]], np.float32)
    outputs = mlp.forward(layers, x)
    assert np.isnan(outputs[0]).all()
    assert np.isfinite(outputs[1]).all()
    np.testing.assert_array_equal(mlp.trace(layers, x)[-1][-1], outputs)


def test_not_a_number_reaches_the_gradient():
    layers = make_layers(np.random.default_rng(0), [2, 3, 1], [("tanh",), ()])
    values = mlp.trace(layers, np.ones((2, 2)))
    (first, second), _ = mlp.vjp(layers, values, np.array([[1.0], [np.nan]]))
    assert all(np.isnan(array).all() for array in (*first, *second))


def test_layer_norm_is_what_loops_give():
    x = np.random.default_rng(0).normal(3, 5, (4, 7))
    expected = [(row - row.mean()) / math.sqrt(((row - row.mean()) ** 2).mean() + 1e-5) for row in x]
    np.testing.assert_allclose(mlp.layer_norm().function(x.copy()), expected, rtol=1e-13)


@each_elementwise
def test_forward_is_what_loops_give(ours, theirs):
    first, second = make_layers(np.random.default_rng(0), [5, 7, 3], [(), ()])
    layers = [first._replace(activations=(ours,)), second]
    x = np.random.default_rng(1).normal(size=(4, 5))
    for row, output in zip(x, mlp.forward(layers, x), strict=True):
        hidden = [sum(w * v for w, v in zip(weights, row, strict=True)) for weights in first.weight]
        hidden = [theirs(th.tensor(h + b)).item() for h, b in zip(hidden, first.bias, strict=True)]
        expected = [sum(w * v for w, v in zip(weights, hidden, strict=True)) for weights in second.weight]
        np.testing.assert_allclose(output, expected + second.bias, rtol=1e-12, atol=1e-12)


def test_gradients_by_hand():
    """y = 3·relu(2x + 1) − 1 at x = 2 and at x = −2, where it is flat."""
    layers = [
        mlp.Layer(np.array([[2.0]]), np.array([1.0]), (mlp.relu,)),
        mlp.Layer(np.array([[3.0]]), np.array([-1.0])),
    ]
    values = mlp.trace(layers, np.array([[2.0], [-2.0]]))
    np.testing.assert_array_equal(values[-1][-1], [[14], [-1]])
    (first, second), of_first = mlp.vjp(layers, values, np.array([[10.0], [100.0]]))
    np.testing.assert_array_equal(of_first, [[30], [0]])
    assert [*first, *second] == [60, 30, 50, 110]
    changes = [(np.array([[0.1]]), np.array([0.01])), (np.array([[1.0]]), np.array([0.5]))]
    np.testing.assert_allclose(mlp.jvp(layers, values, changes), [[3 * 0.21 + 5 + 0.5], [0.5]])


@biased_or_not
def test_gradients_are_written_where_they_are_wanted(biased):
    rng = np.random.default_rng(0)
    layers = make_layers(rng, [3, 5, 2], [("tanh",), ()], biased)
    values, cotangents = mlp.trace(layers, rng.normal(size=(6, 3))), rng.normal(size=(6, 2))
    expected, _ = mlp.vjp(layers, values, cotangents)
    out = [tuple(None if a is None else np.full_like(a, np.nan) for a in layer[:2]) for layer in layers]
    result, _ = mlp.vjp(layers, values, cotangents, out)
    assert result is out
    for one, other in zip(present(out), present(expected), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [bias is None for _, bias in expected] == [not biased] * 2


@each_chain
def test_single_precision_stays_single(chain):
    rng = np.random.default_rng(0)
    layers = make_layers(rng, [5, 4, 3], [chain, chain], dtype=np.float32)
    x, cotangents = rng.normal(size=(6, 5)).astype(np.float32), rng.normal(size=(6, 3)).astype(np.float32)
    values = mlp.trace(layers, x)
    gradients, of_first = mlp.vjp(layers, values, cotangents)
    product = mlp.jvp(layers, values, changes_like(rng, layers))
    arrays = [mlp.forward(layers, x), *(array for steps in values for array in steps), *present(gradients)]
    assert {array.dtype for array in [*arrays, of_first, product]} == {np.dtype(np.float32)}


@each_chain
def test_arguments_are_left_alone(chain):
    rng = np.random.default_rng(0)
    layers, x = make_layers(rng, [5, 4, 3], [chain, chain]), rng.normal(size=(6, 5))
    cotangents, changes = rng.normal(size=(6, 3)), changes_like(rng, layers)
    values = mlp.trace(layers, x)
    arguments = [x, cotangents, *present(layers), *present(changes), *(array for steps in values for array in steps)]
    before = [array.copy() for array in arguments]
    results = [
        (mlp.forward(layers, x), *present(mlp.vjp(layers, values, cotangents)[0]), mlp.jvp(layers, values, changes))
        for _ in range(2)
    ]
    for array, copy in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(array, copy)
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


@biased_or_not
@each_chain
def test_layers_that_are_laid_out_are_the_same_functions(chain, biased):
    rng = np.random.default_rng(0)
    layers, x = make_layers(rng, [5, 4, 3], [chain, ()], biased), rng.normal(size=(6, 5))
    laid_out = mlp.laid_out(layers, batch_size=6)
    expected = mlp.forward(layers, x)
    np.testing.assert_allclose(mlp.forward(laid_out, x), expected, rtol=1e-12)
    for array in present(layers):
        array += 1
    np.testing.assert_allclose(mlp.forward(laid_out, x), expected, rtol=1e-12)
