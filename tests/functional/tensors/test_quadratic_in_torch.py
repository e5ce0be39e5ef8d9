"""μ, L and samples by PyTorch: numbers by a slow and obvious version, in float64, and what autograd makes of them."""

import math

import numpy as np
import pytest
import torch as th

from sb3_pg_ext.functional.quadratic import LOG_DIAGONAL_BOUND, n_outputs
from sb3_pg_ext.functional.tensors.quadratic import best_action, best_action_and_factor, sample

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


def precision(factor):
    return factor @ factor.mT


@each_dimension
def test_parameters(d):
    outputs = draw(5, n_outputs(d))
    best, factor = best_action_and_factor(outputs, d)
    for n in range(5):
        best_by_hand, factor_by_hand = parameters_by_hand(outputs[n].tolist(), d)
        np.testing.assert_allclose(best[n], best_by_hand, rtol=1e-13)
        assert th.equal(best[n], best_action(outputs[n], d))
        np.testing.assert_allclose(factor[n], factor_by_hand, rtol=1e-13)


@each_dimension
def test_gradients_are_those_of_finite_differences(d):
    outputs, weights = draw(3, n_outputs(d)).requires_grad_(), [draw(3, d, seed=1), draw(3, d, d, seed=2)]

    def weighted(x):
        return sum((w * y).sum() for w, y in zip(weights, best_action_and_factor(x, d), strict=True))

    assert th.autograd.gradcheck(weighted, outputs)


@each_dimension
def test_further_dimensions_are_batches(d):
    outputs = draw(4, 2, n_outputs(d))
    together = best_action_and_factor(outputs, d)
    for n, h in np.ndindex(4, 2):
        for one, all_of_them in zip(best_action_and_factor(outputs[n, h], d), together, strict=True):
            np.testing.assert_allclose(all_of_them[n, h], one, rtol=1e-13)


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
