"""Objectives whose gradients are policy gradients."""

import numpy as np
import pytest
import torch as th

from sb3_pg_ext.functional.surrogates import normalize, policy_gradient_loss, ratio_loss, value_loss


def test_value_and_gradient():
    log_probs = th.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    advantages = th.tensor([5.0, 0.0, -1.0])
    loss = policy_gradient_loss(log_probs, advantages, 2)
    loss.backward()
    assert loss.item() == -(-5 + 3) / 2
    np.testing.assert_allclose(log_probs.grad, [-2.5, 0, 0.5])


def test_advantages_get_no_gradient():
    log_probs, advantages = th.zeros(2, requires_grad=True), th.ones(2, requires_grad=True)
    policy_gradient_loss(log_probs, advantages, 1).backward()
    assert advantages.grad is None


RATIOS = [0.5, 0.85, 1.0, 1.1, 1.7]


def test_ratio_loss():
    ratios, advantages = th.tensor(RATIOS, requires_grad=True), th.tensor([1.0, -2.0, 3.0, -4.0, 5.0])
    loss = ratio_loss(ratios, advantages)
    loss.backward()
    np.testing.assert_allclose(loss.item(), -(0.5 - 1.7 + 3 - 4.4 + 8.5) / 5, rtol=1e-6)
    np.testing.assert_allclose(ratios.grad, -advantages / 5, rtol=1e-6)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_clipping_stops_where_the_ratio_has_gone_far_enough(sign):
    ratios, advantages = th.tensor(RATIOS, requires_grad=True), sign * th.ones(5)
    loss = ratio_loss(ratios, advantages, clip_range=0.2)
    loss.backward()
    clipped = [min(r * sign, min(max(r, 0.8), 1.2) * sign) for r in RATIOS]
    np.testing.assert_allclose(loss.item(), -np.mean(clipped), rtol=1e-6)
    moving = np.array(RATIOS) < 1.2 if sign > 0 else np.array(RATIOS) > 0.8
    np.testing.assert_allclose(ratios.grad, -sign * moving / 5, rtol=1e-6)


def test_the_clipped_objective_is_a_lower_bound():
    ratios, advantages = th.tensor(RATIOS), th.tensor([1.0, -2.0, 3.0, -4.0, 5.0])
    assert ratio_loss(ratios, advantages, 0.1) > ratio_loss(ratios, advantages)
    assert ratio_loss(ratios, advantages, 0.7) == ratio_loss(ratios, advantages)


def test_value_loss():
    values, returns = th.tensor([1.0, 2.0, 3.0]), th.tensor([2.0, 0.0, 3.0])
    old = th.tensor([1.0, 1.0, 5.0])
    assert value_loss(values, returns, old).item() == pytest.approx((1 + 4 + 0) / 3)
    assert value_loss(values, returns, old, 0.5).item() == pytest.approx((1 + 1.5**2 + 1.5**2) / 3)


def test_normalization():
    advantages = th.tensor([1.0, 2.0, 6.0])
    np.testing.assert_allclose(normalize(advantages), (advantages - 3) / np.sqrt(7), rtol=1e-6)
    assert normalize(th.tensor([4.0])).item() == 4
    assert (normalize(th.full((3,), 2.0)) == 0).all()
