"""What a sweep costs beside the runs themselves.

    python benchmarks/sweep_overhead.py --rounds 3

Each round makes the same runs twice: bare, one after the other in a process that has imported everything, without
checkpoints and records; and by a sweep with one worker, with its processes, checkpoints, records and locks. The first
run of a sweep waits for the imports; it is counted apart.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from runs import versions

from sb3_pg_ext.evaluation.processes import Ended, LocalProcesses
from sb3_pg_ext.evaluation.runs import Run
from sb3_pg_ext.evaluation.sweep import sweep
from sb3_pg_ext.zoo.sweep import DEFAULTS, PRELOAD, plan
from sb3_pg_ext.zoo.training import environment_modules, train


class Timed(LocalProcesses):
    """Notes when the first run is over."""

    first: float | None = None

    def wait(self, timeout: float) -> list[Ended]:
        """As it is."""
        ended = super().wait(timeout)
        if ended and self.first is None:
            self.first = time.perf_counter()
        return ended


def bare(runs: Sequence[Run], folder: Path) -> float:
    """Seconds of the runs but the first, one after the other in this process."""
    start = 0.0
    for k, run in enumerate(runs):
        if k == 1:
            start = time.perf_counter()
        path = folder / run.name
        path.mkdir(parents=True)
        train(replace(run, details={**run.details, "checkpoint_freq": 2 * run.n_timesteps}), path, lambda steps: None)
    return time.perf_counter() - start


def by_sweep(runs: Sequence[Run], folder: Path) -> float:
    """Seconds of the runs but the first, in a sweep with one worker."""
    executor = Timed(train, 1, modules=[PRELOAD, *environment_modules([run.env for run in runs])])
    sweep(runs, folder, executor)
    assert executor.first is not None
    return time.perf_counter() - executor.first


def main() -> None:
    """Measure in turns, and print the overhead."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algos", nargs="+", default=["npg", "ppo"])
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--seeds", default="0-2")
    parser.add_argument("-n", "--n-timesteps", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    wanted = {"algos": options.algos, "envs": [options.env], "seeds": options.seeds, "device": "cpu"}
    runs = plan({**DEFAULTS, **wanted, "n_timesteps": options.n_timesteps, "log_folder": "none"})
    seconds: dict[str, list[float]] = {"bare": [], "sweep": []}
    for k in range(options.rounds):
        for name, measure in (("bare", bare), ("sweep", by_sweep)):
            with tempfile.TemporaryDirectory() as folder:
                seconds[name].append(measure(runs, Path(folder)))
            print(f"round {k}, {name}: {seconds[name][-1]:.2f} s", flush=True)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    extra = medians["sweep"] - medians["bare"]
    result = {
        **{"algos": options.algos, "env": options.env, "n_timesteps": options.n_timesteps, "runs": len(runs) - 1},
        **{"seconds": {name: [round(value, 2) for value in values] for name, values in seconds.items()}},
        **{"overhead": round(extra / medians["bare"], 4), "seconds_per_run": round(extra / (len(runs) - 1), 3)},
        **{"versions": versions()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
