"""The numbers of a report: curves, scores, profiles, and comparisons."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import gymnasium as gym
import numpy as np

from sb3_pg_ext.evaluation.report.runs import Array, Run, Series
from sb3_pg_ext.evaluation.statistics import (
    Interval,
    bootstrap_interval,
    difference_interval,
    mean_interval,
    optimality_gap,
    performance_profile,
    permutation_test,
    probability_of_improvement,
)

N_GRID = 120
"""Points of a curve."""
WINDOW = 0.05
"""Share of the training over which a curve is averaged."""
LAST_SHARE = 0.1
"""Share of the training whose episodes are a run's score where it was not evaluated."""
N_THRESHOLDS = 61
N_DIAGNOSTIC = 60
MAX_PAIRED = 8
"""With more groups, each is compared with the best only."""
N_PERMUTATIONS = 4999
ALL = ""
"""Stands for all environments together."""


@dataclass
class Curve:
    """Curves of the runs of a group on one environment.

    :param x: [n_points] steps
    :param interval: over the finished runs, arrays [n_points]; NaN where one of them has no value
    :param runs: [n_runs, n_points]; NaN where a run has none
    """

    x: Array
    interval: Interval
    runs: Array


@dataclass
class Analysis:
    """All that a page needs to know about runs.

    :param groups: runs by label and environment
    :param references: worst and best score of each environment, 0 and 1 of the common scale
    :param confidence: of all intervals
    """

    groups: dict[tuple[str, str], list[Run]]
    references: dict[str, tuple[float, float]]
    confidence: float
    thresholds: dict[str, list[float]] = field(default_factory=dict)
    _tasks: dict[str, dict[str, list[Array]]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        runs: Iterable[Run],
        confidence: float = 0.95,
        references: Mapping[str, tuple[float, float]] | None = None,
        thresholds: Mapping[str, list[float]] | None = None,
    ) -> "Analysis":
        """Sort runs into groups, and find the scale of each environment."""
        groups: dict[tuple[str, str], list[Run]] = {}
        for run in runs:
            groups.setdefault((run.label, run.env), []).append(run)
        analysis = cls(groups, {}, confidence, dict(thresholds or {}))
        for env in analysis.envs:
            scores = np.concatenate([*analysis.scores_of(env).values(), np.empty(0)])
            found = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0)
            analysis.references[env] = (references or {}).get(env, found)
        return analysis

    @property
    def labels(self) -> list[str]:
        """All groups' names, sorted."""
        return sorted({label for label, _ in self.groups}, key=_natural)

    @property
    def envs(self) -> list[str]:
        """All environments, sorted."""
        return sorted({env for _, env in self.groups}, key=_natural)

    def runs_of(self, label: str, env: str) -> list[Run]:
        """The runs of a group on an environment, failed ones, too."""
        return self.groups.get((label, env), [])

    def finished(self, label: str, env: str) -> list[Run]:
        """Those that count."""
        return [run for run in self.runs_of(label, env) if run.is_finished]

    def has_evaluations(self, env: str) -> bool:
        """Whether every finished run has been evaluated at its end; otherwise training episodes are compared."""
        finished = [run for label in self.labels for run in self.finished(label, env)]
        return bool(finished) and all(len(run.final) for run in finished)

    def scores_of(self, env: str) -> dict[str, Array]:
        """The scores of finished runs, by group; groups without any are left out."""
        evaluated = self.has_evaluations(env)
        found = {
            label: np.array([s for run in self.finished(label, env) if (s := score(run, evaluated)) is not None])
            for label in self.labels
        }
        return {label: scores for label, scores in found.items() if len(scores)}

    def normalized(self, env: str, scores: Array) -> Array:
        """Scores on the common scale."""
        low, high = self.references[env]
        return (scores - low) / (high - low) if high > low else np.ones_like(scores)

    def common(self) -> tuple[list[str], dict[str, list[Array]]]:
        """The environments that can be put together, and by group the normalised scores on each of them.

        All environments, and the groups that have scores on every one of them; if that leaves fewer than two groups,
        the environments that all groups have in common. Empty where that leaves fewer than two environments.
        """
        scores = {env: self.scores_of(env) for env in self.envs}
        envs = [env for env in self.envs if scores[env]]
        labels = [label for label in self.labels if envs and all(label in scores[env] for env in envs)]
        if len(labels) < min(2, len(self.labels)):
            labels = [label for label in self.labels if any(label in of_env for of_env in scores.values())]
            envs = [env for env in envs if all(label in scores[env] for label in labels)]
        if len(envs) < 2:
            return [], {}
        return envs, {label: [self.normalized(env, scores[env][label]) for env in envs] for label in labels}

    def tasks(self, env: str) -> dict[str, list[Array]]:
        """Scores by group as statistics want them, of one environment or of all that are in common."""
        if env not in self._tasks:
            of_env = {label: [scores] for label, scores in self.scores_of(env).items()}
            self._tasks[env] = self.common()[1] if env == ALL else of_env
        return self._tasks[env]

    def aggregates(self, env: str) -> dict[str, dict[str, Interval]]:
        """Mean, median and IQM with their intervals, by group; of all environments also the optimality gap."""
        result = {}
        for label, tasks in self.tasks(env).items():
            result[label] = {
                "mean": mean_interval(tasks, self.confidence),
                "median": bootstrap_interval(tasks, "median", self.confidence),
                "IQM": bootstrap_interval(tasks, "iqm", self.confidence),
            }
            if env == ALL:
                result[label]["optimality gap"] = bootstrap_interval(tasks, optimality_gap, self.confidence)
        return result

    def profiles(self, env: str) -> tuple[Array, dict[str, Interval]]:
        """Thresholds, and by group the fraction of runs above each."""
        tasks = self.tasks(env)
        if not tasks:
            return np.empty(0), {}
        everything = np.concatenate([scores for label in tasks for scores in tasks[label]])
        low, high = float(everything.min()), float(everything.max())
        margin = 0.03 * (high - low) or 0.03 * abs(high) or 1.0
        thresholds = np.linspace(low - margin, high + margin, N_THRESHOLDS)
        return thresholds, {
            label: performance_profile(scores, thresholds, self.confidence) for label, scores in tasks.items()
        }

    def pairs(self, env: str) -> Iterator[tuple[str, str]]:
        """The groups to compare: each with each, or with the best one if there are many."""
        tasks = self.tasks(env)
        if len(tasks) <= MAX_PAIRED:
            yield from combinations(tasks, 2)
            return
        best = max(tasks, key=lambda label: float(mean_interval(tasks[label]).estimate))
        yield from ((best, label) for label in tasks if label != best)

    def improvement(self, x: str, y: str, env: str) -> Interval:
        """P(X > Y) for runs of two groups."""
        tasks = self.tasks(env)
        return probability_of_improvement(tasks[x], tasks[y], self.confidence)

    def curves(self, env: str, of_evaluations: bool = False) -> dict[str, Curve]:
        """Learning curves by group, on steps that all groups share."""
        found = {label: self.runs_of(label, env) for label in self.labels}
        series = {
            label: [(run, run.evaluations if of_evaluations else run.returns) for run in runs]
            for label, runs in found.items()
        }
        ends = [s.timesteps[-1] for some in series.values() for _, s in some if len(s.timesteps)]
        if not ends:
            return {}
        x = np.linspace(0, max(ends), N_GRID + 1)[1:]
        curves = {}
        for label, some in series.items():
            shown = [(run, s) for run, s in some if len(s.timesteps)]
            if not shown:
                continue
            rows = np.array([(interpolated if of_evaluations else averaged)(s, x) for _, s in shown])
            counted = rows[[run.is_finished for run, _ in shown]]
            curves[label] = Curve(x, self._band(counted, len(x)), rows)
        return curves

    def _band(self, rows: Array, n_points: int) -> Interval:
        nothing = np.full(n_points, np.nan)
        if len(rows) == 0:
            return Interval(nothing, nothing, nothing)
        known = np.isfinite(rows).all(axis=0)
        ends = [nothing.copy() for _ in range(3)]
        if known.any():
            for end, values in zip(ends, mean_interval([rows[:, known]], self.confidence), strict=True):
                end[known] = values
        return Interval(*ends)

    def thresholds_of(self, env: str, curves: Mapping[str, Curve]) -> list[tuple[float, str]]:
        """Returns worth reaching, and what they are.

        The user's; else gymnasium's reward threshold, and 50, 75 and 90 % of the way from the lowest start to the
        highest end of all groups' curves.
        """
        if env in self.thresholds:
            return [(value, "as asked for") for value in self.thresholds[env]]
        spec = gym.registry.get(env)  # not gym.spec, which imports the module that a name may begin with
        goal = getattr(spec, "reward_threshold", None)
        found = [] if goal is None else [(float(goal), "reward threshold of the environment")]
        means = [curve.interval.estimate[np.isfinite(curve.interval.estimate)] for curve in curves.values()]
        means = [mean for mean in means if len(mean)]
        if means:
            start, end = min(float(mean[0]) for mean in means), max(float(mean[-1]) for mean in means)
            if end > start:
                found += [(start + share * (end - start), f"{share:.0%} of the progress") for share in (0.5, 0.75, 0.9)]
        return found

    def diagnostics(self, env: str) -> dict[str, dict[str, tuple[Array, Interval]]]:
        """By key and group: steps, and the mean over finished runs between their smallest and largest value."""
        result: dict[str, dict[str, tuple[Array, Interval]]] = {}
        for label in self.labels:
            runs = self.finished(label, env)
            for key in sorted({key for run in runs for key in run.diagnostics}):
                series = [run.diagnostics[key] for run in runs if key in run.diagnostics]
                x = np.linspace(0, max(s.timesteps[-1] for s in series), N_DIAGNOSTIC + 1)[1:]
                rows = np.array([interpolated(s, x) for s in series])
                known = np.isfinite(rows).any(axis=0)
                rows, x = rows[:, known], x[known]
                if len(x) > 1:
                    band = Interval(*(f(rows, axis=0) for f in (np.nanmean, np.nanmin, np.nanmax)))
                    result.setdefault(key, {})[label] = (x, band)
        return result


