"""Traces and bounded steps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb3_pg_ext.functional import returns
from sb3_pg_ext.functional.eligibility import adaptive_obgd, decay_and_add, obgd, rmsprop, sgd

NUMBERS = st.floats(-1, 1, width=32)


@given(st.lists(NUMBERS, min_size=1, max_size=6), NUMBERS, st.floats(-100, 100), st.floats(0.01, 10), st.floats(1, 5))
def test_obgd_never_overshoots_on_a_quadratic(x, w, y, learning_rate, kappa):
    """Of ½(y − w·x)², with |x_i| ≤ 1: the error shrinks, and keeps its sign."""
    x = np.array(x)
    w = np.full(len(x), w)
    delta = y - w @ x
    step = obgd(x, delta, learning_rate, kappa)
    after = y - (w + step.scale * step.direction) @ x
    assert abs(after) <= abs(delta) * (1 + 1e-9)
    assert after * delta >= -1e-9 * delta**2
    assert step.step_size <= learning_rate


def test_sgd_overshoots():
    """Where ObGD does not: the test above can fail."""
    x = np.ones(4)
    step = sgd(x, 1.0, 1.0)
    assert 1.0 - step.scale * x @ step.direction == -3.0


def test_a_short_trace_is_not_bounded():
    trace = np.array([0.01, -0.02])
    assert obgd(trace, 0.5, 1.0, 2.0).step_size == 1.0
    bounded = obgd(100 * trace, -5.0, 1.0, 2.0)
    assert bounded.step_size == pytest.approx(1 / (2.0 * 5.0 * 3.0))
    assert bounded.length == pytest.approx(1 / 2.0)


def test_adaptive_obgd():
    trace, moments = np.array([0.3, -0.001]), np.array([0.04, 1e-6])
    expected = 0.999 * moments + 0.001 * (2.0 * trace) ** 2
    direction = trace / np.sqrt(expected / (1 - 0.999**7) + 1e-8)
    step = adaptive_obgd(trace, 2.0, 1.0, 3.0, moments, 7)
    np.testing.assert_allclose(moments, expected)
    np.testing.assert_allclose(step.direction, direction)
    assert step.step_size == pytest.approx(1 / (3.0 * 2.0 * np.abs(direction).sum()))


def test_rmsprop_puts_epsilon_within_the_root():
    gradient, moments = np.array([0.5, 0.0]), np.array([0.0, 0.1])
    step = rmsprop(gradient, 0.1, moments)
    np.testing.assert_allclose(moments, [0.001 * 0.25, 0.0999])
    np.testing.assert_allclose(step.scale * step.direction, [0.05 / np.sqrt(0.00025 + 1e-4), 0.0])


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_forward_and_backward_view_are_the_same(gamma, lam, seed):
    """Σ δ_t z_t = Σ A_t g_t, with the λ-weighted sum of errors A_t, over several episodes."""
    rng = np.random.default_rng(seed)
    deltas, gradients, ends = rng.normal(size=30), rng.normal(size=(30, 3)), rng.random(30) < 0.2
    trace, total = np.zeros(3), np.zeros(3)
    for delta, gradient, end in zip(deltas, gradients, ends, strict=True):
        decay_and_add(trace, gamma * lam, gradient)
        total += delta * trace
        trace *= not end
    advantages = returns.discounted_sum(deltas[:, None], gamma * lam * ~ends[:, None])
    np.testing.assert_allclose(total, (advantages * gradients).sum(0), rtol=1e-9, atol=1e-9)
