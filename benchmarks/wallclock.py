"""How much processor time PPO takes to solve a task: stock, SBX, and fast.PPO on two backends.

    python benchmarks/wallclock.py --sbx-python sbx/bin/python        # what is not there yet
    python benchmarks/wallclock.py --plot docs/images/wallclock.png   # the table, and a picture

CartPole-v1 is solved when the last 100 training episodes have a mean return of 475, HalfCheetah-v5 when the last 16
have one of 2000. Every method has the same arguments. The clock is the processor time of the process on one thread,
from the first step of ``learn`` on, compilation included: it does not depend on what else the machine does.

A finished run is a file of ``benchmarks/results/wallclock``, so that an interrupted benchmark goes on where it stopped.
SBX needs a Python in which both it and what this package needs are installed; without one its runs are left out.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import stable_baselines3
import torch as th
from runs import spaced, versions
from stable_baselines3.common import env_util
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from threadpoolctl import threadpool_limits

from sb3_pg_ext import fast
from sb3_pg_ext.envs import make_vec_env

RESULTS = Path(__file__).parent / "results" / "wallclock"
N_ENVS = 8
METHODS = {
    "stock": "stock PPO, DummyVecEnv",
    "sbx": "PPO of SBX (JAX), DummyVecEnv",
    "fast": "fast.PPO, DummyVecEnv",
    "envpool": "fast.PPO, EnvPool",
}
COLORS = ("tab:gray", "tab:green", "tab:blue", "tab:red")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}

Task = dict[str, Any]
TASKS: dict[str, Task] = {
    "CartPole-v1": {
        "goal": 475.0,
        "episodes": 100,
        "limit": 300_000,
        "normalize": False,
        "arguments": {
            "n_steps": 32,
            "batch_size": 256,
            "n_epochs": 20,
            "gae_lambda": 0.8,
            "gamma": 0.98,
            "learning_rate": 1e-3,
        },
    },
    "HalfCheetah-v5": {
        "goal": 2000.0,
        "episodes": 16,
        "limit": 1_000_000,
        "normalize": True,
        "arguments": {"n_steps": 256, "batch_size": 64, "policy_kwargs": {"log_std_init": -2.0}},
    },
}


class UntilSolved(BaseCallback):
    """Notes the mean return of the last episodes after every rollout, and ends the training when it is high enough.

    :param goal: so high
    :param n_episodes: so many episodes
    """

    def __init__(self, goal: float, n_episodes: int) -> None:
        super().__init__()
        self.goal, self.n_episodes = goal, n_episodes
        self.curve: list[tuple[int, float, float]] = []
        self.solved = False

    def _on_training_start(self) -> None:
        self.start, self.wall_start = time.process_time(), time.perf_counter()

    def _on_step(self) -> bool:
        return not self.solved

    def _on_rollout_end(self) -> None:
        returns = [episode["r"] for episode in self.model.ep_info_buffer or ()][-self.n_episodes :]
        if len(returns) == self.n_episodes:
            mean = statistics.fmean(returns)
            self.curve.append((self.num_timesteps, round(time.process_time() - self.start, 3), round(mean, 2)))
            self.solved = mean >= self.goal


def environments(task: str, method: str, seed: int) -> VecEnv:
    """The training environments."""
    if method == "envpool":
        env = make_vec_env(task, N_ENVS, seed, backend="envpool")
    else:
        env = env_util.make_vec_env(task, N_ENVS, seed)
    return VecNormalize(env) if TASKS[task]["normalize"] else env


def run(task: str, method: str, seed: int) -> dict[str, Any]:
    """Train once, in this process."""
    th.set_num_threads(1)
    modules = {"stock": stable_baselines3, "fast": fast, "envpool": fast}
    cls = (modules[method] if method in modules else import_module("sbx")).PPO
    what = TASKS[task]
    model = cls(
        "MlpPolicy",
        environments(task, method, seed),
        seed=seed,
        device="cpu",
        **what["arguments"],
    )
    callback = UntilSolved(what["goal"], what["episodes"])
    with threadpool_limits(1):
        model.learn(what["limit"], callback, log_interval=10**9)
    seconds = round(time.process_time() - callback.start, 3)
    return {
        "task": task,
        "method": method,
        "seed": seed,
        "solved": callback.solved,
        "steps": model.num_timesteps,
        "seconds": seconds,
        "wall_seconds": round(time.perf_counter() - callback.wall_start, 3),
        "curve": callback.curve,
        "versions": versions() | ({"sbx": import_module("sbx").__version__} if method == "sbx" else {}),
    }


def path_of(folder: Path, task: str, method: str, seed: int) -> Path:
    """Where a run is kept."""
    return folder / f"{task}-{method}-{seed}.json"


def finished(folder: Path) -> list[dict[str, Any]]:
    """All runs that are there."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def table(runs: list[dict[str, Any]]) -> str:
    """A Markdown table: the median over the seeds, in brackets the smallest and the largest."""
    lines = ["| task | method | seeds | processor time, s | steps |", "|---|---|---|---|---|"]
    for task in TASKS:
        for method, title in METHODS.items():
            chosen = [r for r in runs if (r["task"], r["method"]) == (task, method)]
            if chosen:
                # A run that did not get there counts as longer than all others.
                seconds = sorted(r["seconds"] if r["solved"] else float("inf") for r in chosen)
                steps = sorted(r["steps"] if r["solved"] else float("inf") for r in chosen)
                spread = f"{statistics.median(seconds):.1f} ({seconds[0]:.1f}–{seconds[-1]:.1f})"
                middle = spaced(statistics.median(steps))
                lines.append(f"| {task} | {title} | {len(chosen)} | {spread} | {middle} |")
    return "\n".join(lines)


