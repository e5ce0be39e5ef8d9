"""What a baseline does to the expectation and the variance of the gradient: exactly, by enumeration."""

from functools import partial

import numpy as np
import pytest
from enumeration import (
    EPISODES,
    POPULATION,
    correction_of_every_episode,
    expected_estimate,
    gradient_of_every_episode,
    make_batch,
    mean_squared_error,
    true_gradient,
)
from hypothesis import given
from hypothesis import strategies as st

from sb3_pg_ext import list_baselines, make_baseline
from sb3_pg_ext.baselines.optimal import Optimal, OptimalPerComponent
from sb3_pg_ext.baselines.plugin import sb3_pg_ext_baselines
from sb3_pg_ext.baselines.residual import QProp

BUILT_IN = {spec.name: spec for spec in sb3_pg_ext_baselines()}
ROUNDING = 1e-6  # baselines are float32
EITHER_RETURN = pytest.mark.parametrize("total_returns", [False, True], ids=["rewards to go", "total returns"])
CROSS_FITTED = {
    "one": partial(Optimal, cross_fit=True),
    "per time step": partial(Optimal, per_time_step=True, cross_fit=True),
    "per component": partial(OptimalPerComponent, cross_fit=True),
}


def make_fitted(name, **kwargs):
    """A baseline; what it learns, it has learned from earlier episodes."""
    baseline = make_baseline(name, **kwargs)
    if hasattr(baseline, "fit"):
        for episodes in (EPISODES[3:9], EPISODES[5:12]):
            baseline.fit(make_batch(episodes))
    return baseline


def test_the_episodes_are_all():
    assert len(EPISODES) == 26
    assert sum(episode.probability for episode in EPISODES) == 1
    assert len(POPULATION) == 256


def test_every_built_in_baseline_is_held_to_account():
    assert set(BUILT_IN) <= set(list_baselines())


@EITHER_RETURN
@pytest.mark.parametrize("name", [name for name, spec in BUILT_IN.items() if spec.unbiased])
def test_who_declares_no_bias_has_none(name, total_returns):
    error = expected_estimate(make_fitted(name), total_returns=total_returns) - true_gradient()
    assert np.abs(error).max() < ROUNDING


@EITHER_RETURN
@pytest.mark.parametrize("conservative", [False, True])
def test_q_prop_without_its_correction_has_a_bias(conservative, total_returns, monkeypatch):
    baseline = make_fitted("q_prop", conservative=conservative)
    assert baseline._eta == 1
    error = expected_estimate(baseline, m=1, total_returns=total_returns) - true_gradient()
    assert np.abs(error).max() < ROUNDING
    monkeypatch.setattr(QProp, "correction", lambda *_: ())
    error = expected_estimate(baseline, m=1, total_returns=total_returns) - true_gradient()
    assert np.linalg.norm(error) > 0.05 * np.linalg.norm(true_gradient())


@pytest.mark.parametrize("name", ["q_prop", "action_factorized", "value_time"])
def test_with_weights_there_is_no_bias_either(name):
    estimate = expected_estimate(make_fitted(name), m=1, gamma=0.5, weighted=True)
    np.testing.assert_allclose(estimate, true_gradient(0.5), atol=ROUNDING)


def test_what_was_learned_leaves_less_variance():
    """Of the whole population, against V alone, however wrong."""
    population = make_batch(POPULATION)
    of_value = spread(population, make_baseline("value")(population))
    for name in ("q_prop", "value_time"):
        baseline = make_fitted(name)
        gradients = gradient_of_every_episode(population, baseline(population))
        gradients += correction_of_every_episode(population, baseline)
        assert gradients.var(axis=0).sum() < 0.9 * of_value


@EITHER_RETURN
@pytest.mark.parametrize("name", [name for name, spec in BUILT_IN.items() if not spec.unbiased])
def test_who_declares_a_bias_has_one(name, total_returns):
    error = expected_estimate(make_fitted(name), total_returns=total_returns) - true_gradient()
    assert np.linalg.norm(error) > 0.05 * np.linalg.norm(true_gradient())


