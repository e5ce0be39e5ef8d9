"""Whether both engines learn the same: training returns with autograd and with arrays, from the same seeds.

    python benchmarks/engines.py
    python benchmarks/engines.py --speed      # of PPO: compiled, in NumPy alone, and stock
    python benchmarks/engines.py --compiled   # returns of short trainings on all three engines
    python benchmarks/engines.py --drift      # how far parameters come apart in one training

A finished run is a line of ``benchmarks/results/engines.jsonl``, so an interrupted benchmark goes on where it stopped.
The score of a run is the mean return of the last 100 episodes of its training.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from runs import Run, complete, processes, read, spaced, versions, with_range
from scipy import stats
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from throughput import alternate, training

from sb3_pg_ext import NPG, AdaptiveKLPPO, fast

RESULTS = Path(__file__).parent / "results" / "engines.jsonl"
ALGORITHMS: dict[str, type[OnPolicyAlgorithm]] = {"fast.PPO": fast.PPO, "NPG": NPG}
ENGINES = ("autograd", "array")
N_ENVS, N_STEPS = 4, 512

TASKS: dict[str, tuple[int, Callable[[VecEnv], VecEnv]]] = {
    "CartPole-v1": (100_000, lambda env: env),
    "HalfCheetah-v4": (300_000, lambda env: VecNormalize(env, gamma=0.99)),
}


def train(algorithm: str, env_id: str, engine: str, seed: int) -> Run:
    """Train once; the score is the mean return of the last 100 episodes."""
    start = time.perf_counter()
    n_timesteps, wrap = TASKS[env_id]
    env = wrap(make_vec_env(env_id, N_ENVS, seed=seed))
    arguments: dict[str, Any] = {"n_steps": N_STEPS, "seed": seed, "device": "cpu", "engine": engine}
    model = ALGORITHMS[algorithm]("MlpPolicy", env, **arguments).learn(n_timesteps)
    assert model.ep_info_buffer is not None
    return {
        "algorithm": algorithm,
        "env": env_id,
        "engine": engine,
        "seed": seed,
        "score": round(float(np.mean([episode["r"] for episode in model.ep_info_buffer])), 2),
        "seconds": round(time.perf_counter() - start, 1),
        "versions": versions(),
    }


def describe(run: Run) -> str:
    """The score of a run, in a line."""
    return f"{run['algorithm']}, {run['env']}, {run['engine']}, seed {run['seed']}: {run['score']:.1f}"


def table(runs: list[Run]) -> str:
    """A Markdown table: mean over seeds and its 95 % interval (Student), and that of the difference (Welch)."""
    lines = ["| | environment | steps | autograd | arrays | arrays − autograd |", "|---|---|---|---|---|---|"]
    for algorithm in ALGORITHMS:
        for env_id, (n_timesteps, _) in TASKS.items():
            scores = {
                engine: [
                    r["score"] for r in runs if (r["algorithm"], r["env"], r["engine"]) == (algorithm, env_id, engine)
                ]
                for engine in ENGINES
            }
            if min(map(len, scores.values())) > 1:
                cells = [
                    f"{np.mean(s):.0f} ± {stats.t.ppf(0.975, len(s) - 1) * stats.sem(s):.0f}" for s in scores.values()
                ]
                if max(map(np.ptp, scores.values())) > 0:
                    test = stats.ttest_ind(scores["array"], scores["autograd"], equal_var=False)
                    interval = tuple(test.confidence_interval())
                else:  # no spread, nothing to estimate
                    interval = (float(np.mean(scores["array"]) - np.mean(scores["autograd"])),) * 2
                difference = " … ".join(f"{round(end) + 0:+d}" for end in interval)
                steps = spaced(n_timesteps)
                lines.append("| " + " | ".join([algorithm, env_id, steps, *cells, difference]) + " |")
    return "\n".join(lines)


SIZES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "CartPole-v1, 8 × 256 steps, minibatch 64": ("CartPole-v1", 8, {"n_steps": 256}),
    "CartPole-v1, 64 × 64 steps, minibatch 512": ("CartPole-v1", 64, {"n_steps": 64, "batch_size": 512}),
    "HalfCheetah-v5, 8 × 256 steps, minibatch 64": ("HalfCheetah-v5", 8, {"n_steps": 256}),
}


def speed(repetitions: int = 5) -> str:
    """A Markdown table of PPO's steps per second with a compiled minibatch and without, beside stock PPO."""
    lines = ["| ratio of steps/s to stock PPO, and steps/s | compiled | NumPy alone | stock |", "|---|---|---|---|"]
    for title, (env_id, n_envs, arguments) in SIZES.items():
        classes: dict[str, Any] = {engine: partial(fast.PPO, engine=engine) for engine in ("compiled", "array")}
        sides = {
            name: training(cls, make_vec_env(env_id, n_envs, seed=0), **arguments)
            for name, cls in {**classes, "stock": PPO}.items()
        }
        speeds = alternate(sides, repetitions)
        cells = []
        for engine in ("compiled", "array"):
            ratios = np.divide(speeds[engine], speeds["stock"]).tolist()
            cells.append(f"{with_range(ratios)}, {spaced(round(np.median(speeds[engine]), -2))}")
        lines.append(f"| {title} | {' | '.join(cells)} | {spaced(round(np.median(speeds['stock']), -2))} |")
    return "\n".join(lines)


