"""Steps per second: this package against stock SB3 and sb3-contrib, and against the environment alone.

    python benchmarks/throughput.py             # the table of ratios
    python benchmarks/throughput.py --threads   # one thread against all

Every comparison runs in a process of its own, on one thread, and alternates between the two sides: A, B, A, B, … Only
ratios mean anything on a machine that others use, too: of each repetition B's neighbour A, of all of them the median.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sb3_contrib
import stable_baselines3
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from threadpoolctl import threadpool_limits

import sb3_pg_ext
from sb3_pg_ext import REINFORCE, fast

RESULTS = Path(__file__).parent / "results" / "throughput.json"
COLUMNS = [("CartPole-v1", 1), ("HalfCheetah-v5", 1), ("CartPole-v1", 8), ("HalfCheetah-v5", 8)]
STEPS_PER_UPDATE = 2048

Run = Callable[[], int]
"""Does some work and returns how many environment steps it made."""


def training(cls: type[BaseAlgorithm], env: VecEnv) -> Run:
    """Whole training: rollouts and updates."""
    model = cls("MlpPolicy", env, n_steps=STEPS_PER_UPDATE // env.num_envs, device="cpu", seed=0)  # type: ignore[call-arg]

    def run() -> int:
        before = model.num_timesteps
        model.learn(2 * STEPS_PER_UPDATE, reset_num_timesteps=False)
        return model.num_timesteps - before

    return run


def rollouts(cls: type[OnPolicyAlgorithm], env: VecEnv) -> Run:
    """Rollouts without updates, with values, log-probabilities and advantages."""
    n_steps = STEPS_PER_UPDATE // env.num_envs
    model = cls("MlpPolicy", env, n_steps=n_steps, device="cpu", seed=0)  # type: ignore[call-arg]
    _, callback = model._setup_learn(10**9, CallbackList([]))

    def run() -> int:
        for _ in range(2):
            model.collect_rollouts(env, callback, model.rollout_buffer, n_steps)
        return 2 * STEPS_PER_UPDATE

    return run


def environment_alone(env: VecEnv) -> Run:
    """The VecEnv with actions drawn beforehand."""
    env.reset()
    rng = np.random.default_rng(0)
    env.action_space.seed(0)
    actions = [np.stack([env.action_space.sample() for _ in range(env.num_envs)]) for _ in range(64)]
    order = rng.integers(64, size=2 * STEPS_PER_UPDATE // env.num_envs)

    def run() -> int:
        for i in order:
            env.step(actions[i])
        return len(order) * env.num_envs

    return run


COMPARISONS: dict[str, tuple[str, Callable[[VecEnv], Run], Callable[[VecEnv], Run]]] = {
    "rollout": (
        "rollout of `fast.PPO` ÷ VecEnv alone",
        lambda env: rollouts(fast.PPO, env),
        environment_alone,
    ),
    "stock-rollout": (
        "rollout of stock PPO ÷ VecEnv alone",
        lambda env: rollouts(stable_baselines3.PPO, env),
        environment_alone,
    ),
    "reinforce": (
        "`REINFORCE` ÷ SB3 A2C",
        lambda env: training(REINFORCE, env),
        lambda env: training(stable_baselines3.A2C, env),
    ),
    "a2c": (
        "`fast.A2C` ÷ stock A2C",
        lambda env: training(fast.A2C, env),
        lambda env: training(stable_baselines3.A2C, env),
    ),
    "ppo": (
        "`fast.PPO` ÷ stock PPO",
        lambda env: training(fast.PPO, env),
        lambda env: training(stable_baselines3.PPO, env),
    ),
    "trpo": (
        "`fast.TRPO` ÷ stock TRPO",
        lambda env: training(fast.TRPO, env),
        lambda env: training(sb3_contrib.TRPO, env),
    ),
}


def measure(comparison: str, env_id: str, n_envs: int, repetitions: int) -> dict[str, Any]:
    """Alternate between the two sides of a comparison and return all speeds, in steps per second."""
    th.set_num_threads(1)
    _, make_ours, make_theirs = COMPARISONS[comparison]
    runs = {
        "ours": make_ours(make_vec_env(env_id, n_envs, seed=0)),
        "theirs": make_theirs(make_vec_env(env_id, n_envs, seed=0)),
    }
    speeds: dict[str, list[float]] = {"ours": [], "theirs": []}
    with threadpool_limits(1):
        for repetition in range(repetitions + 1):
            for side, run in runs.items():
                start = time.perf_counter()
                steps = run()
                if repetition > 0:  # the first one warms up
                    speeds[side].append(steps / (time.perf_counter() - start))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"comparison": comparison, "env": env_id, "n_envs": n_envs, **speeds, "peak_mib": peak_mib}


def train_without_limits(n_updates: int) -> float:
    """Seconds that REINFORCE takes for some updates, on the threads that the environment variable grants."""
    model = REINFORCE("MlpPolicy", make_vec_env("CartPole-v1", 8, seed=0), n_steps=512, device="cpu", seed=0)
    model.learn(1)
    start = time.perf_counter()
    model.learn(n_updates * 512 * 8)
    return time.perf_counter() - start


def measure_threads(repetitions: int) -> list[dict[str, Any]]:
    """The same training on one thread and on all, alone and with a twin beside it; all times, in seconds."""
    command = [sys.executable, __file__, "--train-without-limits", "20"]
    results: list[dict[str, Any]] = [
        {"threads": threads, "side_by_side": side_by_side, "seconds": []}
        for threads in ("1", "0")
        for side_by_side in (1, 2)
    ]
    for _ in range(repetitions):
        for result in results:
            environment = os.environ | {"SB3_PG_EXT_THREADS": result["threads"]}
            processes = [
                subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
                for _ in range(result["side_by_side"])
            ]
            result["seconds"] += [float(process.communicate()[0].split()[-1]) for process in processes]
    return results


def threads_table(results: list[dict[str, Any]]) -> str:
    """A Markdown table of the times, relative to one thread alone."""
    median = {(r["threads"], r["side_by_side"]): statistics.median(r["seconds"]) for r in results}
    lines = ["| threads | one training | two side by side |", "|---|---|---|"]
    for threads, title in (("1", "1"), ("0", "all")):
        alone, beside = (median[threads, n] / median["1", 1] for n in (1, 2))
        lines.append(f"| {title} | {alone:.2f} | {beside:.2f} |")
    return "\n".join(lines)


def table(results: list[dict[str, Any]]) -> str:
    """A Markdown table of the ratios: median, and in brackets the smallest and the largest."""
    lines = [
        "| ratio of steps/s | " + " | ".join(f"{env_id} × {n_envs}" for env_id, n_envs in COLUMNS) + " |",
        "|---" * (1 + len(COLUMNS)) + "|",
    ]
    for name, (title, _, _) in COMPARISONS.items():
        cells = []
        for env_id, n_envs in COLUMNS:
            found = [r for r in results if (r["comparison"], r["env"], r["n_envs"]) == (name, env_id, n_envs)]
            if found:
                ratios = [ours / theirs for ours, theirs in zip(found[0]["ours"], found[0]["theirs"], strict=True)]
                cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})")
            else:
                cells.append("")
        if any(cells):
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def versions() -> dict[str, str]:
    """What was measured."""
    modules = (sb3_pg_ext, stable_baselines3, sb3_contrib, th, np)
    return {module.__name__: module.__version__ for module in modules} | {"python": platform.python_version()}


def write(path: Path, results: list[dict[str, Any]]) -> None:
    """Write results with the versions that they were measured with."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"versions": versions(), "results": results}, indent=1) + "\n")


