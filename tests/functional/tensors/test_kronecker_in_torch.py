"""Kronecker factors of modules, against linear layers and explicit sums, in double precision."""

import numpy as np
import pytest
import torch as th
from torch import nn
from torch.distributions import Bernoulli, Categorical, Normal, Poisson

from sb3_pg_ext.functional import kronecker as arrays
from sb3_pg_ext.functional.tensors import kronecker


@pytest.fixture(autouse=True)
def seed():
    th.manual_seed(0)


@pytest.mark.parametrize("bias", [False, True])
def test_of_a_linear_layer_as_for_arrays(bias):
    layer, x, g = nn.Linear(3, 2, bias=bias).double(), th.randn(7, 3).double(), th.randn(7, 2).double()
    of_inputs = kronecker.input_factor(kronecker.positions_of_inputs(layer, x))
    of_outputs = kronecker.output_factor(kronecker.positions_of_outputs(layer, g))
    np.testing.assert_allclose(of_inputs, arrays.input_factor(x.numpy(), bias), atol=1e-12)
    np.testing.assert_allclose(of_outputs, arrays.output_factor(g.numpy(), 7), atol=1e-12)


def test_convolution_that_sees_everything_is_a_linear_layer():
    conv = nn.Conv2d(2, 3, kernel_size=4).double()
    x, g = th.randn(5, 2, 4, 4).double(), th.randn(5, 3, 1, 1).double()
    linear = nn.Linear(32, 3).double()
    th.testing.assert_close(kronecker.positions_of_inputs(conv, x), kronecker.positions_of_inputs(linear, x.flatten(1)))
    th.testing.assert_close(
        kronecker.positions_of_outputs(conv, g), kronecker.positions_of_outputs(linear, g.flatten(1))
    )


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"padding": 1}, {"dilation": 2, "padding": (2, 1)}])
def test_convolution_is_a_linear_layer_of_its_patches(options):
    """So the gradient of its weights is Σ_t g_t a_tᵀ, whose factors are those of the places t."""
    conv = nn.Conv2d(2, 3, kernel_size=(3, 2), **options).double()
    x = th.randn(4, 2, 7, 6).double()
    outputs = conv(x)
    cotangents = th.randn_like(outputs)
    weight, bias = th.autograd.grad(outputs, [conv.weight, conv.bias], cotangents)
    a, g = kronecker.positions_of_inputs(conv, x), kronecker.positions_of_outputs(conv, cotangents)
    matrix = th.einsum("btm,btn->mn", g, a)
    th.testing.assert_close(matrix, th.cat([weight.flatten(1), bias[:, None]], 1))
    n_places = outputs[0, 0].numel()
    assert a.shape == (4, n_places, 13)
    expected = sum(th.outer(a[b, t], a[b, t]) for b in range(4) for t in range(n_places)) / 4
    th.testing.assert_close(kronecker.input_factor(a), expected)
    expected = sum(th.outer(g[b, t], g[b, t]) for b in range(4) for t in range(n_places)) / (4 * n_places)
    th.testing.assert_close(kronecker.output_factor(g), expected)


def test_convolution_whose_places_are_uncorrelated_and_alike_has_this_very_fisher_matrix():
    """E[Σ_t g_t a_tᵀ ⊗ Σ_t g_t a_tᵀ] over independent signs of g_t, with the same a and g at every place."""
    a, g, n_places = th.randn(3).double(), th.randn(2).double(), 4
    signs = th.cartesian_prod(*[th.tensor([-1.0, 1.0]).double()] * n_places)
    gradients = [sum(s * th.outer(g, a) for s in row).flatten() for row in signs]
    exact = sum(th.outer(each, each) for each in gradients) / len(gradients)
    inputs = kronecker.input_factor(a.expand(len(signs), n_places, 3))
    outputs = kronecker.output_factor(signs[..., None] * g)
    th.testing.assert_close(th.kron(outputs, inputs), exact)


def test_knows_which_layers_it_knows():
    assert kronecker.has_factors(nn.Linear(2, 2))
    assert kronecker.has_factors(nn.Conv2d(2, 2, 1))

    class OwnLinear(nn.Linear):
        pass

    for layer in (
        OwnLinear(2, 2),
        nn.Conv2d(2, 2, 1, groups=2),
        nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(2, 2, 3, padding="same"),
        nn.LayerNorm(2),
        nn.LSTM(2, 2),
    ):
        assert not kronecker.has_factors(layer)


def test_roots_are_those_of_the_information():
    """Against the Hessian of KL(old‖π) at old, at one state."""
    std = th.rand(3).double() + 0.5
    for make, parameters in (
        (lambda logits: Categorical(logits=logits), [th.randn(1, 4).double()]),
        (lambda logits: Bernoulli(logits=logits), [th.randn(1, 3).double()]),
        (Normal, [th.randn(1, 3).double(), std[None]]),
    ):
        numbers = [p.requires_grad_() for p in parameters]
        roots = kronecker.information_roots(make(*numbers))
        sizes = [p.numel() for p in numbers]

        def divergence(flat, make=make, numbers=numbers, sizes=sizes):
            new = [part[None] for part in flat.split(sizes)]
            return th.distributions.kl_divergence(make(*(p.detach() for p in numbers)), make(*new)).sum()

        flat = th.cat([p.detach().flatten() for p in numbers])
        hessian = th.autograd.functional.hessian(divergence, flat)
        vectors = [th.autograd.grad(output, numbers, r, retain_graph=True, allow_unused=True) for output, r in roots]
        total = th.zeros_like(hessian)
        for vector in vectors:
            joined = th.cat(
                [th.zeros_like(p).flatten() if v is None else v.flatten() for p, v in zip(numbers, vector, strict=True)]
            )
            total += th.outer(joined, joined)
        th.testing.assert_close(total, hessian)
    with pytest.raises(TypeError, match="Poisson is not known"):
        kronecker.information_roots(Poisson(th.ones(1, 1).requires_grad_()))


def test_decomposes_as_for_arrays():
    root = th.randn(5, 5)
    values, vectors = kronecker.decompose(root @ root.T)
    th.testing.assert_close(vectors @ values.diag() @ vectors.T, root @ root.T)