SHORT: dict[str, tuple[Any, dict[str, Any]]] = {
    "`fast.PPO`": (fast.PPO, {"n_steps": 256}),
    "`AdaptiveKLPPO`": (AdaptiveKLPPO, {"n_steps": 256}),
    "`fast.A2C`, 5 steps": (fast.A2C, {"n_steps": 5}),
}


def compiled(seeds: list[int], n_timesteps: int = 20_480) -> str:
    """A Markdown table of mean returns of the last 100 episodes, by seed, on CartPole-v1 × 8."""
    lines = ["| | compiled | NumPy | autograd |", "|---|---|---|---|"]
    for title, (cls, arguments) in SHORT.items():
        cells = []
        for engine in ("compiled", "array", "autograd"):
            scores = []
            for seed in seeds:
                env = make_vec_env("CartPole-v1", 8, seed=seed)
                model = cls("MlpPolicy", env, seed=seed, device="cpu", engine=engine, **arguments).learn(n_timesteps)
                assert model.ep_info_buffer is not None
                scores.append(np.mean([episode["r"] for episode in model.ep_info_buffer]))
            cells.append(", ".join(f"{score:.0f}" for score in scores))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def parameters(engine: str, updates: tuple[int, ...], rounding: int | None = None) -> list[np.ndarray]:
    """All parameters of NPG on Pendulum-v1 after so many updates each.

    :param engine: how it differentiates
    :param updates: how many, ascending
    :param rounding: seed of a change of every parameter by a unit in the last place, before the first update
    """
    model = NPG("MlpPolicy", "Pendulum-v1", n_steps=128, seed=0, device="cpu", engine=engine)
    if rounding is not None:
        draw = np.random.default_rng(rounding)
        for parameter in model.policy.parameters():
            ends = np.where(draw.random(parameter.shape) < 0.5, -np.inf, np.inf).astype(np.float32)
            parameter.data = th.nextafter(parameter.data, th.as_tensor(ends))
    found = []
    for n_updates in updates:
        model.learn(128 * n_updates - model.num_timesteps, reset_num_timesteps=False)
        found.append(th.nn.utils.parameters_to_vector(model.policy.parameters()).detach().numpy().copy())
    return found


def drift(updates: tuple[int, ...] = (1, 10, 20), n_roundings: int = 5) -> str:
    """A Markdown table of the largest difference of parameters, between engines and of rounding alone."""
    autograd = parameters("autograd", updates)

    def apart(others: list[np.ndarray]) -> list[float]:
        return [float(np.abs(one - other).max()) for one, other in zip(autograd, others, strict=True)]

    arrays = apart(parameters("array", updates))
    rounded = np.array([apart(parameters("autograd", updates, seed)) for seed in range(n_roundings)])
    least_to_most = (f"{column.min():.0e} to {column.max():.0e}" for column in rounded.T)
    heads = " | ".join(f"{n} updates" for n in updates).replace("1 updates", "1 update")
    return "\n".join(
        [
            f"| difference | {heads} |",
            "|---" * (1 + len(updates)) + "|",
            f"| arrays and autograd | {' | '.join(f'{x:.0e}' for x in arrays)} |",
            f"| autograd, and autograd from such parameters | {' | '.join(least_to_most)} |",
        ]
    )


def main() -> None:
    """Make the runs that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs side by side (default: one a core)")
    parser.add_argument("--speed", action="store_true", help="compare the speed of PPO instead")
    parser.add_argument("--compiled", action="store_true", help="compare short trainings on all engines instead")
    parser.add_argument("--drift", action="store_true", help="compare the parameters of one training instead")
    options = parser.parse_args()
    if options.speed or options.compiled or options.drift:
        th.set_num_threads(1)
        print(speed() if options.speed else compiled(options.seeds) if options.compiled else drift())
        return
    done = {(run["algorithm"], run["env"], run["engine"], run["seed"]) for run in read(RESULTS)}
    wanted = [
        (algorithm, env_id, engine, seed)
        for seed in options.seeds
        for algorithm in ALGORITHMS
        for env_id in TASKS
        for engine in ENGINES
    ]
    jobs = [partial(train, *run) for run in wanted if run not in done]
    with processes(options.workers) as pool:
        complete(RESULTS, jobs, pool, describe)
    print(table(read(RESULTS)))


if __name__ == "__main__":
    main()
