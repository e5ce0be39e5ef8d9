"""The built-in baselines, and how they are made."""

from dataclasses import replace

import numpy as np
import pytest

from sb3_pg_ext import list_baselines, make_baseline
from sb3_pg_ext.baselines import Episodes, apply_baseline
from sb3_pg_ext.plugins import BaselineSpec
from sb3_pg_ext.plugins.registry import Entry, Provider, Registry


def make_episodes(total_returns=False):
    """Two episodes of three steps and of one."""
    to_go = np.array([8.0, 3.0, 2.0, 7.0], np.float32)
    total = np.array([8.0, 8.0, 8.0, 7.0], np.float32)
    return Episodes(
        rewards=np.array([5.0, 1.0, 2.0, 7.0], np.float32),
        returns=total if total_returns else to_go,
        observations=np.zeros((4, 2), np.float32),
        t=np.array([0, 1, 2, 0]),
        episode_id=np.array([0, 0, 0, 1]),
        total_returns=total_returns,
        values=np.array([1.0, 2.0, 3.0, 4.0], np.float32),
    )


@pytest.mark.parametrize(
    ("name", "total_returns", "expected"),
    [
        ("none", False, [0, 0, 0, 0]),
        ("none", True, [0, 0, 0, 0]),
        ("mean", False, [5, 5, 5, 5]),  # over steps
        ("mean", True, [7.5, 7.5, 7.5, 7.5]),  # over episodes
        ("moving_average", False, [0, 0, 0, 0]),  # before it has seen anything
        ("time", False, [7.5, 3, 2, 7.5]),
        ("time", True, [7.5, 8, 8, 7.5]),
        ("value", False, [1, 2, 3, 4]),
        ("value", True, [1, 2, 3, 4]),
        ("leave_one_out", False, [7, 0, 0, 8]),  # the second episode counts 0 after its end
        ("leave_one_out", True, [7, 7, 7, 8]),
    ],
)
def test_baselines(name, total_returns, expected):
    baseline = make_baseline(name)(make_episodes(total_returns))
    np.testing.assert_array_equal(baseline, expected)
    assert baseline.dtype == np.float32


def test_a_moving_average_weighs_batches_by_their_age():
    baseline = make_baseline("moving_average", decay=0.5)
    for mean in (4.0, 10.0, 1.0):
        baseline.fit(replace(make_episodes(), returns=np.full(4, mean, np.float32)))
    np.testing.assert_allclose(baseline(make_episodes()), (1 + 10 / 2 + 4 / 4) / (1 + 1 / 2 + 1 / 4), rtol=1e-6)


def test_times_are_counted_from_the_start_of_the_episode():
    """Pieces of episodes, as with ``n_steps``: the first begins at its fourth step."""
    pieces = replace(make_episodes(), t=np.array([3, 4, 5, 3]))
    np.testing.assert_array_equal(make_baseline("time")(pieces), [7.5, 3, 2, 7.5])


class Earlier:
    def __call__(self, episodes):
        return np.zeros_like(episodes.returns)

    def fit(self, episodes):
        """Learns, but has no state."""


def test_a_baseline_that_learns_needs_a_state(monkeypatch):
    spec = BaselineSpec("earlier", Earlier)
    monkeypatch.setattr("sb3_pg_ext.baselines.registry", lambda: Registry((Entry(spec, Provider("a", "b", "1")),)))
    with pytest.raises(ValueError, match="'earlier' has fit alone; allowed: fit, state_dict and load_state_dict"):
        make_baseline("earlier")


def test_the_mean_of_many_returns_is_exact():
    n = 10**6
    steps = np.zeros(n, np.int64)
    returns = np.full(n, 0.1, np.float32)
    episodes = Episodes(returns, returns, returns[:, None], steps, steps)
    np.testing.assert_allclose(make_baseline("mean")(episodes), np.float32(0.1), rtol=1e-7)


def test_lengths():
    np.testing.assert_array_equal(make_episodes().lengths, [3, 1])


def test_names():
    assert {"none", "mean", "value"} <= set(list_baselines())
    assert list_baselines() == sorted(list_baselines())


def test_unknown_names():
    with pytest.raises(ValueError, match=r"(?s)'valeu'.*value"):
        make_baseline("valeu")


@pytest.mark.parametrize(
    ("name", "flag"), [("optimal", "cross_fit"), ("optimal", "per_time_step"), ("optimal_per_component", "cross_fit")]
)
def test_flags_by_name(name, flag):
    with pytest.raises(ValueError, match=f"{flag}='False'; allowed: True or False"):
        make_baseline(name, **{flag: "False"})


def test_unknown_arguments():
    with pytest.raises(ValueError, match=r"'mean': .*; its parameters: none; given: baseline_kwargs=\{'decay': 0\.9\}"):
        make_baseline("mean", decay=0.9)


@pytest.mark.parametrize("shape", [(), (1,), (4, 1), (1, 4), (5,)])
def test_nothing_is_broadcast(shape):
    def careless(episodes):
        return np.zeros(shape, np.float32)

    with pytest.raises(ValueError, match=r"careless.*the shape .*; allowed: \(4,\), a number for every step"):
        apply_baseline(careless, make_episodes(), per_component=False)


def test_components_have_numbers_for_every_episode():
    episodes = replace(make_episodes(), scores=np.ones((4, 3), np.float32))
    assert apply_baseline(lambda e: np.zeros((2, 3)), episodes, per_component=True).shape == (2, 3)
    with pytest.raises(
        ValueError, match=r"the shape \(3,\); allowed: \(2, 3\), a number for every episode and component"
    ):
        apply_baseline(lambda e: np.zeros(3), episodes, per_component=True)