@EITHER_RETURN
@pytest.mark.parametrize("make", CROSS_FITTED.values(), ids=CROSS_FITTED)
def test_cross_fitting_leaves_no_bias(make, total_returns):
    error = expected_estimate(make(), total_returns=total_returns) - true_gradient()
    assert np.abs(error).max() < ROUNDING


@pytest.mark.parametrize("m", [2, 3])
def test_the_mean_of_total_returns_shrinks_the_gradient_by_one_mth(m):
    estimate = expected_estimate(make_baseline("mean"), m, total_returns=True)
    np.testing.assert_allclose(estimate, (1 - 1 / m) * true_gradient(), atol=ROUNDING)


@pytest.mark.parametrize("name", ["none", "leave_one_out", "value"])
def test_weights_make_the_gradient_that_of_the_discounted_return(name):
    baseline = make_baseline(name)
    estimate = expected_estimate(baseline, gamma=0.5, weighted=True)
    np.testing.assert_allclose(estimate, true_gradient(0.5), atol=ROUNDING)
    without = expected_estimate(baseline, gamma=0.5, weighted=False)
    assert np.linalg.norm(without - true_gradient(0.5)) > 0.1 * np.linalg.norm(true_gradient(0.5))


def test_total_returns_are_discounted_without_weights():
    estimate = expected_estimate(make_baseline("none"), gamma=0.5, total_returns=True)
    np.testing.assert_allclose(estimate, true_gradient(0.5), atol=ROUNDING)


@pytest.mark.thorough
@EITHER_RETURN
def test_with_three_episodes_the_estimated_optimum_loses_to_the_mean(total_returns):
    """The mean is biased, but its whole error is smaller than the variance of optima estimated from two episodes."""
    of_mean = mean_squared_error(make_baseline("mean"), 3, total_returns=total_returns)
    of_optima = [mean_squared_error(make(), 3, total_returns=total_returns) for make in CROSS_FITTED.values()]
    assert min(of_optima) > 1.8 * of_mean


SETTINGS = {
    "rewards to go": {},
    "total returns": {"total_returns": True},
    "discounted": {"gamma": 0.5},
    "weighted": {"gamma": 0.5, "weighted": True},
}
in_every_setting = pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
numbers = st.floats(-20, 20)


def spread(batch, b):
    """The total variance of the gradient of one episode, where the batch is the population."""
    return gradient_of_every_episode(batch, b).var(axis=0).sum()


@in_every_setting
def test_optimal_beats_every_other_number(setting):
    batch = make_batch(POPULATION, **setting)
    least = spread(batch, Optimal()(batch))

    @given(number=numbers)
    def beats(number):
        assert least <= spread(batch, np.full(len(batch.t), number)) + ROUNDING

    beats()
    assert least < spread(batch, make_baseline("mean")(batch)) - 0.01


@in_every_setting
def test_optimal_beats_every_other_number_at_every_time(setting):
    batch = make_batch(POPULATION, **setting)
    least = spread(batch, Optimal(per_time_step=True)(batch))

    @given(of_times=st.tuples(numbers, numbers, numbers))
    def beats(of_times):
        assert least <= spread(batch, np.array(of_times)[batch.t]) + ROUNDING

    beats()
    assert least < spread(batch, Optimal()(batch)) - 0.01


@in_every_setting
def test_optimal_beats_every_other_number_for_every_component(setting):
    batch = make_batch(POPULATION, **setting)
    least = spread(batch, OptimalPerComponent()(batch))

    @given(of_components=st.tuples(numbers, numbers, numbers, numbers))
    def beats(of_components):
        assert least <= spread(batch, np.tile(of_components, (len(POPULATION), 1))) + ROUNDING

    beats()
    assert least < spread(batch, Optimal()(batch)) - 0.01
