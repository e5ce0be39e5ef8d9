"""Whether this version is as fast and learns as well as the one that was recorded: a line and a verdict each.

    make bench                          # some fifteen minutes; ends with status 1 if something is slower or worse
    python benchmarks/guard.py npg      # what has npg in its name
    python benchmarks/guard.py --record # keep what is measured now as what later versions are compared with

Speed is a ratio to another library's class, or to our own, from :mod:`throughput`: both sides take turns in a process.
Learning is a short training with the shipped configuration; its score is the mean return of the episodes that end
within the second half of the steps, the noisy policy's own, averaged over seeds.

What was recorded lies in ``benchmarks/results/guard.json``: ratios, each from a process of its own, and scores by seed.
The mean of new values is compared with the interval that it falls into with a probability of 99 % if nothing has
changed (Student's, of the logarithm where it is a ratio). Seeds are among those of the record, so a training whose
numbers have not changed at all gives recorded scores again. Ratios depend on the machine: elsewhere record anew first.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from runs import versions
from scipy import stats
from throughput import COMPARISONS

from sb3_pg_ext.evaluation.processes import LocalProcesses
from sb3_pg_ext.evaluation.records import Result, read_result
from sb3_pg_ext.evaluation.sweep import sweep
from sb3_pg_ext.zoo.sweep import DEFAULTS, PRELOAD, plan
from sb3_pg_ext.zoo.training import train

HERE = Path(__file__).parent
RECORD = HERE / "results" / "guard.json"
LEVEL = 0.99
N_RECORDED, N_COMPARED = {"speed": 3, "learning": 4}, {"speed": 1, "learning": 2}
"""How many values are recorded, and how many are compared with them."""
REPETITIONS = 3
"""Turns of both sides in a process."""


@dataclass(frozen=True)
class Check:
    """What is measured.

    :param kind: "speed" or "learning"
    :param what: the comparison, or the Zoo id of the algorithm
    :param env: the environment
    :param size: number of environments, or of steps
    """

    kind: str
    what: str
    env: str
    size: int

    @property
    def name(self) -> str:
        """The key of the record."""
        return f"{self.kind} {self.what} {self.env} {self.size}"

    @property
    def title(self) -> str:
        """The line, but for its numbers."""
        if self.kind == "speed":
            return f"{COMPARISONS[self.what][0].replace('`', '')}, {self.env} × {self.size}"
        return f"{self.what}, {self.env}, {self.size} steps"


CHECKS = (
    Check("speed", "ppo", "CartPole-v1", 8),
    Check("speed", "ppo_kl", "HalfCheetah-v5", 1),
    Check("speed", "a2c", "CartPole-v1", 8),
    Check("speed", "reinforce", "CartPole-v1", 1),
    Check("speed", "npg", "HalfCheetah-v5", 8),
    Check("speed", "acktr-fast", "CartPole-v1", 8),
    Check("speed", "maskable_ppo", "Masked20-v0", 8),
    Check("speed", "extractor-ppo", "CartPole-v1", 8),
    Check("speed", "naf", "Pendulum-v1", 1),
    Check("speed", "sac_v", "Pendulum-v1", 1),
    Check("speed", "gumbel_ddpg", "CartPole-v1", 1),
    Check("learning", "reinforce", "CartPole-v1", 60_000),
    Check("learning", "npg", "CartPole-v1", 30_000),
    Check("learning", "ppo_kl", "CartPole-v1", 30_000),
    Check("learning", "acktr", "CartPole-v1", 40_000),
    Check("learning", "ac", "CartPole-v1", 30_000),
    Check("learning", "a3c", "CartPole-v1", 100_000),
    Check("learning", "impala", "CartPole-v1", 100_000),
    Check("learning", "gumbel_ddpg", "CartPole-v1", 20_000),
    Check("learning", "naf", "Pendulum-v1", 6_000),
    Check("learning", "npg", "InvertedPendulum-v4", 30_000),
    Check("learning", "ppo_kl", "Pendulum-v1", 50_000),
)


def measure(check: Check, n: int, folder: Path) -> list[float]:
    """As many values of a check as are asked for."""
    if check.kind == "speed":
        return [ratio(check) for _ in range(n)]
    return scores(check, range(n), folder)


def ratio(check: Check) -> float:
    """How many times as fast the first side of a comparison is as the second: the median of some turns."""
    one = ["--one", check.what, check.env, str(check.size), "--repetitions", str(REPETITIONS)]
    command = [sys.executable, str(HERE / "throughput.py"), *one]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return statistics.median(ours / theirs for ours, theirs in zip(result["ours"], result["theirs"], strict=True))


def scores(check: Check, seeds: Sequence[int], folder: Path) -> list[float]:
    """What trainings with these seeds earn in the second half of their steps."""
    chosen = {"algos": [check.what], "envs": [check.env], "seeds": list(seeds), "n_timesteps": check.size}
    runs = plan({**DEFAULTS, **chosen, "log_folder": str(folder), "final_episodes": 1}, "make bench")
    sweep(runs, folder, LocalProcesses(train, 1, modules=[PRELOAD]))
    return [score(read_result(folder / run.name / "result.json")) for run in runs]


def score(result: Result) -> float:
    """The mean return of the episodes that end within the second half of the steps; NaN if there is none."""
    steps, returns = np.array(result["curve"]["timesteps"]), np.array(result["curve"]["returns"])
    late = returns[steps > result["n_timesteps"] / 2]
    return float(late.mean()) if len(late) else math.nan


def interval(recorded: Sequence[float], n: int, logarithmic: bool) -> tuple[float, float]:
    """What the mean of n new values lies within with the probability ``LEVEL`` if nothing has changed.

    :param recorded: values of the recorded version, at least two
    :param n: number of new ones
    :param logarithmic: of their logarithm
    """
    values = np.log(recorded) if logarithmic else np.array(recorded)
    spread = values.std(ddof=1) * math.sqrt(1 / len(values) + 1 / n)
    half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * spread
    low, high = values.mean() - half, values.mean() + half
    return (math.exp(low), math.exp(high)) if logarithmic else (float(low), float(high))


def mean(values: Sequence[float], logarithmic: bool) -> float:
    """Their mean, the geometric one of ratios."""
    return statistics.geometric_mean(values) if logarithmic else statistics.fmean(values)


def verdict(value: float, bounds: tuple[float, float], kind: str) -> str:
    """In a word; "slower" and "worse" are what the guard is for."""
    low, high = bounds
    if low <= value <= high:
        return "ok"
    return {"speed": ("slower", "faster"), "learning": ("worse", "better")}[kind][value > high]


def compare(check: Check, recorded: dict[str, Any], folder: Path) -> str:
    """Measure, print the line, and return the verdict."""
    is_speed = check.kind == "speed"
    known = recorded[check.name]["values"]
    values = measure(check, N_COMPARED[check.kind], folder)
    low, high = interval(known, len(values), is_speed)
    value = mean(values, is_speed)
    result = verdict(value, (low, high), check.kind)
    digits = 2 if is_speed else 1
    print(f"{result:<7}{value:9.{digits}f}   {low:.{digits}f} to {high:.{digits}f}   {check.title}", flush=True)
    return result


def record(check: Check, folder: Path) -> dict[str, Any]:
    """Measure, print the line, and return what is to be kept."""
    values = measure(check, N_RECORDED[check.kind], folder)
    print(f"{mean(values, check.kind == 'speed'):9.2f}   {check.title}", flush=True)
    return {"values": values, "versions": versions()}


def main() -> None:
    """Compare, or record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of names, of which a check has one (default: all checks)")
    parser.add_argument("--record", action="store_true", help="keep what is measured")
    parser.add_argument("--file", type=Path, default=RECORD, help="where the record is")
    options = parser.parse_args()
    checks = [check for check in CHECKS if not options.names or any(name in check.name for name in options.names)]
    if not checks:
        parser.error(f"no check has {' or '.join(options.names)} in its name; there are: {names(CHECKS)}")
    recorded = json.loads(options.file.read_text()) if options.file.exists() else {}
    missing = [check for check in checks if check.name not in recorded]
    if missing and not options.record:
        parser.error(f"{options.file} has nothing of {names(missing)}; --record measures it")
    with tempfile.TemporaryDirectory() as folder:
        if options.record:
            for check in checks:
                recorded[check.name] = record(check, Path(folder, check.name))
                options.file.write_text(json.dumps(recorded, indent=1) + "\n")
            return
        verdicts = [compare(check, recorded, Path(folder, check.name)) for check in checks]
    sys.exit(any(verdict in ("slower", "worse") for verdict in verdicts))


def names(checks: Sequence[Check]) -> str:
    """Of several checks."""
    return ", ".join(repr(check.name) for check in checks)


if __name__ == "__main__":
    main()
