"""The quadratic form against slow and obvious versions, in float64, and against PyTorch's autograd."""

import math

import numpy as np
import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st

from sb3_pg_ext.functional.quadratic import (
    LOG_DIAGONAL_BOUND,
    advantage,
    best_action,
    best_action_and_factor,
    n_outputs,
    precision,
    precision_eigenvalues,
    sample,
)
from sb3_pg_ext.functional.tensors import quadratic as tensors

each_dimension = pytest.mark.parametrize("d", [1, 2, 3, 6])


def draw(*shape, scale=2.0, seed=0):
    return scale * np.random.default_rng(seed).standard_normal(shape)


def parameters_by_hand(outputs, d):
    """μ and L entry by entry, from a list of numbers."""
    factor = [[0.0] * d for _ in range(d)]
    below = iter(outputs[2 * d :])
    for i in range(d):
        factor[i][i] = math.exp(4 * math.tanh(outputs[d + i] / 4))
        for j in range(i):
            factor[i][j] = factor[i][i] * math.tanh(next(below))
    return [math.tanh(m) for m in outputs[:d]], factor


def advantage_by_hand(action, best, factor):
    d = len(action)
    p = [[sum(factor[i][k] * factor[j][k] for k in range(d)) for j in range(d)] for i in range(d)]
    x = [a - m for a, m in zip(action, best, strict=True)]
    return -0.5 * sum(x[i] * p[i][j] * x[j] for i in range(d) for j in range(d))


@each_dimension
def test_parameters_and_the_form(d):
    outputs, actions = draw(5, n_outputs(d)), draw(5, d, seed=1)
    best, factor = best_action_and_factor(outputs, d)
    for n in range(5):
        best_by_hand, factor_by_hand = parameters_by_hand(outputs[n].tolist(), d)
        np.testing.assert_allclose(best[n], best_by_hand, rtol=1e-13)
        np.testing.assert_array_equal(best[n], best_action(outputs[n], d))
        np.testing.assert_allclose(factor[n], factor_by_hand, rtol=1e-13)
        by_hand = advantage_by_hand(actions[n].tolist(), best_by_hand, factor_by_hand)
        np.testing.assert_allclose(advantage(outputs, actions).value[n].item(), by_hand, rtol=1e-12)


@each_dimension
def test_further_dimensions_are_batches(d):
    outputs, actions = draw(4, 2, n_outputs(d)), draw(4, 2, d, seed=1)
    together = advantage(outputs, actions)
    assert together.value.shape == (4, 2)
    for n, h in np.ndindex(4, 2):
        for one, all_of_them in zip(advantage(outputs[n, h], actions[n, h]), together, strict=True):
            np.testing.assert_allclose(all_of_them[n, h], one, rtol=1e-13)


@each_dimension
def test_gradients_are_those_of_finite_differences(d):
    outputs, actions = draw(2, 3, n_outputs(d)), draw(2, 3, d, seed=1)
    _, of_outputs, of_actions = advantage(outputs, actions)
    for array, gradient in ((outputs, of_outputs), (actions, of_actions)):
        for k in range(array.shape[-1]):
            above, below = array.copy(), array.copy()
            above[..., k] += 1e-6
            below[..., k] -= 1e-6
            pairs = [(x, actions) if array is outputs else (outputs, x) for x in (above, below)]
            upper, lower = (advantage(*pair).value for pair in pairs)
            np.testing.assert_allclose(gradient[..., k], (upper - lower) / 2e-6, rtol=1e-6, atol=1e-6)


@each_dimension
def test_gradients_are_those_of_autograd(d):
    """With a number for every value, as in any loss: the gradient of Σ c·(Q − V)."""
    outputs, actions, c = draw(4, 3, n_outputs(d)), draw(4, 3, d, seed=1), draw(4, 3, seed=2)
    leaves = [th.from_numpy(array).requires_grad_() for array in (outputs, actions)]
    best, factor = tensors.best_action_and_factor(leaves[0], d)
    value = -0.5 * (factor.mT @ (leaves[1] - best).unsqueeze(-1)).square().sum((-2, -1))
    expected = th.autograd.grad(value, leaves, th.from_numpy(c))
    found = advantage(outputs, actions)
    np.testing.assert_allclose(found.value, value.detach(), rtol=1e-12)
    for one, other in zip(found[1:], expected, strict=True):
        np.testing.assert_allclose(c[..., None] * one, other, rtol=1e-10, atol=1e-12)


@each_dimension
def test_actions_are_repeated_for_every_head(d):
    outputs, actions = draw(4, 2, n_outputs(d)), draw(4, d, seed=1)
    expected = advantage(outputs, np.repeat(actions[:, None], 2, axis=1))
    for one, other in zip(advantage(outputs, actions[:, None]), expected, strict=True):
        np.testing.assert_array_equal(one, other)


@each_dimension
def test_inputs_are_left_as_they_are(d):
    outputs, actions = draw(4, n_outputs(d)), draw(4, d, seed=1)
    before = outputs.copy(), actions.copy()
    advantage(outputs, actions)
    best_action_and_factor(outputs, d)
    for now, then in zip((outputs, actions), before, strict=True):
        np.testing.assert_array_equal(now, then)


