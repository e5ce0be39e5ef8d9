"""What a Rollout accepts, refuses and derives."""

import numpy as np
import pytest

from sb3_pg_ext.estimators import Rollout


def fields(shape=(3, 2)):
    zeros = np.zeros(shape, np.float32)
    return {
        "rewards": zeros,
        "values": zeros,
        "next_values": zeros,
        "terminated": zeros.astype(bool),
        "truncated": zeros.astype(bool),
        "gamma": 0.9,
    }


def test_derived_arrays():
    given = fields((4, 1)) | {
        "rewards": np.array([[1], [2], [3], [4]], np.float32),
        "values": np.array([[10], [20], [30], [40]], np.float32),
        "next_values": np.array([[20], [30], [40], [50]], np.float32),
        "terminated": np.array([[False], [True], [False], [True]]),
        "truncated": np.array([[False], [False], [True], [True]]),
        "gamma": 0.5,
    }
    rollout = Rollout(**given)
    np.testing.assert_array_equal(rollout.episode_ends[:, 0], [False, True, True, True])
    np.testing.assert_array_equal(rollout.discounts[:, 0], np.array([0.5, 0, 0.5, 0], np.float32))
    np.testing.assert_array_equal(rollout.td_errors[:, 0], np.array([1, -18, -7, -36], np.float32))
    assert rollout.discounts.dtype == rollout.td_errors.dtype == np.float32


def test_nothing_is_copied():
    given = fields()
    assert Rollout(**given).rewards is given["rewards"]


@pytest.mark.parametrize("name", ["values", "next_values", "terminated", "truncated", "target_log_probs"])
@pytest.mark.parametrize("shape", [(3, 1), (1, 2), (3,), (2, 3), (3, 2, 1)])
def test_a_wrong_shape_names_the_array(name, shape):
    dtype = bool if name in ("terminated", "truncated") else np.float32
    with pytest.raises(ValueError, match=rf"^{name} has the shape .*; allowed: \(3, 2\)"):
        Rollout(**fields() | {name: np.zeros(shape, dtype)})


@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (3, 0), (3, 2, 1)])
def test_rewards_must_be_steps_by_environments(shape):
    with pytest.raises(ValueError, match="rewards has the shape"):
        Rollout(**fields(shape))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("rewards", np.zeros((3, 2)), "rewards is float64; allowed: an array of float32"),
        ("values", [[0.0, 0.0]] * 3, "values is list; allowed: an array of float32"),
        ("terminated", np.zeros((3, 2), np.float32), "terminated is float32; allowed: an array of bool"),
        ("behaviour_log_probs", np.zeros((3, 2), int), "behaviour_log_probs is int64"),
        ("gamma", True, "gamma=True; allowed"),
        ("gamma", 1.1, r"gamma=1.1; allowed: a number in \[0, 1\]"),
        ("gamma", float("nan"), "gamma=nan"),
        ("gamma", "0.9", "gamma='0.9'"),
    ],
)
def test_a_wrong_type_or_value_names_the_field(name, value, message):
    with pytest.raises(ValueError, match=message):
        Rollout(**fields() | {name: value})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["rewards", "values", "next_values", "behaviour_log_probs", "target_log_probs"])
def test_the_first_number_that_is_not_finite_is_named(name, bad):
    array = np.zeros((3, 2), np.float32)
    array[1, 1] = array[2, 0] = bad
    with pytest.raises(ValueError, match=f"{name} is not finite, first at step 1 of environment 1: {bad}"):
        Rollout(**fields() | {name: array})
