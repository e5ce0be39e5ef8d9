"""Kronecker-factored curvature against dense matrices, in double precision."""

from itertools import pairwise

import numpy as np
import pytest
import torch as th

from sb3_pg_ext.functional import kronecker, mlp
from sb3_pg_ext.functional.finite import NonFiniteError
from sb3_pg_ext.functional.heads import Bernoulli, Categorical, DiagGaussian
from sb3_pg_ext.functional.kronecker import Block

RNG = np.random.default_rng(0)
HEADS = {
    "Discrete": (lambda outputs: Categorical(outputs, (4,)), lambda y: [th.distributions.Categorical(logits=y)]),
    "MultiDiscrete": (
        lambda outputs: Categorical(outputs, (2, 2)),
        lambda y: [th.distributions.Categorical(logits=part) for part in y.split(2, dim=1)],
    ),
    "MultiBinary": (Bernoulli, lambda y: [th.distributions.Bernoulli(logits=column) for column in y.unbind(1)]),
}


def network(sizes):
    """Layers with tanh between them, and none behind the last."""
    shapes = list(pairwise(sizes))
    return [
        mlp.Layer(RNG.normal(size=(m, n)) / n**0.5, RNG.normal(size=m), (mlp.tanh,) if i < len(shapes) - 1 else ())
        for i, (n, m) in enumerate(shapes)
    ]


def factors(layers, x, head):
    """A and G of every layer, exact in the actions."""
    values = mlp.trace(layers, x)
    found = {}
    for index, g in mlp.pulled_back(layers, values, head(values[-1][-1]).information_roots()):
        of_outputs = kronecker.output_factor(g.reshape(-1, g.shape[2]), len(x))
        found[index] = kronecker.input_factor(values[index][0], has_bias=True), of_outputs
    return [found[index] for index in range(len(layers))]


def dense_blocks(layers, x, distributions):
    """E_a[∇log π ∇log πᵀ] of every layer at one state, by summing over all actions; rows as in a flat [W b]."""
    weights = [th.tensor(np.column_stack([w, b]), requires_grad=True) for w, b, _ in layers]
    h = th.tensor(x)
    for layer, weight in zip(layers, weights, strict=True):
        h = th.cat([h, th.ones(len(h), 1, dtype=h.dtype)], 1) @ weight.T
        h = h.tanh() if layer.activations else h
    parts = distributions(h)
    blocks = [th.zeros(w.numel(), w.numel(), dtype=w.dtype) for w in weights]
    actions = th.cartesian_prod(*(part.enumerate_support().flatten() for part in parts)).reshape(-1, len(parts))
    for action in actions:
        log_prob = sum(part.log_prob(a) for part, a in zip(parts, action, strict=True)).sum()
        scores = th.autograd.grad(log_prob, weights, retain_graph=True)
        for block, score in zip(blocks, scores, strict=True):
            block += log_prob.exp().detach() * th.outer(score.flatten(), score.flatten())
    return [block.numpy() for block in blocks]


def decomposed(inputs, outputs):
    return Block(kronecker.decompose(inputs), kronecker.decompose(outputs))


def spd(n):
    root = RNG.normal(size=(n, n))
    return root @ root.T


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("sizes", [[3, 4], [3, 5, 6, 4]])
def test_is_the_fisher_matrix_where_there_is_one_state(kind, sizes):
    """Then the inputs of every layer are certain, and its block is a Kronecker product."""
    head, distributions = HEADS[kind]
    layers, x = network(sizes), RNG.normal(size=(1, sizes[0]))
    blocks = dense_blocks(layers, x, distributions)
    for (inputs, outputs), block in zip(factors(layers, x, head), blocks, strict=True):
        np.testing.assert_allclose(np.kron(outputs, inputs), block, rtol=0, atol=1e-10)


def test_is_the_fisher_matrix_of_a_gaussian():
    """E[ggᵀ] of z/σ, z ~ N(0, 1), is diag(1/σ²), which the layer before sees through its Jacobian."""
    layers, x, log_std = network([3, 5, 2]), RNG.normal(size=(1, 3)), np.array([-0.3, 0.7])
    (inputs, outputs), (_, of_mean) = factors(layers, x, lambda mean: DiagGaussian(mean, log_std))
    information = np.diag(np.exp(-2 * log_std))
    np.testing.assert_allclose(of_mean, information, rtol=0, atol=1e-12)
    hidden = np.tanh(x @ layers[0].weight.T + layers[0].bias)
    jacobian = layers[1].weight * (1 - hidden**2)
    np.testing.assert_allclose(outputs, jacobian.T @ information @ jacobian, rtol=0, atol=1e-12)
    np.testing.assert_allclose(inputs, np.outer([*x[0], 1], [*x[0], 1]), rtol=0, atol=1e-12)


