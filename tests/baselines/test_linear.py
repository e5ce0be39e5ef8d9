"""The linear baseline against a least-squares solver."""

import numpy as np
import pytest

from sb3_pg_ext import make_baseline
from sb3_pg_ext.baselines import Episodes

LENGTHS = (6, 1, 9, 4)


def make_episodes(observations, returns=None):
    t = np.concatenate([np.arange(length) for length in LENGTHS])
    if returns is None:
        returns = np.random.default_rng(1).normal(3, 2, len(t))
    returns = returns.astype(np.float32)
    return Episodes(returns, returns, observations, t, np.repeat(np.arange(len(LENGTHS)), LENGTHS))


@pytest.fixture
def observations():
    return np.random.default_rng(0).normal(size=(sum(LENGTHS), 2)).astype(np.float32)


def scaled(columns):
    return (columns - columns.mean(axis=0)) / columns.std(axis=0)


def predictions(observations, t, returns, ridge):
    """The solution of the regression, with its penalty as further rows."""
    obs, t = scaled(observations.astype(float)), scaled(t[:, None].astype(float))
    features = scaled(np.concatenate([obs, obs**2, t, t**2, t**3], axis=1))
    penalty = np.sqrt(ridge * len(returns)) * np.eye(features.shape[1])
    targets = np.concatenate([returns - returns.mean(), np.zeros(len(penalty))])
    weights = np.linalg.lstsq(np.concatenate([features, penalty]), targets, rcond=None)[0]
    return returns.mean() + features @ weights


@pytest.mark.parametrize("ridge", [1e-5, 0.1, 10.0])
def test_it_is_a_ridge_regression(observations, ridge):
    episodes = make_episodes(observations)
    expected = predictions(observations, episodes.t, episodes.returns.astype(float), ridge)
    np.testing.assert_allclose(make_baseline("linear", ridge=ridge)(episodes), expected, rtol=1e-5)


def test_units_and_offsets_of_observations_play_no_part(observations):
    expected = make_baseline("linear")(make_episodes(observations))
    for scale, offset in ((1e-6, 0), (1e20, 0), (8, 1024)):
        found = make_baseline("linear")(make_episodes(observations.astype(float) * scale + offset))
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_what_is_a_quadratic_function_is_fitted_exactly(observations):
    x, y = observations.T.astype(float)
    returns = 5 + 2 * x - y + 3 * x**2
    found = make_baseline("linear", ridge=1e-10)(make_episodes(observations, returns))
    np.testing.assert_allclose(found, returns, rtol=1e-4, atol=1e-4)


def test_numbers_that_never_change_are_left_out(observations):
    constant = np.concatenate([observations, np.full((sum(LENGTHS), 1), 7.1, np.float32)], axis=1)
    expected = make_baseline("linear")(make_episodes(observations))
    np.testing.assert_allclose(make_baseline("linear")(make_episodes(constant)), expected, rtol=1e-6)


def test_dictionaries_and_images_are_flattened(observations):
    expected = make_baseline("linear")(make_episodes(observations))
    as_dict = {"x": observations[:, :1], "y": observations[:, 1:].reshape(-1, 1, 1)}
    np.testing.assert_allclose(make_baseline("linear")(make_episodes(as_dict)), expected, rtol=1e-6)


def test_bytes_do_not_overflow():
    numbers = np.random.default_rng(0).integers(0, 256, (sum(LENGTHS), 2, 1))
    expected = make_baseline("linear")(make_episodes(numbers.astype(float)))
    np.testing.assert_array_equal(make_baseline("linear")(make_episodes(numbers.astype(np.uint8))), expected)
