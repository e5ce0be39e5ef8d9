"""How often intervals cover what they are of, in synthetic studies with few seeds.

    python benchmarks/interval_coverage.py --seeds 5
    python benchmarks/interval_coverage.py --seeds 10

A study has a few runs of one task or of five. Scores are normal, log-normal, or such that a run fails with probability
one fifth: 1 or 0, with a standard deviation of 0.1. What an interval should cover is the statistic of ten million
scores, or the true probability. Results go into ``benchmarks/results/coverage.json`` and are printed as Markdown.
"""

import argparse
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from scipy import stats

from sb3_pg_ext.evaluation.statistics import (
    STATISTICS,
    bootstrap_interval,
    iqm,
    mean_interval,
    probability_of_improvement,
)

RESULTS = Path(__file__).parent / "results" / "coverage.json"
N_TASKS = (1, 5)
Sampler = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
Ends = tuple[float, float]


def failing(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Scores around 1, but around 0 for a fifth of the runs."""
    return (rng.random(shape) >= 0.2) + 0.1 * rng.standard_normal(shape)


SAMPLERS: dict[str, Sampler] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "a fifth fails": failing,
    "log-normal": lambda rng, shape: rng.lognormal(size=shape),
}
SHIFTS = {0.5: 0.0, 0.76: 1.0, 0.92: 2.0, 0.98: 3.0}
"""By how much the normal scores of x must exceed those of y for a probability of improvement."""


def bca(scores: np.ndarray, statistic: str, n_resamples: int) -> Ends:
    """SciPy's BCa interval: bias-corrected and accelerated."""

    def pooled(*tasks: np.ndarray, axis: int) -> np.ndarray:
        runs = np.concatenate(tasks, axis=axis)
        return STATISTICS[statistic](runs, np.ones(runs.shape[axis]))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where all resamples agree
        result = stats.bootstrap(tuple(scores), pooled, n_resamples=n_resamples, method="BCa")
    return result.confidence_interval.low, result.confidence_interval.high


def intervals(scores: np.ndarray, n_resamples: int) -> Iterator[tuple[str, str, Ends]]:
    """Statistic, method and ends of all intervals of a study, [n_tasks, n_seeds]."""
    yield "mean", "Student", mean_interval(scores)[1:]
    for statistic in ("mean", "iqm", "median"):
        for method in ("percentile", "expanded"):
            yield statistic, method, bootstrap_interval(scores, statistic, method=method, n_resamples=n_resamples)[1:]
    yield "iqm", "BCa", bca(scores, "iqm", n_resamples)


def cover(n_seeds: int, n_tasks: int, n_studies: int, n_resamples: int) -> Iterator[dict[str, Any]]:
    """One record for every distribution, statistic and method."""
    for distribution, sample in SAMPLERS.items():
        rng = np.random.default_rng(0)
        population = sample(rng, (10_000_000,))
        truths = {"mean": population.mean(), "iqm": iqm(population), "median": np.median(population)}
        hits: dict[tuple[str, str], list[bool]] = {}
        for _ in range(n_studies):
            for statistic, method, (low, high) in intervals(sample(rng, (n_tasks, n_seeds)), n_resamples):
                hits.setdefault((statistic, method), []).append(bool(low <= truths[statistic] <= high))
        for (statistic, method), covered in hits.items():
            yield {"scores": distribution, "statistic": statistic, "method": method, "coverage": np.mean(covered)}


def cover_improvement(n_seeds: int, n_tasks: int, n_studies: int, n_resamples: int) -> Iterator[dict[str, Any]]:
    """The same for probabilities of improvement."""
    for name, shift in SHIFTS.items():
        rng = np.random.default_rng(0)
        truth = stats.norm.cdf(shift / np.sqrt(2))
        hits: dict[str, list[bool]] = {"percentile": [], "as reported": []}
        for _ in range(n_studies):
            x, y = rng.standard_normal((2, n_tasks, n_seeds)) + np.reshape([shift, 0.0], (2, 1, 1))
            _, low, high = probability_of_improvement(x, y, n_resamples=n_resamples)
            hits["as reported"].append(bool(low <= truth <= high))
            low, high = percentile_improvement(rng, x, y, n_resamples)
            hits["percentile"].append(bool(low <= truth <= high))
        for method, covered in hits.items():
            yield {
                "scores": f"normal, P = {name}",
                "statistic": "probability of improvement",
                "method": method,
                "coverage": np.mean(covered),
            }


def percentile_improvement(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, n_resamples: int) -> Ends:
    """The plain bootstrap interval, as rliable has it."""
    wins = np.heaviside(x[:, :, None] - y[:, None, :], 0.5)
    n_tasks, n_x, n_y = wins.shape
    drawn_x = rng.multinomial(n_x, np.full(n_x, 1 / n_x), size=(n_resamples, n_tasks)) / n_x
    drawn_y = rng.multinomial(n_y, np.full(n_y, 1 / n_y), size=(n_resamples, n_tasks)) / n_y
    resampled = np.einsum("rti,tij,rtj->r", drawn_x, wins, drawn_y, optimize=True) / n_tasks
    low, high = np.quantile(resampled, [0.025, 0.975])
    return low, high


TITLES = {"iqm": "IQM", "probability of improvement": "P(X > Y)"}
REPORTED = {
    "mean": "Student",
    "iqm": "expanded",
    "median": "expanded",
    "probability of improvement": "as reported",
}


def markdown(records: list[dict[str, Any]]) -> str:
    """A table: a row for each statistic, distribution and method, a column for each size of study.

    The method that the report uses is in bold.
    """
    sizes = sorted({(record["n_tasks"], record["n_seeds"]) for record in records})
    cells: dict[tuple[str, str, str], dict[tuple[int, int], float]] = {}
    for record in records:
        row = cells.setdefault((record["statistic"], record["scores"], record["method"]), {})
        row[record["n_tasks"], record["n_seeds"]] = record["coverage"]
    names = [f"{tasks} task{'s' * (tasks > 1)}, {seeds} seeds" for tasks, seeds in sizes]
    lines = ["| of | scores | interval | " + " | ".join(names) + " |", "|---|---|---|" + "---:|" * len(sizes)]
    for labels, row in cells.items():
        values = (f"{100 * row[size]:.1f}" if size in row else "–" for size in sizes)
        statistic, scores, method = labels
        if method == REPORTED[statistic]:
            method = f"**{method}**"
        lines.append("| " + " | ".join([TITLES.get(statistic, statistic), scores, method, *values]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Simulate, and replace the records of the same numbers of seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 10], help="runs of a task")
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 5], help="tasks of a study")
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    results = json.loads(options.output.read_text()) if options.output.exists() else {"records": []}
    sizes = [(n_seeds, n_tasks) for n_seeds in options.seeds for n_tasks in options.tasks]
    records = [r for r in results["records"] if (r["n_seeds"], r["n_tasks"]) not in sizes]
    for n_seeds, n_tasks in sizes:
        for simulate in (cover, cover_improvement):
            for record in simulate(n_seeds, n_tasks, options.studies, options.resamples):
                records.append({"n_seeds": n_seeds, "n_tasks": n_tasks, **record})
    records.sort(key=lambda r: (r["statistic"], list(SAMPLERS).index(r["scores"]) if r["scores"] in SAMPLERS else 9))
    text = ",\n".join(json.dumps(record) for record in records)
    settings = {"n_studies": options.studies, "n_resamples": options.resamples, "confidence": 0.95}
    settings |= {"numpy": np.__version__, "scipy": scipy.__version__}
    options.output.write_text(json.dumps(settings)[:-1] + f', "records": [\n{text}\n]}}\n')
    print(markdown(records))


if __name__ == "__main__":
    main()