def test_averages_factors_over_states():
    """The block is the mean of products; the approximation is the product of means."""
    head, distributions = HEADS["Discrete"]
    layers, x = network([3, 5, 4]), RNG.normal(size=(6, 3))
    of_states = [factors(layers, row[None], head) for row in x]
    for index, (inputs, outputs) in enumerate(factors(layers, x, head)):
        np.testing.assert_allclose(inputs, np.mean([f[index][0] for f in of_states], 0), atol=1e-12)
        np.testing.assert_allclose(outputs, np.mean([f[index][1] for f in of_states], 0), atol=1e-12)
        block = np.mean([np.kron(f[index][1], f[index][0]) for f in of_states], 0)
        dense = np.mean([dense_blocks(layers, row[None], distributions)[index] for row in x], 0)
        np.testing.assert_allclose(block, dense, atol=1e-10)
        assert np.abs(np.kron(outputs, inputs) - dense).max() > 1e-4


def test_is_exact_where_inputs_and_gradients_are_independent():
    """Every input with every gradient."""
    a, g = RNG.normal(size=(4, 3)), RNG.normal(size=(5, 2))
    pairs = [np.outer(b, a_).ravel() for a_ in a for b in g]
    exact = np.mean([np.outer(pair, pair) for pair in pairs], 0)
    approximation = np.kron(kronecker.output_factor(g, len(g)), kronecker.input_factor(a, has_bias=False))
    np.testing.assert_allclose(approximation, exact, atol=1e-12)


@pytest.mark.parametrize("damping", [1e-3, 1.0])
@pytest.mark.parametrize("singular", [False, True])
def test_precondition_solves_the_damped_system(damping, singular):
    inputs, outputs, gradient = spd(4), spd(3), RNG.normal(size=(3, 4))
    if singular:
        inputs = np.outer(inputs[0], inputs[0])
    found = kronecker.precondition(gradient, decomposed(inputs, outputs), damping)
    expected = np.linalg.solve(np.kron(outputs, inputs) + damping * np.eye(12), gradient.ravel())
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-8)


def test_is_invariant_under_a_linear_change_of_inputs():
    """With inputs M a, weights W M⁻¹ and no damping to speak of, the outputs change as before."""
    x, weight, change = RNG.normal(size=(50, 3)), RNG.normal(size=(4, 3)), RNG.normal(size=(3, 3)) + 2 * np.eye(3)
    weights_of_loss = RNG.normal(size=(50, 4))

    def change_of_outputs(inputs, weight):
        g = Bernoulli(inputs @ weight.T).information_roots().reshape(-1, 4)
        block = decomposed(kronecker.input_factor(inputs, has_bias=False), kronecker.output_factor(g, 50))
        return inputs @ kronecker.precondition(weights_of_loss.T @ inputs / 50, block, 1e-12).T

    other = change_of_outputs(x @ change.T, weight @ np.linalg.inv(change))
    np.testing.assert_allclose(other, change_of_outputs(x, weight), rtol=1e-6)


def test_curvature_is_the_quadratic_form():
    inputs, outputs, step = spd(4), spd(3), RNG.normal(size=(3, 4))
    expected = step.ravel() @ np.kron(outputs, inputs) @ step.ravel()
    assert kronecker.curvature(step, inputs, outputs) == pytest.approx(expected)


def test_condition_number_is_that_of_the_damped_matrix():
    inputs, outputs = spd(4), spd(3)
    expected = np.linalg.cond(np.kron(outputs, inputs) + 0.1 * np.eye(12))
    assert kronecker.condition_number(decomposed(inputs, outputs), 0.1) == pytest.approx(expected)


def test_running_average_is_a_plain_mean_at_first():
    numbers, average = [3.0, 5.0, 1.0, 7.0], 0.0
    for count, number in enumerate(numbers):
        average += kronecker.averaging_weight(count, 0.99) * (number - average)
    assert average == pytest.approx(np.mean(numbers))
    assert kronecker.averaging_weight(1000, 0.99) == pytest.approx(0.01)


@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_a_factor_that_is_not_finite_is_not_decomposed(spoilt):
    factor = spd(3)
    factor[0, 0] = spoilt
    with pytest.raises(NonFiniteError):
        kronecker.decompose(factor)


def test_negative_eigenvalues_become_0():
    values, vectors = kronecker.decompose(np.diag([1.0, -1e-9, 2.0]))
    np.testing.assert_allclose(values, [0, 1, 2])
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-15)


def test_trust_region():
    gradient, fisher = RNG.normal(size=12), np.kron(spd(3), spd(4))
    step = np.linalg.solve(fisher, gradient)
    scale = kronecker.trust_region(float(step @ gradient), rate=0.5, limit=1e-3)
    assert 0 < scale < 1
    moved = 0.5 * scale * step
    assert moved @ fisher @ moved == pytest.approx(1e-3)
    assert kronecker.trust_region(1e-9, rate=0.5, limit=1e-3) == 1
    assert kronecker.trust_region(0.0, rate=0.5, limit=1e-3) == 0
    assert kronecker.trust_region(-1.0, rate=0.5, limit=1e-3) == 0
    assert kronecker.trust_region(1.0, rate=0.0, limit=1e-3) == 1
    for spoilt in (np.nan, np.inf):
        with pytest.raises(NonFiniteError):
            kronecker.trust_region(spoilt, rate=0.5, limit=1e-3)