def plot(runs: list[dict[str, Any]], path: Path) -> None:
    """Mean return of the last episodes over processor time, one line a run."""
    figure, axes = plt.subplots(1, len(TASKS), figsize=(10, 4), layout="constrained")
    for axis, (task, what) in zip(axes, TASKS.items(), strict=True):
        for color, (method, title) in zip(COLORS, METHODS.items(), strict=True):
            chosen = [r for r in runs if (r["task"], r["method"]) == (task, method)]
            for i, one in enumerate(chosen):
                _, seconds, means = zip(*one["curve"], strict=True)
                axis.plot(seconds, means, color=color, alpha=0.7, lw=1, label=None if i else title)
        axis.axhline(what["goal"], color="black", lw=0.8, ls=":")
        axis.set(title=task, xlabel="processor time, s (logarithmic)", xscale="log")
        axis.set_ylabel(f"mean return of the last {what['episodes']} episodes")
        axis.grid(alpha=0.3)
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Make the runs that are missing, each in a process of its own, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="some tasks (default: all)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="some (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=range(5), help="seeds (default: 0 to 4)")
    parser.add_argument("--sbx-python", help="a Python in which SBX is installed")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--plot", type=Path, help="only draw what is there, into this file")
    parser.add_argument("--run", nargs=3, metavar=("TASK", "METHOD", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        task, method, seed = args.run
        print(json.dumps(run(task, method, int(seed))))
        return
    if args.plot:
        plot(finished(args.output), args.plot)
        print(table(finished(args.output)))
        return
    args.output.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        for task in args.tasks:
            for method in args.methods:
                path = path_of(args.output, task, method, seed)
                python = args.sbx_python if method == "sbx" else sys.executable
                if path.exists() or python is None:
                    continue
                command = [python, __file__, "--run", task, method, str(seed)]
                environment = {**os.environ, **ONE_THREAD}
                result = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
                text = result.stdout.splitlines()[-1]
                done = json.loads(text)
                path.write_text(text + "\n")
                verdict = "solved" if done["solved"] else "not solved"
                print(f"{path.stem}: {verdict} after {done['seconds']} s, {done['steps']} steps", flush=True)
    print(table(finished(args.output)))


if __name__ == "__main__":
    main()
