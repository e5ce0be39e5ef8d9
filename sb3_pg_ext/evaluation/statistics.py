"""What the scores of several runs say about an algorithm, and how surely.

A *score* is one number a run, such as the mean return of its evaluation. Scores come as one array of runs for each task
(environment): ``[[1.0, 2.0, 3.0], [0.5, 0.6]]`` are three runs of one task and two of another; a plain sequence of
numbers is a single task. The tasks are taken as fixed, the runs of each as a random sample, so resampling is stratified
by task (Agarwal et al. 2021, Deep Reinforcement Learning at the Edge of the Statistical Precipice). Every task counts
the same, however many runs it has. Scores of different tasks have to be on one scale before they are put together.

With 5 or 10 seeds, plain bootstrap intervals are too short. The levels of those given here are widened as Hesterberg
(2015, What Teachers Should Know About the Bootstrap) proposes: for the variance that resampling n values loses, by
√(n/(n − 1)), and for estimating it, by Student's t in place of the normal distribution.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtrit

from sb3_pg_ext.arguments import check_choice

Array = NDArray[np.float64]
Scores = Sequence[ArrayLike] | ArrayLike
Statistic = Callable[[Array, Array], Array]


class Interval(NamedTuple):
    """An estimate and its confidence interval; unbounded where a task has a single run.

    :param estimate: a number, or an array of them
    :param low: lower end, of the same shape
    :param high: upper end, of the same shape
    """

    estimate: Any
    low: Any
    high: Any


def mean_interval(scores: Scores, confidence: float = 0.95) -> Interval:
    """The mean with Student's interval; of several tasks, the mean of their means (Welch–Satterthwaite).

    Exact for normal scores of a single task.

    :param scores: one array of runs a task; with further dimensions, as curves [n_runs, n_points] have them, the result
        has these
    :param confidence: probability that the interval covers the true mean
    """
    tasks = _as_tasks(scores)
    return _student([(1 / len(tasks), runs) for runs in tasks], confidence)


def difference_interval(x: Scores, y: Scores, confidence: float = 0.95) -> Interval:
    """Mean of x minus mean of y, averaged over the tasks, with Welch's interval.

    :param x: one array of runs a task
    :param y: the same tasks; the numbers of runs may differ
    :param confidence: probability that the interval covers the true difference
    """
    pairs = _as_pairs(x, y)
    share = 1 / len(pairs)
    return _student([(share, a) for a, _ in pairs] + [(-share, b) for _, b in pairs], confidence)


def permutation_test(x: Scores, y: Scores, n_resamples: int = 9999, seed: int = 0) -> float:
    """Two-sided p-value of equal means, by permuting runs between x and y within each task.

    What is compared is Welch's t. So the test is exact where the runs of x and y are exchangeable, and holds in large
    samples where only the means agree (Chung & Romano 2013, Exact and asymptotically robust permutation tests). Its
    smallest value for a single task is 2/C(2n, n): 0.1 with three runs each, 0.008 with five.

    :param x: one array of runs a task
    :param y: the same tasks
    :param n_resamples: number of random permutations; where there are not so many divisions of the runs, each of them
        is taken once
    :param seed: of the permutations
    """
    pairs = _as_pairs(x, y)
    divisions = [math.comb(len(a) + len(b), len(a)) for a, b in pairs]
    is_exact = math.prod(divisions) <= n_resamples + 1
    n_rows = math.prod(divisions) if is_exact else n_resamples + 1
    rng = np.random.default_rng(seed)
    differences, variances = np.zeros(n_rows), np.zeros(n_rows)
    for task, (a, b) in enumerate(pairs):
        pooled = np.tile(np.concatenate([a, b]), (n_rows, 1))  # the first row is what was observed
        if is_exact:
            which = np.unravel_index(np.arange(n_rows), divisions)[task]
            pooled = np.take_along_axis(pooled, _divisions(len(a), len(b))[which], axis=1)
        else:
            pooled[1:] = rng.permuted(pooled[1:], axis=1)
        parts = pooled[:, : len(a)], pooled[:, len(a) :]
        differences += parts[0].mean(axis=1) - parts[1].mean(axis=1)
        variances += sum(part.var(axis=1, ddof=1) / part.shape[1] for part in parts if part.shape[1] > 1)
    rounding = 1e-9 * np.abs(differences).max()
    differences = np.where(np.abs(differences) <= rounding, 0.0, np.abs(differences))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(differences == 0, 0.0, differences / np.sqrt(np.where(variances <= rounding**2, 0.0, variances)))
    return float(np.mean(t >= t[0] * (1 - 1e-9)))


def _divisions(n_x: int, n_y: int) -> NDArray[np.int_]:
    """Every way to divide the runs, [C(n_x + n_y, n_x), n_x + n_y]: first the indices of those that go to x."""
    runs = range(n_x + n_y)
    chosen = itertools.combinations(runs, n_x)
    return np.array([[*some, *(run for run in runs if run not in some)] for some in chosen])


def trimmed_mean(samples: ArrayLike, weights: ArrayLike | None = None, n_cut: int = 0) -> Array:
    """The mean without the ``n_cut`` smallest and largest of N equally weighted values.

    With unequal weights, the share n_cut/N of their sum is cut off at both ends, through the middle of a value where
    it falls there.

    :param samples: [..., N]
    :param weights: [N], of the values; their scale does not matter. None: all the same
    :param n_cut: fewer than N/2
    :return: [...]
    """
    samples = np.asarray(samples, float)
    n = samples.shape[-1]
    shares = np.ones(n) if weights is None else np.asarray(weights, float)
    if np.ptp(shares) == 0:
        return np.sort(samples, axis=-1)[..., n_cut : n - n_cut].mean(axis=-1)
    order = np.argsort(samples, axis=-1)
    ends = np.cumsum(shares[order], axis=-1) / shares.sum()
    kept = np.diff(np.clip(ends, n_cut / n, 1 - n_cut / n), axis=-1, prepend=n_cut / n)
    return (np.take_along_axis(samples, order, -1) * kept).sum(axis=-1) / kept.sum(axis=-1)


def mean(samples: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """The mean along the last dimension, [..., N] → [...]."""
    return trimmed_mean(samples, weights)


def iqm(samples: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """The interquartile mean along the last dimension: ⌊N/4⌋ values are left out at both ends, [..., N] → [...]."""
    return trimmed_mean(samples, weights, np.shape(samples)[-1] // 4)


def median(samples: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """The median along the last dimension, [..., N] → [...]."""
    return trimmed_mean(samples, weights, (np.shape(samples)[-1] - 1) // 2)


def optimality_gap(samples: ArrayLike, weights: ArrayLike | None = None, target: float = 1.0) -> Array:
    """By how much scores fall short of the target on average, where more than the target does not count."""
    return target - mean(np.minimum(samples, target), weights)


STATISTICS: dict[str, Statistic] = {"mean": mean, "median": median, "iqm": iqm, "optimality_gap": optimality_gap}
METHODS = ("expanded", "percentile")


def bootstrap_interval(
    scores: Scores,
    statistic: str | Statistic = "iqm",
    confidence: float = 0.95,
    method: str = "expanded",
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """A statistic of all runs with a stratified bootstrap interval.

    :param scores: one array of runs a task
    :param statistic: ``"mean"``, ``"median"``, ``"iqm"``, ``"optimality_gap"``, or a function of samples [..., N] of
        the runs of all tasks, and of their weights [N], that gives [...]
    :param confidence: wanted probability that the interval covers; docs/reports.md has what is reached
    :param method: ``"expanded"``: quantiles of the resampled statistics, at levels that are widened for small samples;
        ``"percentile"``: at the levels themselves, as rliable does by default
    :param n_resamples: number of resamples
    :param seed: of the resampling
    """
    check_choice("method", method, METHODS)
    tasks = _as_tasks(scores)
    function = _find(statistic)
    weights = np.concatenate([np.full(len(runs), 1 / len(runs)) for runs in tasks]) / len(tasks)
    rng = np.random.default_rng(seed)
    drawn = [runs[rng.integers(len(runs), size=(n_resamples, len(runs)))] for runs in tasks]
    resampled = function(np.concatenate(drawn, axis=1), weights)
    level = 1 - _upper_level(confidence) if method == "percentile" else _expanded_level(tasks, confidence)
    return _between_quantiles(function(np.concatenate(tasks), weights), resampled, level)


def performance_profile(
    scores: Scores, thresholds: ArrayLike, confidence: float = 0.95, n_resamples: int = 2000, seed: int = 0
) -> Interval:
    """The fraction of runs that score more than each threshold, with a pointwise stratified bootstrap interval.

    Where all runs of all tasks are on the same side of a threshold, the interval has no length.

    :param scores: one array of runs a task
    :param thresholds: [n_thresholds]
    :param confidence: for each threshold on its own
    :param n_resamples: number of resamples
    :param seed: of the resampling
    :return: arrays [n_thresholds]
    """
    thresholds = np.asarray(thresholds, float)
    above = [np.asarray(runs[:, None] > thresholds, float) for runs in _as_tasks(scores)]
    rng = np.random.default_rng(seed)
    resampled = sum(_draw_weights(rng, len(runs), n_resamples) @ runs for runs in above) / len(above)
    estimate = np.mean([runs.mean(axis=0) for runs in above], axis=0)
    return _between_quantiles(estimate, np.asarray(resampled), _expanded_level(above, confidence))


def probability_of_improvement(
    x: Scores, y: Scores, confidence: float = 0.95, n_resamples: int = 2000, seed: int = 0
) -> Interval:
    """P(X > Y) + ½P(X = Y) for a run of x and a run of y on the same task, averaged over the tasks.

    The bootstrap takes the probability for certain where no run of y beats one of x. So the interval is that of the
    stratified bootstrap, but never shorter than Newcombe's (2006, Confidence intervals for an effect size measure based
    on the Mann–Whitney statistic, method 5), which several tasks combine by the squares of its arms.

    :param x: one array of runs a task
    :param y: the same tasks; the numbers of runs may differ
    :param confidence: wanted probability that the interval covers
    :param n_resamples: number of resamples
    :param seed: of the resampling
    """
    pairs = _as_pairs(x, y)
    rng = np.random.default_rng(seed)
    probabilities, arms = [], []
    resampled, placements = np.zeros(n_resamples), []
    for a, b in pairs:
        wins = np.heaviside(a[:, None] - b, 0.5)
        drawn = _draw_weights(rng, len(a), n_resamples) @ wins
        resampled += (drawn * _draw_weights(rng, len(b), n_resamples)).sum(axis=1) / len(pairs)
        placements += [wins.mean(axis=1), wins.mean(axis=0)]
        probabilities.append(wins.mean())
        arms.append(_newcombe(float(wins.mean()), len(a), len(b), confidence))
    estimate, low, high = _between_quantiles(np.mean(probabilities), resampled, _expanded_level(placements, confidence))
    down, up = np.sqrt(np.square(arms).sum(axis=0)) / len(pairs)
    return Interval(estimate, max(min(low, estimate - down), 0.0), min(max(high, estimate + up), 1.0))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, adjusted so that one false alarm among all is as rare as in a single test."""
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.minimum(np.maximum.accumulate(np.asarray(p_values, float)[order] * factors), 1.0)
    return [float(p) for p in adjusted[np.argsort(order)]]