def score(run: Run, evaluated: bool) -> float | None:
    """The mean return of a run's final evaluation, or of the episodes in the last tenth of its training."""
    if evaluated:
        return float(run.final.mean()) if len(run.final) else None
    steps, values = run.returns
    return float(values[steps > (1 - LAST_SHARE) * steps[-1]].mean()) if len(steps) else None


def averaged(series: Series, x: Array) -> Array:
    """The mean of the episodes in the last twentieth of the training before each x, NaN outside the series.

    Where no episode ended in that time, the one before counts.
    """
    steps, values = series
    sums = np.concatenate([[0.0], np.cumsum(values)])
    end = np.searchsorted(steps, x, side="right")
    begin = np.minimum(np.searchsorted(steps, x - WINDOW * x[-1], side="right"), np.maximum(end - 1, 0))
    means = (sums[end] - sums[begin]) / np.maximum(end - begin, 1)
    return np.where((end > 0) & (x <= steps[-1] + 1.5 * WINDOW * x[-1]), means, np.nan)


def interpolated(series: Series, x: Array) -> Array:
    """The series at each x, NaN outside it by more than a spacing of x."""
    slack = x[0]
    inside = (x >= series.timesteps[0] - slack) & (x <= series.timesteps[-1] + slack)
    return np.where(inside, np.interp(x, *series), np.nan)


