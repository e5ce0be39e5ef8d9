"""Losses and their derivatives, against values by hand and against autograd in double precision."""

import numpy as np
import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st

from sb3_pg_ext.functional.surrogates import normalize, policy_gradient_loss, ratio_loss, value_loss

RATIOS = np.array([0.5, 0.85, 1.0, 1.1, 1.7])
ADVANTAGES = np.array([1.0, -2.0, 3.0, -4.0, 5.0])

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 20)
clip_ranges = st.none() | st.floats(0.01, 1.0)


def their_policy_gradient_loss(log_probs, advantages, denominator):
    return -(log_probs * advantages).sum() / denominator


def their_ratio_loss(log_probs, old_log_probs, advantages, clip_range=None):
    ratios = (log_probs - old_log_probs).exp()
    objective = ratios * advantages
    if clip_range is not None:
        objective = th.min(objective, ratios.clamp(1 - clip_range, 1 + clip_range) * advantages)
    return -objective.mean()


def their_value_loss(values, returns, old_values=None, clip_range=None):
    if clip_range is not None:
        values = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return th.nn.functional.mse_loss(values, returns)


def assert_same(ours, theirs, first, *arguments):
    """Loss and gradient in the first argument."""
    value, gradient = ours(first, *arguments)
    variable = th.tensor(first, requires_grad=True)
    expected = theirs(variable, *(th.tensor(a) if isinstance(a, np.ndarray) else a for a in arguments))
    (expected_gradient,) = th.autograd.grad(expected, variable)
    assert type(value) is float
    np.testing.assert_allclose(value, expected.item(), rtol=1e-10, atol=1e-10)
    assert gradient.shape == first.shape
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-10, atol=1e-10)


@given(seed=seeds, size=sizes, denominator=st.integers(1, 1000))
def test_policy_gradient_loss_against_autograd(seed, size, denominator):
    log_probs, advantages = np.random.default_rng(seed).normal(size=(2, size))
    assert_same(policy_gradient_loss, their_policy_gradient_loss, log_probs, advantages, denominator)


@given(seed=seeds, size=sizes, clip_range=clip_ranges)
def test_ratio_loss_against_autograd(seed, size, clip_range):
    log_probs, advantages = np.random.default_rng(seed).normal(size=(2, size))
    old_log_probs = log_probs + np.random.default_rng([seed, 1]).normal(0, 0.5, size)
    assert_same(ratio_loss, their_ratio_loss, log_probs, old_log_probs, advantages, clip_range)


@given(seed=seeds, size=sizes, clip_range=clip_ranges)
def test_value_loss_against_autograd(seed, size, clip_range):
    values, returns = np.random.default_rng(seed).normal(0, 3, size=(2, size))
    old_values = values + np.random.default_rng([seed, 1]).normal(0, 0.5, size)
    assert_same(value_loss, their_value_loss, values, returns, old_values, clip_range)


def test_policy_gradient_loss():
    loss = policy_gradient_loss(np.array([-1.0, -2.0, -3.0]), np.array([5.0, 0.0, -1.0]), 2)
    assert loss.value == -(-5 + 3) / 2
    np.testing.assert_array_equal(loss.gradient, [-2.5, 0, 0.5])


def test_ratio_loss():
    loss = ratio_loss(np.log(RATIOS) - 3, np.full(5, -3.0), ADVANTAGES)
    np.testing.assert_allclose(loss.value, -(0.5 - 1.7 + 3 - 4.4 + 8.5) / 5)
    np.testing.assert_allclose(loss.gradient, -RATIOS * ADVANTAGES / 5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_clipping_stops_where_the_ratio_has_gone_far_enough(sign):
    loss = ratio_loss(np.log(RATIOS), np.zeros(5), np.full(5, sign), clip_range=0.2)
    clipped = [min(r * sign, min(max(r, 0.8), 1.2) * sign) for r in RATIOS]
    np.testing.assert_allclose(loss.value, -np.mean(clipped))
    moving = RATIOS < 1.2 if sign > 0 else RATIOS > 0.8
    np.testing.assert_allclose(loss.gradient, -sign * RATIOS * moving / 5)


def test_the_clipped_objective_is_a_lower_bound():
    arguments = np.log(RATIOS), np.zeros(5), ADVANTAGES
    assert ratio_loss(*arguments, 0.1).value > ratio_loss(*arguments).value
    assert ratio_loss(*arguments, 0.7).value == ratio_loss(*arguments).value


def test_without_a_change_ratio_loss_is_the_policy_gradient():
    log_probs = np.array([-1.0, -2.0, -0.5, 0.3, 2.0])
    expected = policy_gradient_loss(log_probs, ADVANTAGES, 5).gradient
    for clip_range in (None, 0.2):
        loss = ratio_loss(log_probs, log_probs, ADVANTAGES, clip_range)
        np.testing.assert_allclose(loss.gradient, expected)
        np.testing.assert_allclose(loss.value, -ADVANTAGES.mean())


def test_value_loss():
    values, returns, old = np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.0, 3.0]), np.array([1.0, 1.0, 5.0])
    for arguments in [(), (old,)]:
        loss = value_loss(values, returns, *arguments)
        assert loss.value == pytest.approx((1 + 4 + 0) / 3)
        np.testing.assert_allclose(loss.gradient, np.array([-1, 2, 0]) * 2 / 3)
    loss = value_loss(values, returns, old, 0.5)
    assert loss.value == pytest.approx((1 + 1.5**2 + 1.5**2) / 3)
    np.testing.assert_allclose(loss.gradient, np.array([-1, 0, 0]) * 2 / 3)


