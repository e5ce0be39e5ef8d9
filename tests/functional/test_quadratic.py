"""The quadratic form against slow and obvious versions, in float64."""

import math

import numpy as np
import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st

from sb3_pg_ext.functional.quadratic import (
    LOG_DIAGONAL_BOUND,
    advantage,
    cholesky_factor,
    n_cholesky_entries,
    precision,
    precision_eigenvalues,
    sample,
)

each_dimension = pytest.mark.parametrize("d", [1, 2, 3, 6])


def draw(*shape, scale=2.0, seed=0, dtype=th.float64):
    return th.as_tensor(scale * np.random.default_rng(seed).standard_normal(shape), dtype=dtype)


def factor_by_hand(entries, d):
    """L entry by entry, from a list of numbers."""
    factor = [[0.0] * d for _ in range(d)]
    below = iter(entries[d:])
    for i in range(d):
        factor[i][i] = math.exp(4 * math.tanh(entries[i] / 4))
        for j in range(i):
            factor[i][j] = factor[i][i] * math.tanh(next(below))
    return factor


def q_by_hand(value, action, best, factor):
    d = len(action)
    p = [[sum(factor[i][k] * factor[j][k] for k in range(d)) for j in range(d)] for i in range(d)]
    x = [a - m for a, m in zip(action, best, strict=True)]
    return value - 0.5 * sum(x[i] * p[i][j] * x[j] for i in range(d) for j in range(d))


@each_dimension
def test_the_factor_and_the_form(d):
    entries, actions, best = draw(5, n_cholesky_entries(d)), draw(5, d, seed=1), draw(5, d, seed=2)
    factor = cholesky_factor(entries, d)
    for n in range(5):
        expected = factor_by_hand(entries[n].tolist(), d)
        np.testing.assert_allclose(factor[n].numpy(), expected, rtol=1e-13)
        by_hand = q_by_hand(0.0, actions[n].tolist(), best[n].tolist(), expected)
        np.testing.assert_allclose(advantage(actions, best, factor)[n].item(), by_hand, rtol=1e-12)


@each_dimension
def test_further_dimensions_are_batches(d):
    entries, actions, best = draw(4, 2, n_cholesky_entries(d)), draw(4, 1, d, seed=1), draw(4, 2, d, seed=2)
    together = advantage(actions, best, cholesky_factor(entries, d))
    assert together.shape == (4, 2)
    for n, h in np.ndindex(4, 2):
        alone = advantage(actions[n, 0], best[n, h], cholesky_factor(entries[n, h], d))
        np.testing.assert_allclose(together[n, h].item(), alone.item(), rtol=1e-13)


@each_dimension
def test_gradients_are_those_of_finite_differences(d):
    entries, actions, best = (draw(2, n, seed=n).requires_grad_() for n in (n_cholesky_entries(d), d, d + 10))

    def form(entries, actions, best):
        return advantage(actions, best[:, :d], cholesky_factor(entries, d))

    assert th.autograd.gradcheck(form, (entries, actions, best))


@each_dimension
def test_the_gradient_in_the_action_is_minus_p_times_the_difference(d):
    factor, best = cholesky_factor(draw(3, n_cholesky_entries(d)), d), draw(3, d, seed=1)
    actions = draw(3, d, seed=2).requires_grad_()
    (gradient,) = th.autograd.grad(advantage(actions, best, factor).sum(), actions)
    expected = -th.einsum("bij,bj->bi", precision(factor), actions - best)
    np.testing.assert_allclose(gradient, expected.detach(), rtol=1e-11)


@each_dimension
def test_the_maximum_lies_at_the_best_action_and_nowhere_else(d):
    factor, best = cholesky_factor(draw(1000, n_cholesky_entries(d)), d), draw(1000, d, seed=1)
    assert th.equal(advantage(best, best, factor), th.zeros(1000, dtype=th.float64))
    assert (advantage(best + 1e-3 * draw(1000, d, seed=2), best, factor) < 0).all()


@each_dimension
def test_p_is_the_matrix_product(d):
    factor = cholesky_factor(draw(3, n_cholesky_entries(d)), d)
    np.testing.assert_allclose(precision(factor), np.stack([m @ m.T for m in factor.numpy()]), rtol=1e-13)
    expected = np.linalg.eigvalsh(precision(factor).numpy())[:, ::-1]
    np.testing.assert_allclose(precision_eigenvalues(factor), expected, rtol=1e-9)


def extreme(d):
    """Outputs of ±1e4 in many patterns, among them those that lead to the worst condition: L's inverse grows most."""
    signs = th.as_tensor(np.random.default_rng(0).choice([-1e4, 0.0, 1e4], (500, n_cholesky_entries(d))))
    worst = th.full((3, n_cholesky_entries(d)), -1e4)
    worst[1, :d] = 1e4
    worst[2, :d:2] = 1e4
    return th.cat([signs, worst]).float()


@each_dimension
def test_p_stays_positive_definite_in_float32(d):
    factor = cholesky_factor(extreme(d), d)
    assert factor.dtype == th.float32
    th.testing.assert_close(factor.tril(), factor, rtol=0, atol=0)
    diagonal = factor.diagonal(dim1=-2, dim2=-1)
    assert (diagonal >= math.exp(-LOG_DIAGONAL_BOUND) * (1 - 1e-6)).all()
    assert (diagonal <= math.exp(LOG_DIAGONAL_BOUND) * (1 + 1e-6)).all()
    assert (factor.abs() <= diagonal.unsqueeze(-1)).all()
    p = precision(factor)
    th.testing.assert_close(p, p.mT, rtol=0, atol=0)
    assert (th.linalg.cholesky_ex(p).info == 0).all()
    assert (th.linalg.eigvalsh(p.double()) > 0).all()
    assert (precision_eigenvalues(factor) > 0).all()


@each_dimension
def test_gradients_are_finite_for_extreme_outputs(d):
    entries = extreme(d).requires_grad_()
    actions = th.ones(len(entries), d)
    (gradient,) = th.autograd.grad(advantage(actions, -actions, cholesky_factor(entries, d)).sum(), entries)
    assert gradient.isfinite().all()


@each_dimension
def test_samples_have_the_covariance(d):
    n = 200_000
    factor = cholesky_factor(draw(n_cholesky_entries(d), scale=0.7), d)
    best = draw(d, seed=1)
    th.manual_seed(0)
    samples = sample(best.expand(n, d), factor.expand(n, d, d), temperature=0.3)
    expected = 0.3 * np.linalg.inv(precision(factor).numpy())
    # Where the covariance is the identity, no entry of its estimate scatters by more than √(2/n).
    root = np.linalg.cholesky(np.linalg.inv(expected))
    whitened = root.T @ np.cov(samples.T.numpy()).reshape(d, d) @ root
    np.testing.assert_allclose(whitened, np.eye(d), atol=5 * math.sqrt(2 / n))
    np.testing.assert_allclose(root.T @ (samples.mean(0) - best).numpy(), 0, atol=5 / math.sqrt(n))


@given(st.integers(1, 6), st.integers(0, 2**32 - 1), st.floats(-1e3, 1e3))
def test_a_shift_of_action_and_best_action_changes_nothing(d, seed, shift):
    entries, actions, best = (draw(n, seed=seed) for n in (n_cholesky_entries(d), d, d))
    factor = cholesky_factor(entries, d)
    best = best / 3
    shifted = advantage(actions + shift, best + shift, factor)
    np.testing.assert_allclose(shifted, advantage(actions, best, factor), rtol=1e-7, atol=1e-7)
