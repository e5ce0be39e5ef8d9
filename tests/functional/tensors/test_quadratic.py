"""The quadratic form against slow and obvious versions, in float64."""

import math

import numpy as np
import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st

from sb3_pg_ext.functional.tensors.quadratic import (
    LOG_DIAGONAL_BOUND,
    advantage,
    best_action,
    best_action_and_factor,
    n_outputs,
    precision_eigenvalues,
    sample,
)

each_dimension = pytest.mark.parametrize("d", [1, 2, 3, 6])


def draw(*shape, scale=2.0, seed=0):
    return th.as_tensor(scale * np.random.default_rng(seed).standard_normal(shape), dtype=th.float64)


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


def precision(factor):
    return factor @ factor.mT


@each_dimension
def test_parameters_and_the_form(d):
    outputs, actions = draw(5, n_outputs(d)), draw(5, d, seed=1)
    best, factor = best_action_and_factor(outputs, d)
    for n in range(5):
        best_by_hand, factor_by_hand = parameters_by_hand(outputs[n].tolist(), d)
        np.testing.assert_allclose(best[n], best_by_hand, rtol=1e-13)
        assert th.equal(best[n], best_action(outputs[n], d))
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
            above, below = array.clone(), array.clone()
            above[..., k] += 1e-6
            below[..., k] -= 1e-6
            pairs = [(x, actions) if array is outputs else (outputs, x) for x in (above, below)]
            upper, lower = (advantage(*pair).value for pair in pairs)
            np.testing.assert_allclose(gradient[..., k], (upper - lower) / 2e-6, rtol=1e-6, atol=1e-6)


@each_dimension
def test_gradients_are_those_of_autograd(d):
    outputs, actions = draw(4, n_outputs(d)).requires_grad_(), draw(4, d, seed=1).requires_grad_()
    best, factor = best_action_and_factor(outputs, d)
    value = -0.5 * (factor.mT @ (actions - best).unsqueeze(-1)).square().sum((-2, -1))
    expected = th.autograd.grad(value.sum(), (outputs, actions))
    with th.no_grad():
        for one, other in zip(advantage(outputs, actions)[1:], expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


@each_dimension
def test_the_gradient_in_the_action_is_minus_p_times_the_difference(d):
    outputs, actions = draw(3, n_outputs(d)), draw(3, d, seed=2)
    best, factor = best_action_and_factor(outputs, d)
    expected = -th.einsum("bij,bj->bi", precision(factor), actions - best)
    np.testing.assert_allclose(advantage(outputs, actions).of_actions, expected, rtol=1e-11)


@each_dimension
def test_the_maximum_lies_at_the_best_action_and_nowhere_else(d):
    outputs = draw(1000, n_outputs(d))
    best, _ = best_action_and_factor(outputs, d)
    assert th.equal(advantage(outputs, best).value, th.zeros(1000, dtype=th.float64))
    assert (advantage(outputs, best + 1e-3 * draw(1000, d, seed=2)).value < 0).all()


@each_dimension
def test_eigenvalues(d):
    _, factor = best_action_and_factor(draw(3, n_outputs(d)), d)
    expected = np.linalg.eigvalsh(precision(factor).numpy())[:, ::-1]
    np.testing.assert_allclose(precision_eigenvalues(factor), expected, rtol=1e-9)


def extreme(d):
    """Outputs of ±1e4 in many patterns, among them those that make the inverse of L largest."""
    signs = th.as_tensor(np.random.default_rng(0).choice([-1e4, 0.0, 1e4], (500, n_outputs(d))))
    worst = th.full((3, n_outputs(d)), -1e4)
    worst[1, d : 2 * d] = 1e4
    worst[2, d : 2 * d : 2] = 1e4
    return th.cat([signs, worst]).float()


@each_dimension
def test_p_stays_positive_definite_in_float32(d):
    best, factor = best_action_and_factor(extreme(d), d)
    assert factor.dtype == th.float32
    assert (best.abs() <= 1).all()
    th.testing.assert_close(factor.tril(), factor, rtol=0, atol=0)
    diagonal = factor.diagonal(dim1=-2, dim2=-1)
    assert (diagonal >= math.exp(-LOG_DIAGONAL_BOUND) * (1 - 1e-6)).all()
    assert (diagonal <= math.exp(LOG_DIAGONAL_BOUND) * (1 + 1e-6)).all()
    assert (factor.abs() <= diagonal.unsqueeze(-1)).all()
    p = precision(factor)
    th.testing.assert_close(p, p.mT, rtol=0, atol=0)
    assert (th.linalg.cholesky_ex(p).info == 0).all()
    assert (precision_eigenvalues(factor) > 0).all()


def test_how_small_an_eigenvalue_can_be():
    """The figures of the documentation: with a diagonal of ones 6·10⁻⁶ in ten dimensions, then a quarter each."""

    def smallest(d):
        _, factor = best_action_and_factor(extreme(d).double(), d)
        return float(precision_eigenvalues(factor / factor.norm(dim=-1, keepdim=True)).min())

    _, in_float32 = best_action_and_factor(extreme(10), 10)
    assert (th.linalg.cholesky_ex(precision(in_float32)).info == 0).all()
    assert smallest(10) == pytest.approx(6.4e-6, rel=0.02)
    assert smallest(11) / smallest(10) == pytest.approx(0.25, rel=0.02)


@each_dimension
def test_values_and_gradients_of_extreme_outputs(d):
    outputs = extreme(d)
    value, of_outputs, of_actions = advantage(outputs, th.ones(len(outputs), d))
    assert (value <= 0).all()
    assert of_outputs.isfinite().all()
    assert of_actions.isfinite().all()


@each_dimension
def test_samples_have_the_covariance(d):
    n = 200_000
    best, factor = best_action_and_factor(draw(n_outputs(d), scale=0.7), d)
    th.manual_seed(0)
    samples = sample(best.expand(n, d), factor.expand(n, d, d), temperature=0.3)
    expected = 0.3 * np.linalg.inv(precision(factor).numpy())
    # Where the covariance is the identity, no entry of its estimate scatters by more than √(2/n).
    root = np.linalg.cholesky(np.linalg.inv(expected))
    whitened = root.T @ np.cov(samples.T.numpy()).reshape(d, d) @ root
    np.testing.assert_allclose(whitened, np.eye(d), atol=5 * math.sqrt(2 / n))
    np.testing.assert_allclose(root.T @ (samples.mean(0) - best).numpy(), 0, atol=5 / math.sqrt(n))


@given(st.integers(1, 6), st.integers(0, 2**32 - 1), st.floats(0, 10))
def test_the_form_is_even_and_grows_with_the_square(d, seed, scale):
    outputs, step = draw(n_outputs(d), seed=seed), draw(d, seed=seed)
    best, _ = best_action_and_factor(outputs, d)
    one = advantage(outputs, best + step).value
    np.testing.assert_allclose(advantage(outputs, best - step).value, one, rtol=1e-9)
    np.testing.assert_allclose(advantage(outputs, best + scale * step).value, scale**2 * one, rtol=1e-9, atol=1e-9)
