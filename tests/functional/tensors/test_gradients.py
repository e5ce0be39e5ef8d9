"""Gradients of single samples, against one backward pass for every sample."""

import pytest
import torch as th
from torch import nn

from sb3_pg_ext.functional.tensors.gradients import influential, per_sample_gradients


class Net(nn.Module):
    """f(x) = vᵀ tanh(W x + b), with an unused layer and a frozen parameter."""

    def __init__(self):
        super().__init__()
        self.idle = nn.Linear(2, 2)
        self.first = nn.Linear(3, 4)
        self.frozen = nn.Parameter(th.ones(4), requires_grad=False)
        self.last = nn.Parameter(th.randn(4))

    def forward(self, x):
        assert x.isfinite().all()  # a branch on values, like the validation of distributions
        return self.frozen * th.tanh(self.first(x)) @ self.last


@pytest.fixture
def net():
    with th.random.fork_rng():
        th.manual_seed(0)
        yield Net().double()


@pytest.fixture
def batch(net):
    return th.randn(5, 3, dtype=th.float64)


def names_of(net, parameters):
    return [next(name for name, p in net.named_parameters() if p is parameter) for parameter in parameters]


def test_parameters_without_influence_are_left_out(net, batch):
    parameters = influential(net(batch), list(net.parameters()))
    assert names_of(net, parameters) == ["last", "first.weight", "first.bias"]


def test_every_row_is_the_gradient_of_its_sample(net, batch):
    parameters = [net.first.weight, net.last]
    rows = [th.autograd.grad(net(x[None]).sum(), parameters) for x in batch]
    expected = th.stack([th.cat([gradient.flatten() for gradient in row]) for row in rows])
    gradients = per_sample_gradients(net(batch), parameters)
    assert gradients.shape == (5, 12 + 4)
    th.testing.assert_close(gradients, expected, rtol=1e-12, atol=1e-12)


def test_rows_add_up_to_the_gradient_of_the_batch(net, batch):
    parameters = influential(net(batch), list(net.parameters()))
    gradient = th.autograd.grad(net(batch).sum(), parameters)
    rows = per_sample_gradients(net(batch), parameters)
    th.testing.assert_close(rows.sum(0), th.cat([g.flatten() for g in gradient]), rtol=1e-12, atol=1e-12)


def test_the_formula(net):
    """∇_v vᵀ tanh(W x + b) = tanh(W x + b)."""
    x = th.tensor([[1.0, -2.0, 0.5]], dtype=th.float64)
    gradient = per_sample_gradients(net(x), [net.last])
    th.testing.assert_close(gradient, th.tanh(net.first(x)).detach(), rtol=1e-12, atol=1e-12)


def test_nothing_is_left_on_the_parameters(net, batch):
    outputs = net(batch)
    per_sample_gradients(outputs, influential(outputs, list(net.parameters())))
    assert all(parameter.grad is None for parameter in net.parameters())