@given(seed=seeds, size=st.integers(2, 20))
def test_normalization_is_that_of_torch(seed, size):
    advantages = np.random.default_rng(seed).normal(2, 5, size)
    tensor = th.tensor(advantages)
    expected = (tensor - tensor.mean()) / (tensor.std() + 1e-8)
    np.testing.assert_allclose(normalize(advantages), expected, rtol=1e-10, atol=1e-10)


def test_normalization():
    np.testing.assert_allclose(normalize(np.array([1.0, 2.0, 6.0])), np.array([-2, -1, 3]) / np.sqrt(7))
    np.testing.assert_array_equal(normalize(np.array([4.0])), [4])
    np.testing.assert_array_equal(normalize(np.full(3, 2.0)), [0, 0, 0])
    large = np.array([1, 2, 6], np.float32) * np.float32(1e30)
    np.testing.assert_allclose(normalize(large), np.array([-2, -1, 3]) / np.sqrt(7), rtol=1e-6)
    np.testing.assert_allclose(normalize(np.array([0.0, 2e-8])), np.array([-1, 1]) / (np.sqrt(2) + 1))


def every_result(dtype):
    log_probs, old, advantages = (array.astype(dtype) for array in (np.log(RATIOS), np.zeros(5), ADVANTAGES))
    losses = [
        policy_gradient_loss(log_probs, advantages, 3),
        ratio_loss(log_probs, old, advantages),
        ratio_loss(log_probs, old, advantages, 0.2),
        value_loss(log_probs, advantages),
        value_loss(log_probs, advantages, old, 0.2),
    ]
    arguments = [log_probs, old, advantages]
    return arguments, [*(loss.gradient for loss in losses), normalize(advantages)]


def test_single_precision_stays_single():
    arguments, results = every_result(np.float32)
    assert {array.dtype for array in [*arguments, *results]} == {np.dtype(np.float32)}


def test_arguments_are_left_alone():
    arguments, results = every_result(np.float64)
    for array, before in zip(arguments, (np.log(RATIOS), np.zeros(5), ADVANTAGES), strict=True):
        np.testing.assert_array_equal(array, before)
        assert not any(np.shares_memory(array, result) for result in results)


@np.errstate(over="ignore")
def test_a_clipped_ratio_that_overflows_has_no_gradient():
    loss = ratio_loss(np.float32([100, 0.1]), np.zeros(2, np.float32), np.ones(2, np.float32), 0.2)
    assert loss.value == pytest.approx(-(1.2 + np.exp(0.1)) / 2)
    np.testing.assert_allclose(loss.gradient, [0, -np.exp(0.1) / 2], rtol=1e-6)


@pytest.mark.parametrize("clip_range", [None, 0.2])
@np.errstate(over="ignore", invalid="ignore")
def test_bad_numbers_show(clip_range):
    """Where the loss is not finite, the gradient says so too, even behind a clip range."""
    for bad in (np.nan, 1e3):
        loss = ratio_loss(np.array([bad, 0.0]), np.zeros(2), np.array([-1.0, 1.0]), clip_range)
        assert not np.isfinite(loss.value)
        np.testing.assert_array_equal(np.isfinite(loss.gradient), [False, True])
    loss = value_loss(np.array([np.nan, 0.0]), np.zeros(2), np.zeros(2), clip_range)
    assert np.isnan(loss.value)
    np.testing.assert_array_equal(np.isfinite(loss.gradient), [False, True])
