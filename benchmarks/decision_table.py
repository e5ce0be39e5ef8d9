"""What every algorithm reached, in one table, for the page that helps to choose between them.

    python benchmarks/decision_table.py

Prints the table of ``docs/which_algorithm.md``, from ``benchmarks/results/learning/*.jsonl``.
"""

import numpy as np
from learning import RESULTS, load_runs, row, written
from runs import spaced

ENVS = (
    "CartPole-v1",
    "Acrobot-v1",
    "LunarLander-v3",
    "Pendulum-v1",
    "InvertedPendulum-v4",
    "Reacher-v4",
    "Hopper-v4",
    "HalfCheetah-v4",
)
MIN_SEEDS = 3


def table() -> str:
    """A row for every environment and algorithm with at least three finished runs of the shipped configuration."""
    lines = [row("environment", "algorithm", "steps", "minutes", "return ± 95 %", "seeds"), "|---|---|---|---|---|---|"]
    runs = {path.stem: load_runs(path.stem) for path in sorted(RESULTS.glob("*.jsonl"))}
    for env_id in ENVS:
        for algo, all_of_it in runs.items():
            chosen = [run for run in all_of_it if run["env"] == env_id]
            if len(chosen) >= MIN_SEEDS:
                minutes = np.median([run["seconds"] for run in chosen]) / 60
                steps = spaced(chosen[0]["config"]["n_timesteps"])
                scores = written([run["mean"] for run in chosen])
                lines.append(row(env_id, f"`{algo}`", steps, f"{minutes:.1f}", scores, len(chosen)))
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