def _as_tasks(scores: Scores) -> list[Array]:
    rows: list[Any] = list(scores)  # type: ignore[arg-type]
    tasks = [np.asarray(runs, float) for runs in ([rows] if rows and np.ndim(rows[0]) == 0 else rows)]
    if not tasks or any(len(runs) == 0 for runs in tasks):
        raise ValueError("scores are missing: every task needs at least one run")
    if not all(np.isfinite(runs).all() for runs in tasks):
        raise ValueError("scores must be finite; leave out runs without one")
    return tasks


def _as_pairs(x: Scores, y: Scores) -> list[tuple[Array, Array]]:
    a, b = _as_tasks(x), _as_tasks(y)
    if len(a) != len(b):
        raise ValueError(f"x has {len(a)} tasks and y has {len(b)}: they must be the same tasks")
    return list(zip(a, b, strict=True))


def _find(statistic: str | Statistic) -> Statistic:
    if callable(statistic):
        return statistic
    check_choice("statistic", statistic, STATISTICS)
    return STATISTICS[statistic]


def _upper_level(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence!r}; allowed: a number between 0 and 1")
    return (1 + confidence) / 2


def _student(contrast: list[tuple[float, Array]], confidence: float) -> Interval:
    """Σ c·mean(runs) with the degrees of freedom of Welch and Satterthwaite."""
    estimate = np.sum([c * runs.mean(axis=0) for c, runs in contrast], axis=0)
    if min(len(runs) for _, runs in contrast) == 1:
        return Interval(estimate, estimate - np.inf, estimate + np.inf)
    variances = np.array([c**2 * runs.var(axis=0, ddof=1) / len(runs) for c, runs in contrast])
    df = _degrees_of_freedom(variances, [len(runs) for _, runs in contrast])
    half = stdtrit(df, _upper_level(confidence)) * np.sqrt(variances.sum(axis=0))
    return Interval(estimate, estimate - half, estimate + half)


