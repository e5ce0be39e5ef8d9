"""What an update of REINFORCE costs with each baseline that has a critic, side by side.

    python benchmarks/baselines.py

2000 steps of complete episodes, networks of two layers of 64; everything between the last step of a rollout and the
next rollout: returns, baseline, the policy's step, the critic's passes, the baseline's own fit. Rounds alternate
between all of them in one process; the table has medians, and ratios to no baseline.
"""

import argparse
import statistics
import time
from typing import Any

import torch as th

from sb3_pg_ext import REINFORCE

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


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="updates of each")
    rounds = parser.parse_args().rounds
    th.set_num_threads(1)
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
        seconds[env] = {name: statistics.median(times) for name, times in taken.items()}
    print("| baseline | " + " | ".join(f"{env}, 2000 steps" for env in TASKS) + " |")
    print("|---" * (len(TASKS) + 1) + "|")
    for name in BASELINES:
        cells = (f"{1000 * of[name]:.0f} ms, {of[name] / of['none']:.1f}×" for of in seconds.values())
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
