"""KL(old‖new) against enumeration and numerical integration in double precision."""

from decimal import Decimal, localcontext
from itertools import product

import numpy as np
import pytest
import torch as th
from torch.distributions import Bernoulli, Categorical, Normal

from sb3_pg_ext.functional.tensors.divergences import kl

SIZES = (3, 2)  # of two discrete actions


def categorical(x):
    return Categorical(logits=x)


def multi_categorical(x):
    return [Categorical(logits=part) for part in x.split(SIZES, dim=1)]


def bernoulli(x):
    return Bernoulli(logits=x)


def normal(x):
    mean, log_std = x.chunk(2, dim=1)
    return Normal(mean, log_std.exp())


def softmax(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def enumerated(p, q):
    return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True))


def categorical_kl(old, new):
    return enumerated(softmax(old), softmax(new))


def joint(logits):
    first, second = softmax(logits[: SIZES[0]]), softmax(logits[SIZES[0] :])
    return [a * b for a, b in product(first, second)]


def multi_categorical_kl(old, new):
    return enumerated(joint(old), joint(new))


def bits(logits):
    chances = 1 / (1 + np.exp(-logits))
    return [
        np.prod([c if bit else 1 - c for c, bit in zip(chances, word, strict=True)])
        for word in product((0, 1), repeat=len(logits))
    ]


def bernoulli_kl(old, new):
    return enumerated(bits(old), bits(new))


def normal_kl(old, new):
    """Integrated on a grid, one dimension after the other."""
    total = 0.0
    for mean, log_std, new_mean, new_log_std in zip(*np.split(old, 2), *np.split(new, 2), strict=True):
        x = mean + np.exp(log_std) * np.linspace(-12, 12, 4001)
        log_p = -0.5 * ((x - mean) / np.exp(log_std)) ** 2 - log_std
        log_q = -0.5 * ((x - new_mean) / np.exp(new_log_std)) ** 2 - new_log_std
        density = np.exp(log_p) / np.sqrt(2 * np.pi)
        total += np.sum(density * (log_p - log_q)) * (x[1] - x[0])
    return total


KINDS = {
    "Categorical": (categorical, categorical_kl, 4),
    "MultiCategorical": (multi_categorical, multi_categorical_kl, 5),
    "Bernoulli": (bernoulli, bernoulli_kl, 3),
    "Normal": (normal, normal_kl, 4),
}
each_kind = pytest.mark.parametrize(("make", "oracle", "n_parameters"), KINDS.values(), ids=KINDS.keys())


@each_kind
def test_against_the_definition(make, oracle, n_parameters):
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=(2, 6, n_parameters))
    expected = [oracle(*pair) for pair in zip(old, new, strict=True)]
    np.testing.assert_allclose(kl(make(th.tensor(old)), make(th.tensor(new))), expected, rtol=1e-9)


@each_kind
def test_identities(make, oracle, n_parameters):
    old, new = th.tensor(np.random.default_rng(1).normal(size=(2, 1000, n_parameters)))
    divergences = kl(make(old), make(new))
    assert divergences.shape == (1000,)
    assert (divergences > 0).all()
    np.testing.assert_allclose(kl(make(old), make(old)), 0, atol=1e-14)
    np.testing.assert_allclose(divergences[7:8], kl(make(old[7:8]), make(new[7:8])), rtol=1e-12)


NEARLY_CERTAIN = [(16.0, 18.0), (18.0, 16.0), (-20.0, -17.0), (30.0, 90.0), (0.0, 120.0), (5.0, -200.0)]


@pytest.mark.parametrize(
    ("make", "rounding"),
    [(bernoulli, 1e-12), (lambda x: categorical(th.cat([x, th.zeros_like(x)], 1)), 2**-23)],  # of logits near 1
    ids=["Bernoulli", "Categorical"],
)
@pytest.mark.parametrize(("old", "new"), NEARLY_CERTAIN)
def test_policies_that_are_nearly_certain(make, rounding, old, new):
    """In single precision, where probabilities are rounded to 0 and 1, against exact arithmetic; with its gradient."""
    with localcontext() as context:
        context.prec = 60
        p, q = (1 / (1 + (-Decimal(x)).exp()) for x in (old, new))
        expected = float(p * (p / q).ln() + (1 - p) * ((1 - p) / (1 - q)).ln())
        gradient = float(q - p)
    logits = th.tensor([[new]], requires_grad=True)
    divergence = kl(make(th.tensor([[old]])), make(logits))
    assert divergence.item() == pytest.approx(expected, rel=1e-5, abs=rounding)
    (of_logits,) = th.autograd.grad(divergence.sum(), logits)
    assert of_logits.item() == pytest.approx(gradient, rel=1e-4, abs=1e-7)


def test_an_action_that_neither_takes():
    old, new = (Categorical(logits=th.tensor([[x, 0.0, -float("inf")]])) for x in (0.0, 1.0))
    two = [Categorical(logits=th.tensor([[x, 0.0]])) for x in (0.0, 1.0)]
    np.testing.assert_allclose(kl(old, new), kl(*two), rtol=1e-6)


def test_it_is_old_from_new():
    old, new = Normal(th.zeros(1, 1), th.ones(1, 1)), Normal(th.zeros(1, 1), 2 * th.ones(1, 1))
    np.testing.assert_allclose(kl(old, new), np.log(2) + 1 / 8 - 1 / 2, rtol=1e-6)
    np.testing.assert_allclose(kl(new, old), -np.log(2) + 2 - 1 / 2, rtol=1e-6)


def test_action_dimensions_are_summed():
    old, new = Normal(th.zeros(4, 3), th.ones(4, 3)), Normal(th.ones(4, 3), th.ones(4, 3))
    np.testing.assert_allclose(kl(old, new), [1.5] * 4)


def test_different_numbers_of_actions_are_an_error():
    x = th.zeros(2, 5)
    with pytest.raises(ValueError, match="zip"):
        kl(multi_categorical(x), multi_categorical(x)[:1])
