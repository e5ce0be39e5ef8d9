"""What the shipped configurations reach: train each through RL Zoo with several seeds, evaluate, tabulate, plot.

    python benchmarks/learning.py reinforce --seeds 0 1 2 3 4

A finished run is one line of ``benchmarks/results/learning/<algo>.jsonl``, so an interrupted benchmark goes on where it
stopped; a run whose configuration has changed since is made again. The score of a run is the mean return of 100 greedy
episodes of the final policy.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import yaml
from runs import complete, read, versions
from scipy import stats
from stable_baselines3.common.monitor import load_results

from sb3_pg_ext.plugins import AlgorithmSpec, registry
from sb3_pg_ext.plugins.configs import find_config

RESULTS = Path(__file__).parent / "results" / "learning"
N_EPISODES = 100
N_POINTS = 100


def configurations(algo: str) -> dict[str, dict[str, Any]]:
    """The shipped configurations by environment, without ``default`` and ``atari`` and without aliases for v5."""
    entries = yaml.safe_load(find_config(registry().find(AlgorithmSpec, algo).config).read_text())
    special = ("default", "atari")
    return {name: entry for name, entry in entries.items() if name not in special and not name.endswith("-v5")}


def run(algo: str, env_id: str, seed: int, config: dict[str, Any]) -> dict[str, Any]:
    """Train and evaluate once, in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["train", "--algo", algo, "--env", env_id, "--seed", str(seed), "--eval-freq", "-1"]
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "sb3_pg_ext.zoo", *arguments, "-f", folder, "--verbose", "0"],
            check=True,
            capture_output=True,
        )
        seconds = time.perf_counter() - start
        evaluation = subprocess.run(
            [sys.executable, __file__, algo, "--evaluate", env_id, folder, str(seed + 1_000_000)],
            check=True,
            capture_output=True,
            text=True,
        )
        score = json.loads(evaluation.stdout.splitlines()[-1])
    return {
        "env": env_id,
        "seed": seed,
        "config": config,
        "command": " ".join(["sb3-pg", *arguments]),
        "seconds": round(seconds, 1),
        **score,
        "versions": versions(),
    }


def evaluate(algo: str, env_id: str, folder: str, seed: int) -> dict[str, Any]:
    """Mean and standard deviation of the final policy's greedy returns, and the learning curve of the training."""
    from sb3_pg_ext.zoo.evaluation import evaluate_latest_run

    returns, run_folder = evaluate_latest_run(algo, env_id, folder, N_EPISODES, seed)
    episodes = load_results(run_folder)
    steps = episodes.l.cumsum().to_numpy()
    edges = np.linspace(0, steps[-1], N_POINTS + 1)
    bins = np.clip(np.searchsorted(edges, steps, side="left") - 1, 0, N_POINTS - 1)
    points = [(float(edges[i + 1]), float(episodes.r[bins == i].mean())) for i in np.unique(bins)]
    return {
        "mean": round(float(np.mean(returns)), 3),
        "sd": round(float(np.std(returns)), 3),
        "curve": [[round(x), round(y, 2)] for x, y in points],
    }


def describe(run: dict[str, Any]) -> str:
    """The score of a run, in a line."""
    return f"{run['env']} seed {run['seed']}: {run['mean']:.1f} ± {run['sd']:.1f}"


def load_runs(algo: str) -> list[dict[str, Any]]:
    """The finished runs whose configuration is still the shipped one."""
    current = configurations(algo)
    latest = {(run["env"], run["seed"]): run for run in read(RESULTS / f"{algo}.jsonl")}
    return [run for run in latest.values() if current.get(run["env"]) == run["config"]]


def interval(scores: list[float]) -> float:
    """Half the width of Student's 95 % confidence interval of the mean."""
    return float(stats.t.ppf(0.975, len(scores) - 1) * stats.sem(scores)) if len(scores) > 1 else float("nan")


def table(algo: str, runs: list[dict[str, Any]]) -> str:
    """A Markdown table: mean over seeds with its 95 % interval, the worst and the best seed."""
    lines = ["| environment | steps | seeds | return, mean ± 95 % | worst | best |", "|---|---|---|---|---|---|"]
    for env_id, config in configurations(algo).items():
        scores = [run["mean"] for run in runs if run["env"] == env_id]
        if scores:
            steps = f"{int(config['n_timesteps']):,}".replace(",", " ")
            mean = f"{np.mean(scores):.1f} ± {interval(scores):.1f}"
            lines.append(f"| {env_id} | {steps} | {len(scores)} | {mean} | {min(scores):.1f} | {max(scores):.1f} |")
    return "\n".join(lines)


def plot(algo: str, runs: list[dict[str, Any]], path: Path) -> None:
    """Learning curves: the mean training return over seeds with its 95 % interval, against steps."""
    env_ids = [env_id for env_id in configurations(algo) if any(run["env"] == env_id for run in runs)]
    columns = min(3, len(env_ids))
    rows = -(-len(env_ids) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(4 * columns, 3 * rows), layout="constrained", squeeze=False)
    for axes in grid.flat[len(env_ids) :]:
        axes.remove()
    for axes, env_id in zip(grid.flat, env_ids, strict=False):
        curves = [np.array(run["curve"]) for run in runs if run["env"] == env_id]
        steps = np.linspace(0, min(curve[-1, 0] for curve in curves), N_POINTS)
        returns = np.stack([np.interp(steps, *curve.T) for curve in curves])
        mean, half = returns.mean(0), np.array([interval(list(column)) for column in returns.T])
        axes.plot(steps, mean, color="tab:red")
        axes.fill_between(steps, mean - half, mean + half, color="tab:red", alpha=0.2, linewidth=0)
        axes.set(title=f"{env_id} ({len(curves)} seeds)", xlabel="environment steps", ylabel="training return")
        axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Make the runs that are missing, then print the table and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algo", help="the Zoo id, for example reinforce")
    parser.add_argument("--envs", nargs="+", help="some environments (default: all with a configuration)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--workers", type=int, default=2, help="runs side by side (default: 2)")
    parser.add_argument("--plot", type=Path, help="where the figure goes, as PNG")
    parser.add_argument("--evaluate", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.evaluate:
        env_id, folder, seed = options.evaluate
        print(json.dumps(evaluate(options.algo, env_id, folder, int(seed))))
        return
    configs = configurations(options.algo)
    done = {(run["env"], run["seed"]) for run in load_runs(options.algo)}
    tasks = [(env_id, seed) for env_id in options.envs or configs for seed in options.seeds]
    jobs = [
        partial(run, options.algo, env_id, seed, configs[env_id])
        for env_id, seed in tasks
        if (env_id, seed) not in done
    ]
    with ThreadPoolExecutor(options.workers) as pool:
        complete(RESULTS / f"{options.algo}.jsonl", jobs, pool, describe)
    runs = load_runs(options.algo)
    print(table(options.algo, runs))
    if options.plot:
        plot(options.algo, runs, options.plot)


if __name__ == "__main__":
    main()
