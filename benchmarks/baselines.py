"""What an update of REINFORCE costs with each baseline that has a critic, side by side.

    python benchmarks/baselines.py            # measure, keep, and print a table
    python benchmarks/baselines.py --report   # the table of what is kept, in benchmarks/results/baselines.json

2000 steps of complete episodes, networks of two layers of 64; everything between the last step of a rollout and the
next rollout: returns, baseline, the policy's step, the critic's passes, the baseline's own fit. Rounds alternate
between all of them in one process; the table has medians, and ratios to no baseline.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch as th
from runs import versions

from sb3_pg_ext import REINFORCE

RESULTS = Path(__file__).parent / "results" / "baselines.json"
TASKS = {"Pendulum-v1": 10, "HalfCheetah-v5": 2}
"""Episodes of 200 and of 1000 steps."""
BASELINES: dict[str, dict[str, Any]] = {
    "none": {"baseline": "none"},
    "value, one step": {"baseline": "value", "n_critic_updates": 0},
    "value": {"baseline": "value"},
    "value_time": {"baseline": "value_time"},
    "q_prop": {"baseline": "q_prop", "baseline_kwargs": {"conservative": False}},
    "action_factorized": {"baseline": "action_factorized"},
    "mean, reuse_batches=4": {"baseline": "mean", "reuse_batches": 4},
}


class Timed(REINFORCE):
    """Keeps the latest rollout, to be finished again."""

    def _finish_rollout(self, *rollout: Any) -> None:
        self.rollout = rollout
        super()._finish_rollout(*rollout)

    def update(self) -> float:
        """The seconds that one update takes."""
        start = time.perf_counter()
        super()._finish_rollout(*self.rollout)
        self.train()
        return time.perf_counter() - start


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """The median seconds of an update, by task and baseline."""
    seconds: dict[str, dict[str, float]] = {}
    for env, n_episodes in TASKS.items():
        models = {}
        for name, arguments in BASELINES.items():
            models[name] = Timed("MlpPolicy", env, n_episodes=n_episodes, seed=0, device="cpu", **arguments)
            models[name].learn(4 * 2000)  # what is reused is there, and what learns has learned
        taken: dict[str, list[float]] = {name: [] for name in models}
        for _ in range(rounds):
            for name, model in models.items():
                taken[name].append(model.update())
        seconds[env] = {name: round(statistics.median(times), 5) for name, times in taken.items()}
    return seconds


def table(seconds: dict[str, dict[str, float]]) -> str:
    """Markdown: milliseconds, and ratios to no baseline."""
    lines = ["| baseline | " + " | ".join(f"{env}, 2000 steps" for env in seconds) + " |"]
    lines.append("|---" * (len(seconds) + 1) + "|")
    for name in BASELINES:
        cells = (f"{1000 * of[name]:.0f} ms, {of[name] / of['none']:.1f}×" for of in seconds.values())
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="updates of each")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    options = parser.parse_args()
    if not options.report:
        th.set_num_threads(1)
        results = {"seconds": measure(options.rounds), "rounds": options.rounds, "versions": versions()}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(table(json.loads(RESULTS.read_text())["seconds"]))


if __name__ == "__main__":
    main()
