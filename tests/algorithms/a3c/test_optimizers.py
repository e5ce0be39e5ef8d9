"""The shared optimisers against loops in double precision and against PyTorch."""

import math

import numpy as np
import pytest
import torch as th
from torch import nn

from sb3_pg_ext.algorithms.a3c.shared_optimizers import SharedAdam, SharedRMSprop
from sb3_pg_ext.functional.finite import NonFiniteError


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


def state(optimizer):
    return {
        "parameter": optimizer.parameter.detach().clone(),
        **{k: v.clone() for k, v in optimizer.statistics.items()},
    }


LARGEST = float(np.finfo(np.float32).max)


@pytest.mark.parametrize("cls", [SharedRMSprop, SharedAdam])
@pytest.mark.parametrize(
    ("gradient", "learning_rate"),
    [
        (1.0, 3e38),
        (1.0, -3e38),
        (1.0, 1e300),
        (1.0, float("nan")),
        (1e25, 1e-3),
        (float("inf"), 1e-3),
        (float("nan"), 1e-3),
    ],
)
def test_a_step_that_is_not_finite_is_refused_and_leaves_everything_as_it_was(cls, gradient, learning_rate):
    parameter = nn.Parameter(th.tensor([0.5, -2.0, LARGEST]))
    optimizer = cls(parameter)
    parameter.grad = th.tensor([1e-3, -2.0, -0.5])
    optimizer.apply(1e-3)
    before = state(optimizer)
    parameter.grad = th.tensor([1e-3, gradient, -gradient])
    with (
        np.errstate(all="ignore"),
        pytest.raises(NonFiniteError, match=f"after a step of {cls.__name__} with learning"),
    ):
        optimizer.apply(learning_rate)
    th.testing.assert_close(state(optimizer), before, rtol=0, atol=0)


@pytest.mark.parametrize("cls", [SharedRMSprop, SharedAdam])
def test_whatever_the_gradients_nothing_that_is_not_finite_gets_in(cls):
    """Against looking at every number: of all magnitudes, with parameters near the largest number."""
    rng = np.random.default_rng(0)
    n_refused = 0
    for _ in range(300):
        parameter = nn.Parameter(th.from_numpy(rng.choice([-1, 1, 0.1], 5).astype(np.float32)) * LARGEST)
        optimizer = cls(parameter, eps=float(10 ** rng.uniform(-30, 0)))
        for _ in range(4):
            exponents = rng.uniform(-38, rng.uniform(-38, 38), 5)
            parameter.grad = th.from_numpy((rng.choice([-1, 1], 5) * 10**exponents).astype(np.float32))
            before = state(optimizer)
            try:
                with np.errstate(all="ignore"):
                    optimizer.apply(float(10 ** rng.uniform(-38, 38)))
            except NonFiniteError:
                n_refused += 1
                th.testing.assert_close(state(optimizer), before, rtol=0, atol=0)
            assert all(th.isfinite(tensor).all() for tensor in state(optimizer).values())
    assert 100 < n_refused < 1100


@pytest.mark.parametrize("cls", [SharedRMSprop, SharedAdam])
def test_a_step_that_was_tried_on_copies_is_the_same_step(cls, monkeypatch):
    ends = []
    for stretch in (None, math.inf):
        parameter = nn.Parameter(th.linspace(-1, 1, 7))
        optimizer = cls(parameter)
        if stretch is not None:
            monkeypatch.setattr(optimizer, "_stretch", lambda learning_rate: math.inf)
        for gradient in gradients():
            parameter.grad = th.from_numpy(gradient.astype(np.float32))
            optimizer.apply(1e-2)
        ends.append(state(optimizer))
    th.testing.assert_close(*ends, rtol=0, atol=0)