def _degrees_of_freedom(variances: Array, n_runs: Sequence[int]) -> Array:
    """(Σv)² / Σ v²/(n − 1) for the variances of independent means, [n, ...] → [...]."""
    free = np.reshape(np.asarray(n_runs, float) - 1, (-1,) + (1,) * (variances.ndim - 1))
    total = variances.sum(axis=0)
    shares = np.divide(variances, total, out=np.ones_like(variances), where=total > 0)
    return np.where(total > 0, 1 / (shares**2 / free).sum(axis=0), free.sum())


def _expanded_level(tasks: list[Array], confidence: float) -> Array:
    """The level Φ(−√(v/v*)·t), where v* is the variance of a mean that the bootstrap sees, and v the unbiased one."""
    n_runs = np.array([len(runs) for runs in tasks])
    if n_runs.min() == 1:
        return np.zeros(tasks[0].shape[1:])
    seen = np.array([runs.var(axis=0) / len(runs) for runs in tasks])
    inflation = np.reshape(n_runs / (n_runs - 1), (-1,) + (1,) * (seen.ndim - 1))
    total = seen.sum(axis=0)
    ratio = np.divide((seen * inflation).sum(axis=0), total, out=np.ones_like(total), where=total > 0)
    t = stdtrit(_degrees_of_freedom(seen * inflation, list(n_runs)), _upper_level(confidence))
    return ndtr(-np.sqrt(ratio) * t)