def main() -> None:
    """Run every comparison in a process of its own, print the table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=COMPARISONS, default=list(COMPARISONS), help="some comparisons")
    parser.add_argument("--columns", nargs="+", type=int, choices=range(4), default=range(4), help="some columns")
    parser.add_argument("--repetitions", type=int, default=7, help="counted repetitions of each side (default: 7)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the results go, as JSON")
    parser.add_argument("--threads", action="store_true", help="compare one thread with all instead")
    parser.add_argument("--train-without-limits", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=3, metavar=("COMPARISON", "ENV", "N"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        comparison, env_id, n_envs = options.one
        print(json.dumps(measure(comparison, env_id, int(n_envs), options.repetitions)))
        return
    if options.train_without_limits:
        print(train_without_limits(options.train_without_limits))
        return
    if options.threads:
        results = measure_threads(options.repetitions)
        write(options.output.with_name("threads.json"), results)
        print(threads_table(results))
        return
    results = []
    for comparison in options.only:
        for column in options.columns:
            env_id, n_envs = COLUMNS[column]
            print(f"{comparison}: {env_id} × {n_envs}", file=sys.stderr)
            command = [sys.executable, __file__, "--one", comparison, env_id, str(n_envs)]
            command += ["--repetitions", str(options.repetitions)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results.append(json.loads(output.splitlines()[-1]))
    write(options.output, results)
    print(table(results))


if __name__ == "__main__":
    main()
