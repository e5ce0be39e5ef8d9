"""A3C beside A2C at equal steps and at equal time, both as they are configured for a task.

    python benchmarks/equal_time.py                       # on an idle machine with two cores or more
    python benchmarks/equal_time.py --envs LunarLander-v3

Measured here are steps per second alone: of A3C with its shipped configuration and two workers, of SB3's A2C and of
``fast.A2C``, both with the configurations of ``benchmarks/peers/fast_a2c.yml``. All start anew, one after the other,
again and again; start-up and the first steps do not count. Every process computes with one thread.

The returns are those of the runs of ``benchmarks/learning.py``. In the time that A3C takes for its steps, another makes
more or fewer; its greedy returns are those of its next evaluation after so many, but at the most its last. For SB3's
A2C the runs of ``fast.A2C`` stand, which learns the same.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import learning
import torch as th
from asynchrony import measure
from runs import Run, spaced, versions, with_range
from stable_baselines3.common.base_class import BaseAlgorithm
from threadpoolctl import threadpool_limits

from sb3_pg_ext.plugins import registry
from sb3_pg_ext.zoo import bridge
from sb3_pg_ext.zoo.sweep import DEFAULTS, plan
from sb3_pg_ext.zoo.training import RunManager

RESULTS = Path(__file__).parent / "results" / "equal_time.json"
SIDES = ("a3c", "a2c", "fast_a2c")
N_TIMESTEPS = 40_000


def make(algo: str, env_id: str, folder: Path) -> BaseAlgorithm:
    """A model as it is configured for a task."""
    configured = "a3c" if algo == "a3c" else "fast_a2c"
    options = learning.options(configured, env_id, [0], learning.configurations(configured)[env_id])
    options |= {"algos": [algo], "eval_freq": -1}
    (run,) = plan({**DEFAULTS, **options}, "")
    prepared = RunManager(run, folder, lambda n_timesteps: None).setup_experiment()
    assert prepared is not None
    return prepared[0]


def compare(env_ids: list[str], repetitions: int) -> dict[str, dict[str, list[float]]]:
    """Steps per second by task and side."""
    speeds: dict[str, dict[str, list[float]]] = {env_id: {side: [] for side in SIDES} for env_id in env_ids}
    for env_id, by_side in speeds.items():
        for _ in range(repetitions):
            for side in SIDES:
                with tempfile.TemporaryDirectory() as folder:
                    speed, _ = measure(make(side, env_id, Path(folder)), N_TIMESTEPS)
                by_side[side].append(round(speed))
                print(f"{env_id}, {side}: {speed:.0f} steps/s", flush=True)
    return speeds


def returns_after(n_timesteps: float, runs: list[Run]) -> str:
    """Mean ± 95 % over seeds of the next evaluation after so many steps, or of the last one."""
    curves = [run["evaluations"] for run in runs]
    return learning.written([next((y for x, y in curve if x >= n_timesteps), curve[-1][1]) for curve in curves])


def table(results: dict[str, Any]) -> str:
    """A Markdown table: speeds, and greedy returns on the way at equal steps and at equal time.

    :param results: what was measured, by environment
    """
    heads = ["environment", "steps", "", "A3C's steps/s ÷ its", "return after these steps", "return at equal time"]
    lines = [learning.row(*heads), "|---" * len(heads) + "|"]
    runs = {algo: learning.load_runs(algo) for algo in ("a3c", "fast_a2c")}
    for env_id, measured in results.items():
        speeds = measured["speeds"]
        ours, others = ([run for run in runs[algo] if run["env"] == env_id] for algo in runs)
        steps = int(learning.configurations("a3c")[env_id]["n_timesteps"])
        lines.append(learning.row(env_id, spaced(steps), "A3C", "", *[returns_after(steps, ours)] * 2))
        for peer, name in zip(SIDES[1:], ("A2C", "`fast.A2C`"), strict=True):
            ratios = [mine / other for mine, other in zip(speeds["a3c"], speeds[peer], strict=True)]
            returns = (returns_after(n, others) for n in (steps, steps / statistics.median(ratios)))
            lines.append(learning.row(env_id, spaced(steps), name, with_range(ratios), *returns))
    return "\n".join(lines)


def main() -> None:
    """Measure, keep the numbers, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", nargs="+", help="some environments (default: all that both have run on)")
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    bridge.install(registry())
    th.set_num_threads(1)
    known = {run["env"] for run in learning.load_runs("fast_a2c")}
    both = [env_id for env_id in learning.configurations("a3c") if env_id in known]
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with threadpool_limits(1):
        measured = compare(options.envs or both, options.repetitions)
    results |= {env_id: {"versions": versions(), "speeds": speeds} for env_id, speeds in measured.items()}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
