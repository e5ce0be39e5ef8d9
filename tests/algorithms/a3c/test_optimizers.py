"""The shared optimisers against loops in double precision and against PyTorch."""

import math

import numpy as np
import pytest
import torch as th
from torch import nn

from sb3_pg_ext.algorithms.a3c.shared_optimizers import SharedAdam, SharedRMSprop


def gradients(n_steps=50, size=7):
    return np.random.default_rng(0).normal(size=(n_steps, size)) * np.logspace(-4, 2, size)


@pytest.mark.parametrize(("alpha", "eps"), [(0.99, 0.1), (0.99, 1e-5), (0.5, 1.0)])
def test_rmsprop_is_the_papers_formula(alpha, eps):
    theta = [0.1 * i for i in range(7)]
    g = [0.0] * 7
    parameter = nn.Parameter(th.tensor(theta, dtype=th.float64))
    optimizer = SharedRMSprop(parameter, alpha=alpha, eps=eps)
    for step, gradient in enumerate(gradients()):
        learning_rate = 1e-2 / (1 + step)
        for i, delta in enumerate(gradient):
            g[i] = alpha * g[i] + (1 - alpha) * delta**2
            theta[i] -= learning_rate * delta / math.sqrt(g[i] + eps)
        parameter.grad = th.from_numpy(gradient)
        optimizer.apply(learning_rate)
        np.testing.assert_allclose(parameter.detach(), theta, rtol=1e-12, atol=1e-14)


def test_the_first_step_of_rmsprop():
    """ε lies inside the root: with ε = 0.1 and a gradient of 0.5 the step is 0.5η/√(0.01·0.25 + 0.1)."""
    parameter = nn.Parameter(th.zeros(1, dtype=th.float64))
    parameter.grad = th.full_like(parameter, 0.5)
    SharedRMSprop(parameter, lr=7e-4, eps=0.1).step()
    assert parameter.item() == pytest.approx(-7e-4 * 0.5 / math.sqrt(0.1025), rel=1e-12)


def test_adam_is_pytorchs():
    parameters = [nn.Parameter(th.arange(7, dtype=th.float64)) for _ in range(2)]
    ours, theirs = SharedAdam(parameters[0], lr=1e-2), th.optim.Adam([parameters[1]], lr=1e-2, eps=1e-5)
    for gradient in gradients():
        for parameter in parameters:
            parameter.grad = th.from_numpy(gradient)
        ours.step()
        theirs.step()
        th.testing.assert_close(*parameters, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("cls", [SharedRMSprop, SharedAdam])
def test_the_state_is_there_from_the_start_and_can_be_shared(cls):
    optimizer = cls(nn.Parameter(th.zeros(3)))
    assert optimizer.statistics
    optimizer.share_memory()
    assert all(tensor.is_shared() for tensor in optimizer.statistics.values())


@pytest.mark.parametrize("cls", [SharedRMSprop, SharedAdam])
def test_a_copy_goes_on_like_the_original(cls):
    parameter = nn.Parameter(th.zeros(7, dtype=th.float64))
    optimizer = cls(parameter, lr=3e-3, eps=1e-2)
    *first, last = map(th.from_numpy, gradients(9))
    for gradient in first:
        parameter.grad = gradient
        optimizer.step()
    other = nn.Parameter(parameter.detach().clone())
    copy = optimizer.copy_to(other)
    parameter.grad = other.grad = last
    optimizer.step()
    copy.step()
    th.testing.assert_close(parameter, other, rtol=0, atol=0)
    assert copy.statistics["square_avg" if cls is SharedRMSprop else "exp_avg"].data_ptr() not in {
        tensor.data_ptr() for tensor in optimizer.statistics.values()
    }