@each_dimension
def test_numbers_are_those_of_pytorch_in_single_precision(d):
    outputs, noise = draw(50, n_outputs(d)).astype(np.float32), draw(50, d, scale=1.0).astype(np.float32)
    by_numpy = best_action_and_factor(outputs, d)
    by_pytorch = tensors.best_action_and_factor(th.from_numpy(outputs), d)
    for one, other in zip(by_numpy, by_pytorch, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=1e-7)
    solved = th.linalg.solve_triangular(by_pytorch[1].mT, th.from_numpy(noise).unsqueeze(-1), upper=True).squeeze(-1)
    drawn = sample(*by_numpy, noise, temperature=0.3)
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn, by_pytorch[0] + 0.3**0.5 * solved, rtol=1e-5, atol=1e-5 * np.abs(drawn).max())


@each_dimension
def test_the_gradient_in_the_action_is_minus_p_times_the_difference(d):
    outputs, actions = draw(3, n_outputs(d)), draw(3, d, seed=2)
    best, factor = best_action_and_factor(outputs, d)
    expected = -np.einsum("bij,bj->bi", precision(factor), actions - best)
    np.testing.assert_allclose(advantage(outputs, actions).of_actions, expected, rtol=1e-11)


@each_dimension
def test_the_maximum_lies_at_the_best_action_and_nowhere_else(d):
    outputs = draw(1000, n_outputs(d))
    best, _ = best_action_and_factor(outputs, d)
    np.testing.assert_array_equal(advantage(outputs, best).value, 0)
    assert (advantage(outputs, best + 1e-3 * draw(1000, d, seed=2)).value < 0).all()


@each_dimension
def test_eigenvalues(d):
    _, factor = best_action_and_factor(draw(3, n_outputs(d)), d)
    expected = np.linalg.eigvalsh(precision(factor))[:, ::-1]
    np.testing.assert_allclose(precision_eigenvalues(factor), expected, rtol=1e-9)


def extreme(d):
    """Outputs of ±1e4 in many patterns, among them those that make the inverse of L largest."""
    signs = np.random.default_rng(0).choice([-1e4, 0.0, 1e4], (500, n_outputs(d)))
    worst = np.full((3, n_outputs(d)), -1e4)
    worst[1, d : 2 * d] = 1e4
    worst[2, d : 2 * d : 2] = 1e4
    return np.concatenate([signs, worst]).astype(np.float32)


@each_dimension
def test_p_stays_positive_definite_in_float32(d):
    best, factor = best_action_and_factor(extreme(d), d)
    assert factor.dtype == np.float32
    assert (np.abs(best) <= 1).all()
    np.testing.assert_array_equal(np.tril(factor), factor)
    diagonal = factor.diagonal(axis1=-2, axis2=-1)
    assert (diagonal >= math.exp(-LOG_DIAGONAL_BOUND) * (1 - 1e-6)).all()
    assert (diagonal <= math.exp(LOG_DIAGONAL_BOUND) * (1 + 1e-6)).all()
    assert (np.abs(factor) <= diagonal[..., None]).all()
    p = precision(factor)
    np.testing.assert_array_equal(p, p.swapaxes(-1, -2))
    np.linalg.cholesky(p)  # an error where that is impossible
    assert (precision_eigenvalues(factor) > 0).all()


def test_how_small_an_eigenvalue_can_be():
    """The figures of the documentation: with a diagonal of ones 6·10⁻⁶ in ten dimensions, then a quarter each."""

    def smallest(d):
        _, factor = best_action_and_factor(extreme(d).astype(np.float64), d)
        return float(precision_eigenvalues(factor / np.linalg.norm(factor, axis=-1, keepdims=True)).min())

    _, in_float32 = best_action_and_factor(extreme(10), 10)
    np.linalg.cholesky(precision(in_float32))  # an error where that is impossible
    assert smallest(10) == pytest.approx(6.4e-6, rel=0.02)
    assert smallest(11) / smallest(10) == pytest.approx(0.25, rel=0.02)


@each_dimension
def test_values_and_gradients_of_extreme_outputs(d):
    outputs = extreme(d)
    value, of_outputs, of_actions = advantage(outputs, np.ones((len(outputs), d), np.float32))
    assert (value <= 0).all()
    assert np.isfinite(of_outputs).all()
    assert np.isfinite(of_actions).all()


@each_dimension
def test_samples_have_the_covariance(d):
    n = 200_000
    best, factor = best_action_and_factor(draw(n_outputs(d), scale=0.7), d)
    samples = sample(best, factor, draw(n, d, scale=1.0), temperature=0.3)
    expected = 0.3 * np.linalg.inv(precision(factor))
    # Where the covariance is the identity, no entry of its estimate scatters by more than √(2/n).
    root = np.linalg.cholesky(np.linalg.inv(expected))
    whitened = root.T @ np.cov(samples.T).reshape(d, d) @ root
    np.testing.assert_allclose(whitened, np.eye(d), atol=5 * math.sqrt(2 / n))
    np.testing.assert_allclose(root.T @ (samples.mean(0) - best), 0, atol=5 / math.sqrt(n))


@given(st.integers(1, 6), st.integers(0, 2**32 - 1), st.floats(0, 10))
def test_the_form_is_even_and_grows_with_the_square(d, seed, scale):
    outputs, step = draw(n_outputs(d), seed=seed), draw(d, seed=seed)
    best, _ = best_action_and_factor(outputs, d)
    one = advantage(outputs, best + step).value
    np.testing.assert_allclose(advantage(outputs, best - step).value, one, rtol=1e-9)
    np.testing.assert_allclose(advantage(outputs, best + scale * step).value, scale**2 * one, rtol=1e-9, atol=1e-9)