def _between_quantiles(estimate: ArrayLike, resampled: Array, level: ArrayLike) -> Interval:
    """The quantiles ``level`` and 1 − ``level`` of each column, linearly interpolated; level 0 is unbounded."""
    ordered = np.sort(resampled, axis=0)
    last = len(ordered) - 1

    def quantile(at: Array) -> Array:
        below = np.floor(at * last).astype(int)
        first, second = (np.take_along_axis(ordered, np.minimum(i, last)[None], axis=0)[0] for i in (below, below + 1))
        return first + (at * last - below) * (second - first)

    level = np.asarray(level, float)
    bounded = level > 0
    low = np.where(bounded, quantile(level), -np.inf)
    high = np.where(bounded, quantile(1 - level), np.inf)
    return Interval(np.asarray(estimate)[()], low[()], high[()])


def _draw_weights(rng: np.random.Generator, n_runs: int, n_resamples: int) -> Array:
    """How often each run is drawn, divided by the number of runs, [n_resamples, n_runs]."""
    return rng.multinomial(n_runs, np.full(n_runs, 1 / n_runs), size=n_resamples) / n_runs


def _newcombe(theta: float, n_x: int, n_y: int, confidence: float) -> Array:
    """How far Newcombe's interval reaches below and above θ: the roots of (θ' − θ)² = z²·V(θ')."""
    z = ndtri(_upper_level(confidence))
    inside, outside = np.full(2, theta), np.array([0.0, 1.0])
    for _ in range(50):
        middle = (inside + outside) / 2
        spread = 1 + ((n_x + n_y) / 2 - 1) * ((1 - middle) / (2 - middle) + middle / (1 + middle))
        too_far = (middle - theta) ** 2 > z**2 * middle * (1 - middle) * spread / (n_x * n_y)
        inside, outside = np.where(too_far, inside, middle), np.where(too_far, middle, outside)
    return np.abs(inside - theta)
