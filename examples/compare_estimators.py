"""Stock PPO with every advantage estimator but vtrace, which it cannot have: three seeds each, a plot with intervals.

    python examples/compare_estimators.py --env CartPole-v1 --steps 50000

Each finished run is written to the output folder as JSON. Stopped and started again, the script goes on with the runs
that are missing. The plot shows the mean return of training episodes over the seeds, in a band of 95 % (Student's t).
"""

import argparse
import json
from pathlib import Path

import gymnasium as gym
import matplotlib
import numpy as np
import numpy.typing as npt
from scipy.stats import t as student_t
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor

from sb3_pg_ext import EstimatorRolloutBuffer, EstimatorSpec, list_estimators
from sb3_pg_ext.plugins import registry

matplotlib.use("Agg")
import matplotlib.pyplot as plt

POINTS = 20  # of each curve


def hosted_by_stock_ppo() -> list[str]:
    """Registered estimators that require no more than SB3's rollout gives."""
    return [name for name in list_estimators() if not registry().find(EstimatorSpec, name).requires]


def train(env_id: str, estimator: str, seed: int, steps: int) -> dict[str, list[float]]:
    """One run: the returns of all training episodes and the steps at which they ended."""
    env = Monitor(gym.make(env_id))
    model = PPO(
        "MlpPolicy",
        env,
        seed=seed,
        device="cpu",
        n_steps=min(2048, steps),
        rollout_buffer_class=EstimatorRolloutBuffer,
        rollout_buffer_kwargs={"advantage_estimator": estimator},
    )
    model.learn(steps)
    return {
        "steps": np.cumsum(env.get_episode_lengths()).tolist(),
        "returns": env.get_episode_rewards(),
    }


def run_all(args: argparse.Namespace) -> dict[str, list[dict[str, list[float]]]]:
    """All runs by estimator: those on disk are read, the others trained."""
    runs: dict[str, list[dict[str, list[float]]]] = {name: [] for name in args.estimators}
    todo = [(name, seed) for seed in range(args.seeds) for name in args.estimators]
    for number, (name, seed) in enumerate(todo, start=1):
        file = args.output / f"{args.env.replace('/', '-')}_{args.steps}_{name}_{seed}.json"
        if file.exists():
            state = "found"
        else:
            unfinished = file.with_suffix(".part")
            unfinished.write_text(json.dumps(train(args.env, name, seed, args.steps)))
            unfinished.replace(file)
            state = "trained"
        runs[name].append(json.loads(file.read_text()))
        print(f"[{number}/{len(todo)}] {name}, seed {seed}: {state}", flush=True)
    return runs


def curve(run: dict[str, list[float]], grid: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Mean return of the episodes that ended in each interval of the grid; empty intervals are interpolated."""
    sums, _ = np.histogram(run["steps"], grid, weights=run["returns"])
    counts, _ = np.histogram(run["steps"], grid)
    seen = counts > 0
    if not seen.any():
        return np.full(len(counts), np.nan)
    return np.interp(grid[1:], grid[1:][seen], sums[seen] / counts[seen])


def plot(runs: dict[str, list[dict[str, list[float]]]], args: argparse.Namespace) -> Path:
    """One curve an estimator, with its interval."""
    grid = np.linspace(0, args.steps, POINTS + 1)
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for name, of_seeds in runs.items():
        curves = np.array([curve(run, grid) for run in of_seeds])
        mean = curves.mean(axis=0)
        axes.plot(grid[1:], mean, label=name)
        if len(curves) > 1:
            half = student_t.ppf(0.975, len(curves) - 1) * curves.std(axis=0, ddof=1) / np.sqrt(len(curves))
            axes.fill_between(grid[1:], mean - half, mean + half, alpha=0.15)
    axes.set(title=f"PPO on {args.env}, {args.seeds} seeds", xlabel="environment steps", ylabel="episode return")
    axes.legend()
    file = args.output / f"{args.env.replace('/', '-')}_{args.steps}.png"
    figure.savefig(file, dpi=150)
    return file


def main() -> None:
    """Train what is missing, then plot."""
    hosted = hosted_by_stock_ppo()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="CartPole-v1", help="Gymnasium id of the task")
    parser.add_argument("--steps", type=int, default=50_000, help="environment steps of each run")
    parser.add_argument("--seeds", type=int, default=3, help="number of runs of each estimator")
    parser.add_argument("--estimators", nargs="+", default=hosted, choices=hosted, help="names of estimators")
    parser.add_argument("--output", type=Path, default=Path("compare_estimators"), help="folder for runs and plot")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    print(f"Plot: {plot(run_all(args), args)}")


if __name__ == "__main__":
    main()
