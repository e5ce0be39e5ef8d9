"""The exact variances of both gradients, against samples and numerical derivatives."""

import numpy as np
import pytest
from score_and_reparametrization import (
    THETA,
    derivative,
    expectations,
    reparametrized_variance,
    reward,
    sampled_variances,
    score_variance,
    true_gradient,
)


@pytest.mark.parametrize("k", [0.0, 0.7, 2.0, 9.0])
def test_exact_variances_are_those_of_samples(k):
    score, reparametrized = sampled_variances(k, 3, 60_000, np.random.default_rng(0))
    assert score == pytest.approx(score_variance(k, 3), rel=0.05)
    assert reparametrized == pytest.approx(reparametrized_variance(k, 3), rel=0.02)


@pytest.mark.parametrize("k", [0.7, 2.0])
def test_the_gradient_is_that_of_the_expectation(k):
    z, step = np.linspace(-12, 12, 20_001), 1e-4
    density = np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    values = [density @ reward(THETA + sign * step + z, k) for sign in (1, -1)]
    assert true_gradient(k) == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-6)
    assert true_gradient(k) == pytest.approx(density @ derivative(THETA + z, k), abs=1e-9)
    assert true_gradient(k) == pytest.approx(density @ (reward(THETA + z, k) * z), abs=1e-9)
    assert expectations(k)[0] == pytest.approx(density @ reward(THETA + z, k))
