"""Statistics over runs: against SciPy, rliable and slow definitions, and by simulation."""

import itertools
import math
import warnings

import numpy as np
import pytest
from scipy import stats

from sb3_pg_ext.evaluation.statistics import (
    bootstrap_interval,
    difference_interval,
    holm,
    iqm,
    mean_interval,
    median,
    optimality_gap,
    performance_profile,
    permutation_test,
    probability_of_improvement,
    trimmed_mean,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    rliable = pytest.importorskip("rliable.library")
    from rliable import metrics

RNG = np.random.default_rng(0)
MATRIX = RNG.normal(size=(7, 3)) * [1.0, 2.0, 5.0]  # [n_runs, n_tasks], as rliable wants it
OTHER = RNG.normal(size=(5, 3)) + 0.5


def test_means_have_the_interval_of_student():
    runs = MATRIX[:, 0]
    expected = stats.ttest_1samp(runs, 0.0).confidence_interval(0.9)
    assert mean_interval(runs, 0.9) == pytest.approx((runs.mean(), expected.low, expected.high))


def test_differences_have_the_interval_of_welch():
    x, y = MATRIX[:, 1], OTHER[:, 1]
    expected = stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    assert difference_interval(x, y) == pytest.approx((x.mean() - y.mean(), expected.low, expected.high))


def test_the_mean_of_two_tasks_is_half_the_difference_from_the_mirrored_one():
    """(m₁ + m₂)/2 is ½(m₁ − (−m₂)), which Welch's interval covers."""
    x, y = MATRIX[:, 1], OTHER[:, 1]
    assert np.multiply(mean_interval([x, y]), 2) == pytest.approx(difference_interval(x, -y))


def test_intervals_of_curves_are_those_of_their_points():
    curves, others = MATRIX, OTHER
    means, differences = mean_interval([curves]), difference_interval([curves], [others])
    for k in range(3):
        assert [end[k] for end in means] == pytest.approx(mean_interval(curves[:, k]))
        assert [end[k] for end in differences] == pytest.approx(difference_interval(curves[:, k], others[:, k]))


def test_runs_that_agree_have_an_interval_without_length():
    assert mean_interval([500.0, 500.0, 500.0]) == (500.0, 500.0, 500.0)
    assert bootstrap_interval([500.0, 500.0, 500.0]) == (500.0, 500.0, 500.0)


def test_a_single_run_bounds_nothing():
    assert mean_interval([[1.0]]) == (1.0, -math.inf, math.inf)
    assert mean_interval([[1.0, 2.0], [3.0]]) == (2.25, -math.inf, math.inf)
    assert difference_interval([1.0, 2.0], [3.0]) == (-1.5, -math.inf, math.inf)
    assert bootstrap_interval([[1.0, 2.0], [3.0]])[1:] == (-math.inf, math.inf)
    assert probability_of_improvement([3.0], [1.0, 2.0]) == (1.0, 0.0, 1.0)
    profile = performance_profile([[1.0]], [0.0, 2.0])
    assert [list(end) for end in profile] == [[1.0, 0.0], [-math.inf] * 2, [math.inf] * 2]


def test_aggregates_are_those_of_rliable():
    pooled = MATRIX.ravel()
    assert iqm(pooled) == pytest.approx(metrics.aggregate_iqm(MATRIX))
    assert optimality_gap(pooled, target=0.7) == pytest.approx(metrics.aggregate_optimality_gap(MATRIX, 0.7))
    assert median(pooled) == pytest.approx(np.median(pooled))
    assert median(pooled[:8]) == pytest.approx(np.median(pooled[:8]))


@pytest.mark.parametrize("statistic", [iqm, median])
@pytest.mark.parametrize("n", range(1, 10))
def test_whole_weights_count_as_repetitions(statistic, n):
    """By definition with N values that are repeated 4 times, when no value is cut through: all weights are the same."""
    values, weights = RNG.normal(size=n), RNG.integers(1, 4, size=n)
    repeated = np.sort(np.repeat(values, weights * n))
    cut = {iqm: n // 4, median: (n - 1) // 2}[statistic] * len(repeated) // n
    exact = repeated[cut : len(repeated) - cut].mean()
    assert statistic(values, weights) == pytest.approx(exact)


def test_trimmed_means_work_along_the_last_dimension():
    samples, weights = RNG.normal(size=(2, 3, 9)), RNG.random(9)
    together = trimmed_mean(samples, weights, 2)
    assert together.shape == (2, 3)
    assert together[1, 2] == pytest.approx(trimmed_mean(samples[1, 2], weights, 2))


def test_percentile_intervals_are_those_of_rliable():
    np.random.seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, expected = rliable.get_interval_estimates(
            {"x": MATRIX}, lambda scores: np.array([metrics.aggregate_iqm(scores)]), reps=2000
        )
    _, low, high = bootstrap_interval(MATRIX.T, "iqm", method="percentile", n_resamples=20_000)
    assert (low, high) == pytest.approx(expected["x"].ravel(), abs=0.04 * float(np.ptp(expected["x"])))


def test_percentile_intervals_are_those_of_scipy():
    runs = MATRIX[:, 2]
    expected = stats.bootstrap(
        (runs,), iqm, method="percentile", n_resamples=10_000, rng=np.random.default_rng(1)
    ).confidence_interval
    _, low, high = bootstrap_interval(runs, "iqm", method="percentile", n_resamples=10_000)
    assert (low, high) == pytest.approx(tuple(expected), abs=0.04 * (expected.high - expected.low))


def test_expanded_intervals_have_hesterbergs_levels():
    """α' = 2Φ(−√(n/(n − 1))·t_{α/2, n−1}), from the complete bootstrap distribution of six runs."""
    runs = np.array([0.0, 1.0, 3.0, 4.0, 7.0, 9.0])
    all_means = [np.mean(drawn) for drawn in itertools.product(runs, repeat=6)]
    level = stats.norm.cdf(-math.sqrt(6 / 5) * stats.t.ppf(0.95, 5))
    _, low, high = bootstrap_interval(runs, "mean", confidence=0.9, n_resamples=50_000)
    assert (low, high) == pytest.approx(tuple(np.quantile(all_means, [level, 1 - level])), abs=0.17)
    assert bootstrap_interval(runs, "mean", method="percentile").low > low


def test_tasks_count_the_same_however_many_runs_they_have():
    assert bootstrap_interval([[0.0, 0.0], [1.0] * 10], "mean").estimate == pytest.approx(0.5)
    assert mean_interval([[0.0, 0.0], [1.0] * 10]).estimate == pytest.approx(0.5)


def test_profiles_are_those_of_rliable():
    thresholds = np.linspace(-4, 4, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, _ = rliable.create_performance_profile({"x": MATRIX}, thresholds, reps=10)
    profile = performance_profile(MATRIX.T, thresholds)
    assert profile.estimate == pytest.approx(expected["x"])
    assert (profile.low <= profile.estimate).all()
    assert (profile.high >= profile.estimate).all()
    for k, threshold in enumerate(thresholds):
        above = bootstrap_interval((threshold < MATRIX).astype(float).T, "mean", n_resamples=20_000)
        assert (profile.low[k], profile.high[k]) == pytest.approx(above[1:], abs=0.06)


def test_probability_of_improvement_is_that_of_rliable():
    x, y = np.round(MATRIX), np.round(OTHER)  # with ties
    estimate, low, high = probability_of_improvement(x.T, y.T)
    assert estimate == pytest.approx(metrics.probability_of_improvement(x, y))
    assert 0 <= low <= estimate <= high <= 1
    assert probability_of_improvement(y.T, x.T) == pytest.approx((1 - estimate, 1 - high, 1 - low), abs=0.02)


def test_probability_of_improvement_is_never_certain():
    """With 5 against 5 and no overlap, Newcombe's interval begins at 0.632."""
    x, y = np.arange(5.0) + 10, np.arange(5.0)
    estimate, low, high = probability_of_improvement(x, y)
    assert (estimate, high) == (1.0, 1.0)
    z2, other = stats.norm.ppf(0.975) ** 2 / 25, low
    spread = 1 + 4 * ((1 - other) / (2 - other) + other / (1 + other))
    assert (1 - other) ** 2 == pytest.approx(z2 * other * (1 - other) * spread)


def test_permutations_give_the_p_value_of_scipy():
    x, y = MATRIX[:5, 0], OTHER[:4, 0] + 1

    def welch(a, b, axis):
        return stats.ttest_ind(a, b, equal_var=False, axis=axis).statistic

    expected = stats.permutation_test((x, y), lambda a, b, axis: np.abs(welch(a, b, axis)), alternative="greater")
    assert permutation_test(x, y) == pytest.approx(expected.pvalue, abs=0.015)


def test_few_runs_cannot_be_significant():
    assert permutation_test([10.0, 11.0, 12.0], [0.0, 1.0, 2.0]) == pytest.approx(0.1)
    assert permutation_test([10.0, 10.0], [0.0, 0.0]) == pytest.approx(1 / 3)
    assert permutation_test([1.0], [0.0]) == 1.0
    assert permutation_test([5.0, 5.0], [5.0, 5.0, 5.0]) == 1.0


def test_permutations_are_made_within_tasks():
    """Between tasks the scores differ far more than between algorithms."""
    noise = RNG.normal(size=(2, 6))
    x, y = [noise[0], noise[1] + 1e3], [RNG.normal(size=6) - 4, RNG.normal(size=6) + 1e3 - 4]
    assert permutation_test(x, y) < 0.001


def test_holm_is_that_of_its_definition():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([]), "at least one run"),
        (lambda: mean_interval([[1.0], []]), "at least one run"),
        (lambda: mean_interval([1.0, math.nan]), "finite"),
        (lambda: mean_interval([1.0, 2.0], confidence=95), "confidence=95; allowed: a number between 0 and 1"),
        (lambda: bootstrap_interval([1.0, 2.0], "mode"), "statistic='mode'"),
        (lambda: bootstrap_interval([1.0, 2.0], method="bca"), "method='bca'"),
        (lambda: difference_interval([[1.0, 2.0]], [[1.0], [2.0]]), "x has 1 tasks and y has 2"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("n_seeds", [5, 10])
def test_students_interval_covers_the_mean(n_seeds):
    studies = np.random.default_rng(n_seeds).normal(3.0, 2.0, size=(n_seeds, 2000))
    _, low, high = mean_interval([studies])
    assert 0.93 <= np.mean((low <= 3.0) & (high >= 3.0)) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [5, 10])
def test_expanded_intervals_cover_the_iqm_of_five_tasks(n_seeds):
    rng = np.random.default_rng(n_seeds)
    intervals = [bootstrap_interval(rng.normal(size=(5, n_seeds)), n_resamples=500) for _ in range(2000)]
    assert 0.93 <= np.mean([low <= 0 <= high for _, low, high in intervals]) <= 0.98
