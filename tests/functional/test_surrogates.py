"""Objectives whose gradients are policy gradients."""

import numpy as np
import torch as th

from sb3_pg_ext.functional.surrogates import policy_gradient_loss


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
