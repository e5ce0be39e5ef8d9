"""Gumbel-softmax against float64 autograd, block by block, and against enumeration."""

from itertools import pairwise

import numpy as np
import pytest
import torch as th

from sb3_pg_ext.functional.gumbel_softmax import GumbelSoftmax, largest, one_hot

SIZES = [[4], [3, 2], [2, 2, 5]]
each_size = pytest.mark.parametrize("sizes", SIZES)


def draw(sizes, n=50):
    rng = np.random.default_rng(0)
    shape = n, sum(sizes)
    return rng.normal(size=shape), -np.log(rng.exponential(size=shape)), rng.normal(size=shape)


def relaxed(logits, noise, sizes, temperature):
    blocks = ((logits + th.tensor(noise)) / temperature).split(sizes, 1)
    return th.cat([block.softmax(1) for block in blocks], 1)


@each_size
@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_soft_samples_and_their_gradient(sizes, temperature):
    logits, noise, c = draw(sizes)
    samples = GumbelSoftmax(logits, noise, sizes, temperature, straight_through=False)
    tensor = th.tensor(logits, requires_grad=True)
    expected = relaxed(tensor, noise, sizes, temperature)
    np.testing.assert_allclose(samples.samples, expected.detach(), rtol=1e-10)
    (gradient,) = th.autograd.grad((expected * th.tensor(c)).sum(), tensor)
    np.testing.assert_allclose(samples.vjp(c), gradient, rtol=1e-8, atol=1e-12)


@each_size
def test_straight_through_is_one_hot_forward_and_soft_backward(sizes):
    logits, noise, c = draw(sizes)
    hard, soft = (GumbelSoftmax(logits, noise, sizes, 0.7, straight_through) for straight_through in (True, False))
    assert set(np.unique(hard.samples)) == {0.0, 1.0}
    starts = np.cumsum([0, *sizes])
    for start, end in pairwise(starts):
        block = hard.samples[:, start:end]
        np.testing.assert_array_equal(block.sum(1), 1)
        np.testing.assert_array_equal(block.argmax(1), (logits + noise)[:, start:end].argmax(1))
    np.testing.assert_array_equal(hard.vjp(c), soft.vjp(c))


@each_size
def test_one_hot_vectors_have_their_largest_where_they_were_made(sizes):
    choices = np.random.default_rng(0).integers(sizes, size=(20, len(sizes)))
    vectors = one_hot(choices, sizes)
    assert vectors.dtype == np.float32
    assert vectors.shape == (20, sum(sizes))
    np.testing.assert_array_equal(vectors.sum(1), len(sizes))
    np.testing.assert_array_equal(largest(vectors, sizes), choices)


def test_hard_samples_are_distributed_as_the_softmax_of_the_logits():
    logits, n = np.log([0.1, 0.2, 0.7]), 100_000
    noise = -np.log(np.random.default_rng(0).exponential(size=(n, 3)))
    frequencies = GumbelSoftmax(np.tile(logits, (n, 1)), noise, [3]).samples.mean(0)
    np.testing.assert_allclose(frequencies, [0.1, 0.2, 0.7], atol=4 * 0.5 / np.sqrt(n))


def test_the_gradient_of_a_linear_reward_points_towards_the_better_arms():
    """E y·r grows with an arm's logit where its reward is above the mean, arm by arm: of a bandit, the right sign."""
    rewards, n = np.array([0.0, 1.0, 0.3, 0.8]), 100_000
    noise = -np.log(np.random.default_rng(0).exponential(size=(n, 4)))
    gradients = GumbelSoftmax(np.zeros((n, 4)), noise, [4]).vjp(np.tile(rewards, (n, 1)))
    exact = (rewards - rewards.mean()) / 4
    assert (np.sign(gradients.mean(0)) == np.sign(exact)).all()
    assert (np.abs(gradients.mean(0)) > 5 * gradients.std(0) / np.sqrt(n)).all()