def first_reached(curve: Curve, threshold: float) -> Array:
    """The steps after which each run's curve first is at the threshold, NaN where it never is."""
    reached = curve.runs >= threshold
    return np.where(reached.any(axis=1), curve.x[reached.argmax(axis=1)], np.nan)


@dataclass(frozen=True)
class Comparison:
    """How the scores of two groups differ.

    :param env: the environment, or :data:`ALL`
    :param means: of both
    :param n_runs: of both; the smallest number over the environments
    :param difference: a − b with Welch's interval
    :param p_value: two-sided, by permutation
    :param probability: P(A > B)
    :param needed: runs of each that would show such a difference with 80 % probability; None where it is nothing
    """

    env: str
    means: tuple[float, float]
    n_runs: tuple[int, int]
    difference: Interval
    p_value: float
    smallest_p: float
    probability: Interval
    needed: int | None


def compare(analysis: Analysis, a: str, b: str, env: str) -> Comparison | None:
    """Compare two groups on one environment or on all; None where they have not both been run there."""
    tasks = analysis.tasks(env)
    if a not in tasks or b not in tasks:
        return None
    x, y = tasks[a], tasks[b]
    difference = difference_interval(x, y, analysis.confidence)
    arrangements = math.prod(math.comb(len(p) + len(q), len(p)) for p, q in zip(x, y, strict=True))
    mirrored = all(len(p) == len(q) for p, q in zip(x, y, strict=True))
    return Comparison(
        env=env,
        means=(float(mean_interval(x).estimate), float(mean_interval(y).estimate)),
        n_runs=(min(map(len, x)), min(map(len, y))),
        difference=difference,
        p_value=permutation_test(x, y, N_PERMUTATIONS),
        smallest_p=min((1 + mirrored) / arrangements, 1.0),
        probability=probability_of_improvement(x, y, analysis.confidence),
        needed=_needed(x, y, float(difference.estimate)),
    )


def _needed(x: list[Array], y: list[Array], difference: float) -> int | None:
    """(1.96 + 0.84)²·(Var X + Var Y)/d² runs of each, averaged over tasks, and no fewer than four."""
    if difference == 0 or min(len(runs) for runs in (*x, *y)) < 2:
        return None
    spread = sum(runs.var(ddof=1) for runs in (*x, *y)) / len(x) ** 2
    return max(math.ceil((1.96 + 0.84) ** 2 * float(spread) / difference**2), 4)


def _natural(text: str) -> tuple[list[tuple[float, str]], str]:
    """For sorting: numbers within a text by their size."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text.lower())
    return [(float(part), "") if k % 2 else (math.inf, part) for k, part in enumerate(parts)], text
