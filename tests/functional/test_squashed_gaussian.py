"""Squashed Gaussians against float64 autograd and integrals."""

import numpy as np
import pytest
import torch as th
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from sb3_pg_ext.functional.squashed_gaussian import SquashedGaussian

B, D = 7, 3


def draw(seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return scale * rng.normal(size=(B, D)), rng.normal(size=(B, D)), rng.normal(size=(B, D))


def oracle(mean, log_std, noise):
    """Actions and log-probabilities by PyTorch's own distributions, which invert the tanh from its cache."""
    mean, log_std = (th.tensor(x, dtype=th.float64, requires_grad=True) for x in (mean, log_std))
    base = Normal(mean, log_std.clamp(-20, 2).exp())
    squashed = TransformedDistribution(base, TanhTransform(cache_size=1))
    actions = squashed.transforms[0](mean + log_std.clamp(-20, 2).exp() * th.tensor(noise))
    return mean, log_std, actions, squashed.log_prob(actions).sum(1), base


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_samples_and_log_probs(scale):
    numbers = draw(scale=scale)
    samples = SquashedGaussian(*numbers)
    *_, actions, log_probs, _ = oracle(*numbers)
    np.testing.assert_allclose(samples.actions, actions.detach(), rtol=1e-12)
    np.testing.assert_allclose(samples.log_probs, log_probs.detach(), rtol=1e-10)


def test_the_gradient_along_the_path():
    numbers = draw()
    of_actions, of_log_probs = np.random.default_rng(1).normal(size=(B, D)), np.random.default_rng(2).normal(size=B)
    mean, log_std, actions, log_probs, _ = oracle(*numbers)
    loss = (th.tensor(of_actions) * actions).sum() + (th.tensor(of_log_probs) * log_probs).sum()
    expected = th.autograd.grad(loss, (mean, log_std))
    for ours, theirs in zip(SquashedGaussian(*numbers).pathwise(of_actions, of_log_probs), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-12)


def test_the_score():
    """That of the Gaussian: the tanh's Jacobian does not depend on the parameters where the action stays."""
    mean, log_std, noise = draw()
    weights = np.random.default_rng(1).normal(size=B)
    of_mean, of_log_std, *_, base = oracle(mean, log_std, noise)
    u = (of_mean + of_log_std.exp() * th.tensor(noise)).detach()
    expected = th.autograd.grad((th.tensor(weights) * base.log_prob(u).sum(1)).sum(), (of_mean, of_log_std))
    for ours, theirs in zip(SquashedGaussian(mean, log_std, noise).score(weights), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8)


def test_a_cut_off_deviation_has_no_derivative():
    mean, log_std, noise = draw()
    log_std[0], log_std[1] = 3.0, -21.0
    samples = SquashedGaussian(mean, log_std, noise)
    for _, of_log_std in (samples.pathwise(np.ones((B, D)), np.ones(B)), samples.score(np.ones(B))):
        assert not of_log_std[:2].any()
        assert of_log_std[2:].all()


def test_far_out_nothing_is_infinite():
    """There SB3's logarithm stops at that of 10⁻⁶."""
    samples = SquashedGaussian(np.float32([[40.0]]), np.float32([[0.0]]), np.float32([[1.0]]))
    assert samples.actions.dtype == samples.log_probs.dtype == np.float32
    np.testing.assert_allclose(samples.log_probs, -0.5 - 0.5 * np.log(2 * np.pi) - 2 * (np.log(2) - 41), rtol=1e-6)
    assert all(np.isfinite(x).all() for x in samples.pathwise(np.float32([[1.0]]), np.float32([1.0])))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.3), (0.7, 1.0), (-2.0, 0.5)])
def test_the_entropy(mean, std):
    """−E log π of samples is the integral of −π log π over actions."""
    edges = np.tanh(np.linspace(-12, 12, 200_001))
    a, width = 0.5 * (edges[1:] + edges[:-1]), np.diff(edges)
    density = np.exp(-0.5 * ((np.arctanh(a) - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi) * (1 - a * a))
    inside = density > 0
    expected = -np.sum(density[inside] * np.log(density[inside]) * width[inside])
    noise = np.random.default_rng(0).normal(size=(400_000, 1))
    log_probs = SquashedGaussian(np.full_like(noise, mean), np.full_like(noise, np.log(std)), noise).log_probs
    standard_error = log_probs.std() / np.sqrt(len(log_probs))
    assert abs(-log_probs.mean() - expected) < 4 * standard_error < 0.02
