"""What is asked of PyTorch's distributions."""

import numpy as np
import pytest
import torch as th
from torch.distributions import Bernoulli, Categorical, Normal

from sb3_pg_ext.functional.tensors.distributions import (
    is_finite,
    join,
    parameters,
    parts,
    snapshot,
    take,
    unvalidated_distributions,
)

NORMAL = Normal(th.zeros(2, 3), th.ones(2, 3))
DISTRIBUTIONS = {
    "Normal": lambda x: Normal(x, x.exp()),
    "Categorical": lambda x: Categorical(logits=x),
    "Bernoulli": lambda x: Bernoulli(logits=x),
    "several": lambda x: [Categorical(logits=x[:, :1]), Categorical(logits=x[:, 1:])],
}
each = pytest.mark.parametrize("make", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS.keys())


def test_parts():
    assert list(parts(NORMAL)) == [NORMAL]
    assert list(parts([NORMAL, NORMAL])) == [NORMAL, NORMAL]


def test_parameters_are_logits_where_there_are_any():
    assert parameters(NORMAL).keys() == {"loc", "scale"}
    for by_probs in (Categorical(probs=th.tensor([[0.25, 0.75]])), Bernoulli(probs=th.tensor([[0.25, 0.75]]))):
        assert parameters(by_probs).keys() == {"logits"}


@each
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_bad_numbers_are_found(make, number):
    x = th.arange(6.0).reshape(2, 3)
    assert is_finite(make(x))
    x[1, 2] = number
    with unvalidated_distributions():
        assert not is_finite(make(x))


@each
def test_a_snapshot_stays_as_it_was(make):
    x = th.arange(6.0).reshape(2, 3).requires_grad_()
    original = make(x)
    copy = snapshot(original)
    before = [p.clone() for part in copy for p in parameters(part).values()]
    for part, copied in zip(parts(original), copy, strict=True):
        action = part.sample()
        np.testing.assert_allclose(part.log_prob(action).detach(), copied.log_prob(action), rtol=1e-6)
    with th.no_grad():
        x += 1
    for p, old in zip((p for part in copy for p in parameters(part).values()), before, strict=True):
        assert not p.requires_grad
        assert th.equal(p, old)


@each
@pytest.mark.parametrize("rows", [th.tensor([2, 0]), slice(1, 3)], ids=["indices", "slice"])
def test_rows_are_taken(make, rows):
    x = th.linspace(-1, 1, 12).reshape(4, 3)
    assert_same(take(make(x), rows), make(x[rows]))


@each
def test_batches_are_joined(make):
    x = th.linspace(-1, 1, 12).reshape(4, 3)
    assert_same(join([make(x[:1]), make(x[1:])]), make(x))


def assert_same(one, other):
    for part, expected in zip(parts(one), parts(other), strict=True):
        assert type(part) is type(expected)
        th.testing.assert_close(parameters(part), parameters(expected))
