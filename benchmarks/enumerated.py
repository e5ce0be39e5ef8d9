"""What can be summed up over all episodes of a small process: exact numbers for the pages on variance.

    python benchmarks/enumerated.py baselines    # the mean squared error of estimates by baseline
    python benchmarks/enumerated.py ratios       # bias and variance of the gradient from another policy's episodes
    python benchmarks/enumerated.py distances    # the bias of ratios per step, by the distance of the policies

The process, and the sums, are those of the tests.
"""

# ruff: noqa: E402

import argparse
import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "functional")]

from enumeration import mean_squared_error  # type: ignore[import-not-found]
from test_importance_sampling import (  # type: ignore[import-not-found]
    BEHAVIOUR,
    TARGET,
    bias,
    expectation,
    weighted_gradient,
)

from sb3_pg_ext import make_baseline
from sb3_pg_ext.baselines.optimal import Optimal, OptimalPerComponent

BASELINES: dict[str, Any] = {
    "`none`": partial(make_baseline, "none"),
    "`mean` (biased)": partial(make_baseline, "mean"),
    "`time` (biased)": partial(make_baseline, "time"),
    "`optimal` (biased)": Optimal,
    "`leave_one_out`": partial(make_baseline, "leave_one_out"),
    "`optimal`, cross-fitted": partial(Optimal, cross_fit=True),
    "`optimal_per_component`, cross-fitted": partial(OptimalPerComponent, cross_fit=True),
    "`optimal` per time step, cross-fitted": partial(Optimal, per_time_step=True, cross_fit=True),
}


def baselines() -> None:
    """Print the mean squared error of REINFORCE's estimate from batches of two and of three episodes."""
    print("| baseline | m = 2 | m = 3 |\n|---|---|---|")
    for name, make in BASELINES.items():
        print(f"| {name} | " + " | ".join(f"{mean_squared_error(make(), m):.2f}" for m in (2, 3)) + " |")


def variance(per_decision: bool, max_ratio: float) -> float:
    """E‖ĝ − E ĝ‖² of the gradient from a single episode."""
    mean = expectation(1, lambda episodes: weighted_gradient(episodes, per_decision, max_ratio))
    square = expectation(1, lambda episodes: (weighted_gradient(episodes, per_decision, max_ratio) ** 2).sum())
    return float(square - (np.asarray(mean) ** 2).sum())


def ratios() -> None:
    """Print bias and variance of the gradient from episodes of another policy, by the limit of the ratios."""
    print("| `max_ratio` | `per_step` | `per_decision` |\n|---|---|---|")
    for max_ratio in (1.0, 1.5, 2.0, math.inf):
        found = (f"{bias(each, max_ratio):.3f} ({variance(each, max_ratio):.1f})" for each in (False, True))
        print(f"| {f'{max_ratio:g}'.replace('inf', '∞')} | {' | '.join(found)} |")


def distances() -> None:
    """Print the bias of ratios per step, for policies that lie on the way from the other one to the one in question."""
    print("| of the way from μ to π | bias |\n|---|---|")
    for part in (1.0, 0.5, 0.25):
        print(f"| {part:g} | {bias(False, math.inf, BEHAVIOUR + part * (TARGET - BEHAVIOUR)):.3f} |")


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=["baselines", "ratios", "distances"])
    {"baselines": baselines, "ratios": ratios, "distances": distances}[parser.parse_args().table]()


if __name__ == "__main__":
    main()
