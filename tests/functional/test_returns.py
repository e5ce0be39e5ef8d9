"""The sums and estimators of functional.returns against slow loops in float64 and against each other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_pg_ext.functional import returns

SHAPES = [(1, 1), (7, 1), (50, 1), (1, 16), (40, 3), (40, 16)]


def draw(shape, seed=0, dtype=np.float32):
    """Temporal differences and episode ends, one of them on the last step."""
    rng = np.random.default_rng(seed)
    deltas = rng.normal(size=shape).astype(dtype)
    ends = rng.random(shape) < 0.15
    ends[-1, 0] = True
    return deltas, ends


def loop_sum(x, discounts, n=None):
    """Term by term, in float64."""
    steps, columns = x.shape
    y = np.zeros(x.shape)
    for column in range(columns):
        for t in range(steps):
            weight = 1.0
            for k in range(t, min(steps, t + (n or steps))):
                y[t, column] += weight * float(x[k, column])
                weight *= float(discounts[k, column])
    return y


def assert_matches(actual, oracle):
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, oracle, rtol=1e-5, atol=1e-5 * np.abs(oracle).max())


@pytest.mark.parametrize("shape", SHAPES)
def test_discounted_sum_matches_a_loop(shape):
    x, ends = draw(shape)
    discounts = np.where(ends, 0, 0.97).astype(np.float32)
    assert_matches(returns.discounted_sum(x, discounts), loop_sum(x, discounts))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 13, 39, 40, 41, 1000])
@pytest.mark.parametrize("shape", SHAPES)
def test_truncated_sum_matches_a_loop(shape, n):
    x, ends = draw(shape)
    discounts = np.where(ends, 0, 0.97).astype(np.float32)
    assert_matches(returns.truncated_sum(x, discounts, n), loop_sum(x, discounts, n))


def test_golden_values():
    x = np.array([[1.0], [2.0], [4.0]])
    discounts = np.array([[0.5], [0.25], [9.0]])
    np.testing.assert_array_equal(returns.discounted_sum(x, discounts), [[2.5], [3.0], [4.0]])
    np.testing.assert_array_equal(returns.truncated_sum(x, discounts, 2), [[2.0], [3.0], [4.0]])
    np.testing.assert_array_equal(
        returns.td_errors(x, discounts, values=np.full((3, 1), 1.0), next_values=np.full((3, 1), 2.0)),
        [[1.0], [1.5], [21.0]],
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_float32_is_rounded_at_every_step(shape):
    x, ends = draw(shape)
    discounts = np.where(ends, 0, 0.97).astype(np.float32)
    expected = x.copy()
    for t in reversed(range(len(x) - 1)):
        expected[t] = x[t] + discounts[t] * expected[t + 1]
    np.testing.assert_array_equal(returns.discounted_sum(x, discounts), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [1, 8])
def test_dtype_is_kept_and_the_input_untouched(dtype, columns):
    deltas, ends = draw((20, columns), dtype=dtype)
    log_ratios = np.zeros_like(deltas)
    before = deltas.copy()
    for result in (
        returns.gae(deltas, ends, 0.99, 0.95),
        returns.n_step(deltas, ends, 0.99, 5),
        returns.upgo(deltas, ends, 0.99),
        *returns.vtrace(deltas, ends, 0.99, log_ratios),
        returns.gae(deltas, ends, np.float64(0.99), np.float64(0.95)),
        *returns.vtrace(deltas, ends, np.float64(0.99), log_ratios, np.float64(1), np.float64(1), np.float64(1)),
    ):
        assert result.dtype == dtype
        assert result.shape == deltas.shape
    np.testing.assert_array_equal(deltas, before)


@pytest.mark.parametrize("shape", SHAPES)
def test_vtrace_matches_the_recursion_of_the_paper(shape):
    rng = np.random.default_rng(3)
    deltas, ends = draw(shape)
    log_ratios = rng.normal(size=shape).astype(np.float32)
    gamma, rho_bar, c_bar, lambda_ = 0.97, 1.5, 1.2, 0.8
    values = rng.normal(size=(shape[0] + 1, shape[1]))
    advantages, corrections = np.zeros(shape), np.zeros(shape)
    for column in range(shape[1]):
        target = values[-1, column]  # v_T = V(s_T)
        for t in reversed(range(shape[0])):
            ratio = np.exp(float(log_ratios[t, column]))
            bootstrap = values[t + 1, column]
            if ends[t, column]:
                target = bootstrap
            reward = float(deltas[t, column]) - gamma * bootstrap + values[t, column]
            advantages[t, column] = reward + gamma * (lambda_ * target + (1 - lambda_) * bootstrap) - values[t, column]
            target = (
                values[t, column]
                + min(rho_bar, ratio) * float(deltas[t, column])
                + gamma * lambda_ * min(c_bar, ratio) * (target - bootstrap)
            )
            corrections[t, column] = target - values[t, column]
    actual = returns.vtrace(deltas, ends, gamma, log_ratios, rho_bar, c_bar, lambda_)
    assert_matches(actual[0], advantages)
    assert_matches(actual[1], corrections)


def test_vtrace_caps_ratios_beyond_the_range_of_floats():
    deltas, ends = draw((6, 2))
    on_policy = returns.vtrace(deltas, ends, 0.9, np.zeros_like(deltas))
    far_off = returns.vtrace(deltas, ends, 0.9, np.full_like(deltas, 1e4))
    np.testing.assert_array_equal(far_off, on_policy)


@pytest.mark.parametrize("shape", SHAPES)
def test_upgo_matches_a_loop(shape):
    deltas, ends = draw(shape)
    oracle = np.zeros(shape)
    for column in range(shape[1]):
        for t in reversed(range(shape[0])):
            oracle[t, column] = deltas[t, column]
            if t + 1 < shape[0] and not ends[t, column] and deltas[t + 1, column] >= 0:
                oracle[t, column] += 0.97 * oracle[t + 1, column]
    assert_matches(returns.upgo(deltas, ends, 0.97), oracle)


def test_upgo_goes_on_where_the_next_step_is_exactly_as_good_as_its_value():
    deltas, ends = np.array([[1.0], [0.0], [2.0]]), np.zeros((3, 1), bool)
    np.testing.assert_array_equal(returns.upgo(deltas, ends, 0.5), [[1.5], [1.0], [2.0]])


@settings(deadline=None)
@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 6)),
    seed=st.integers(0, 2**16),
    gamma=st.floats(0, 1),
    gae_lambda=st.floats(0, 1),
)
def test_identities(shape, seed, gamma, gae_lambda):
    deltas, ends = draw(shape, seed, np.float64)
    gae = returns.gae(deltas, ends, gamma, gae_lambda)
    np.testing.assert_array_equal(returns.gae(deltas, ends, gamma, 0.0), deltas)
    np.testing.assert_array_equal(returns.n_step(deltas, ends, gamma, 1), deltas)
    np.testing.assert_allclose(
        returns.n_step(deltas, ends, gamma, shape[0]), returns.gae(deltas, ends, gamma, 1.0), atol=1e-12
    )
    for on_policy in returns.vtrace(deltas, ends, gamma, np.zeros(shape), lambda_=gae_lambda):
        np.testing.assert_array_equal(on_policy, gae)
    np.testing.assert_array_equal(
        returns.upgo(np.abs(deltas), ends, gamma), returns.gae(np.abs(deltas), ends, gamma, 1.0)
    )
    np.testing.assert_array_equal(returns.upgo(-np.abs(deltas) - 1, ends, gamma), -np.abs(deltas) - 1)


@pytest.mark.parametrize(
    ("x", "discounts", "message"),
    [
        (np.zeros(3), np.zeros(3), r"x has the shape \(3,\)"),
        (np.zeros((3, 2)), np.zeros((3, 1)), r"discounts is float64 of shape \(3, 1\)"),
        (np.zeros((3, 1), np.float32), np.zeros((3, 1)), "discounts is float64"),
    ],
)
@pytest.mark.parametrize("function", [returns.discounted_sum, lambda x, d: returns.truncated_sum(x, d, 2)])
def test_nothing_is_broadcast_or_promoted(function, x, discounts, message):
    with pytest.raises(ValueError, match=message):
        function(x, discounts)


def test_episode_ends_are_not_broadcast():
    with pytest.raises(ValueError, match=r"episode_ends has the shape \(1, 2\)"):
        returns.gae(np.zeros((3, 2)), np.zeros((1, 2), bool), 0.9, 0.9)
