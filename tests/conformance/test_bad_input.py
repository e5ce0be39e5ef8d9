"""What is refused before any training, by every algorithm with arguments of its own."""

import numpy as np
import pytest

from .algorithms import Algorithm


@pytest.mark.parametrize("gamma", [-0.01, 1.01, float("nan"), "0.9", None])
def test_gamma(algorithm: Algorithm, gamma):
    if not algorithm.has_own_constructor:
        return  # takes its arguments as its stock twin does
    with pytest.raises(ValueError, match=r"gamma=.*allowed: \[0, 1\]"):
        algorithm(gamma=gamma)


@pytest.mark.parametrize("gamma", [0, 1, np.float32(0.5)])
def test_gamma_includes_the_ends(algorithm: Algorithm, gamma):
    algorithm(gamma=gamma)


def test_unknown_policy(algorithm: Algorithm):
    with pytest.raises(ValueError, match="Policy NoPolicy unknown"):
        algorithm(policy="NoPolicy")


def test_misspelt_argument(algorithm: Algorithm):
    with pytest.raises(TypeError, match="learning_rat"):
        algorithm(learning_rat=1e-3)


@pytest.mark.parametrize("rate", [-1e-3, lambda _: -1e-3, float("nan")])
def test_learning_rate(algorithm: Algorithm, rate):
    if not algorithm.has_own_constructor:
        return
    with pytest.raises(ValueError, match=r"learning_rate=.*; allowed: a number ≥ 0"):
        algorithm(learning_rate=rate)
