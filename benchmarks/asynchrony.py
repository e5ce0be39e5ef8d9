"""What workers gain: A3C with one and with two, beside SB3's A2C, in steps per second and in time to learn.

    python benchmarks/asynchrony.py --repetitions 5
    python benchmarks/asynchrony.py --learning --plot docs/images/a3c.png
    python benchmarks/asynchrony.py --profile
    python benchmarks/asynchrony.py --memory

All sides run one after the other, again and again, and only the ratios of neighbours mean anything; their median is
printed. Every process computes with one thread. A side starts anew each time; its speed is taken from the steps after
the first ``WARM_UP``, without start-up, which is told apart. Run it with two idle cores or more.

With ``--learning`` every side trains on CartPole-v1 for 500 000 steps, A3C with its shipped configuration, A2C with
RL Zoo's. Returns are compared at equal steps and at equal time, start-up included. A finished run is a line of
``benchmarks/results/asynchrony.jsonl``.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np
import torch as th
from runs import Run, complete, read, spaced, versions, with_range
from stable_baselines3 import A2C
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import SubprocVecEnv
from threadpoolctl import threadpool_limits

from sb3_pg_ext import A3C
from sb3_pg_ext.algorithms.a3c import worker as worker_module
from sb3_pg_ext.algorithms.a3c.shared_state import SharedState
from sb3_pg_ext.algorithms.a3c.worker import Worker
from sb3_pg_ext.envs.fast_dummy import FastDummyVecEnv
from sb3_pg_ext.functional.tensors.distributions import unvalidated_distributions
from sb3_pg_ext.gradients.array_backend import ArrayBackend
from sb3_pg_ext.gradients.objectives import Objective
from sb3_pg_ext.rollouts.action_sampling import MLPActionSampler
from sb3_pg_ext.workers.process import WorkerContext

RESULTS = Path(__file__).parent / "results" / "asynchrony.jsonl"
ENV_ID = "CartPole-v1"
N_STEPS = 5
WARM_UP = 2_000
N_TIMESTEPS = 500_000
TARGET = 400


def a3c(env_id: str, n_workers: int, n_steps: int = N_STEPS) -> A3C:
    """A3C with so many workers."""
    return A3C("MlpPolicy", env_id, n_workers=n_workers, n_steps=n_steps, seed=0)


def a2c(env_id: str, n_envs: int, **kwargs: Any) -> A2C:
    """SB3's A2C with so many environments."""
    return A2C("MlpPolicy", make_vec_env(env_id, n_envs, seed=0, **kwargs), n_steps=N_STEPS, seed=0, device="cpu")


SIDES: dict[str, Callable[[str], BaseAlgorithm]] = {
    "A3C, 2 workers": lambda env_id: a3c(env_id, 2),
    "A3C, 1 worker": lambda env_id: a3c(env_id, 1),
    "A2C, SubprocVecEnv of 2": lambda env_id: a2c(env_id, 2, vec_env_cls=SubprocVecEnv),
    "A3C, 2 workers, 40 steps an update": lambda env_id: a3c(env_id, 2, 8 * N_STEPS),
    "A2C, 8 environments in one process": lambda env_id: a2c(env_id, 8),
}
RATIOS = (
    ("A3C, 2 workers", "A3C, 1 worker"),
    ("A3C, 2 workers", "A2C, SubprocVecEnv of 2"),
    ("A3C, 2 workers", "A2C, 8 environments in one process"),
    ("A3C, 2 workers, 40 steps an update", "A2C, 8 environments in one process"),
)


def speed_table(speeds: dict[str, list[float]], ratios: Sequence[tuple[str, str]]) -> str:
    """A Markdown table: steps per second of one side, and the ratio to another's: median, least and most."""
    lines = ["| | steps/s | ratio of steps/s |", "|---|---|---|"]
    for one, other in ratios:
        found = [a / b for a, b in zip(speeds[one], speeds[other], strict=True)]
        lines.append(f"| {one} ÷ {other} | {spaced(round(statistics.median(speeds[one]), -2))} | {with_range(found)} |")
    return "\n".join(lines)


class Stopwatch(BaseCallback):
    """Notes when the first step is known, and when the warm-up is over."""

    first_time = 0.0
    start: tuple[int, float] | None = None

    def _on_step(self) -> bool:
        self.first_time = self.first_time or time.perf_counter()
        if self.start is None and self.num_timesteps >= WARM_UP:
            self.start = self.num_timesteps, time.perf_counter()
        return True


def measure(model: BaseAlgorithm, n_timesteps: int) -> tuple[float, float]:
    """Steps per second after the warm-up, and seconds from the call of ``learn`` to the first step."""
    stopwatch = Stopwatch()
    begin = time.perf_counter()
    model.learn(WARM_UP + n_timesteps, stopwatch, log_interval=None)  # type: ignore[arg-type]
    assert stopwatch.start is not None
    steps_before, time_before = stopwatch.start
    speed = (model.num_timesteps - steps_before) / (time.perf_counter() - time_before)
    if model.env is not None:
        model.env.close()
    return speed, stopwatch.first_time - begin


PARTS: dict[str, tuple[Any, str]] = {
    "steps of the environment": (FastDummyVecEnv, "step"),
    "choosing actions": (MLPActionSampler, "__call__"),
    "an actor for the rollout": (Worker, "_make_action_sampler"),
    "log π, entropy and V": (ArrayBackend, "evaluate_actions"),
    "V of the last state, advantages, returns": (worker_module, "assess"),
    "loss": (Objective, "__call__"),
    "gradient": (ArrayBackend, "backward"),
    "step of the shared optimiser": (Worker, "_apply_gradient"),
    "taking the parameters": (Worker, "take_parameters"),
}


def profile(env_id: str, n_updates: int = 5000) -> str:
    """A Markdown table of what a worker's update consists of; the worker works in this process."""
    seconds = dict.fromkeys(PARTS, 0.0)

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            seconds[part] += time.perf_counter() - start
            return result

        return wrapper

    model = a3c(env_id, 1)
    model._total_timesteps = sys.maxsize
    assert model.env is not None
    (config,) = model._make_configs(model.env)
    shared = SharedState.of(model._optimizer, 1, {})
    worker = Worker(WorkerContext(0, 0, config, shared, lambda report: None))  # reports come on top: twenty in a second
    worker.open()
    with ExitStack() as scope:
        scope.enter_context(unvalidated_distributions())
        scope.enter_context(np.errstate(all="ignore"))
        for part, (owner, name) in PARTS.items():
            scope.enter_context(patch.object(owner, name, timed(part, getattr(owner, name))))
        for _ in range(n_updates // 10):
            worker.work()
        seconds.update(dict.fromkeys(PARTS, 0.0))
        start = time.perf_counter()
        for _ in range(n_updates):
            worker.work()
        total = time.perf_counter() - start
    rows = {**seconds, "everything else": total - sum(seconds.values()), "together": total}
    head = [f"| an update of {N_STEPS} steps by one worker | µs |", "|---|---|"]
    return "\n".join(head + [f"| {part} | {spent / n_updates * 1e6:.0f} |" for part, spent in rows.items()])


class Memory(BaseCallback):
    """Notes, for every worker, what of its memory is its own, and what it sees in all, in MiB; then the training ends.

    :param after: at this step
    """

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after, self.found = after, np.empty((0, 2))

    def _on_step(self) -> bool:
        if self.num_timesteps < self.after:
            return True
        model: Any = self.model
        self.found = np.array([self.of_process(pid) for pid in model._pool.pids])
        return False

    @staticmethod
    def of_process(pid: int) -> tuple[float, float]:
        """What is private, and what is resident."""
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        kib = {key: int(rest.split()[0]) for key, _, rest in (line.partition(":") for line in lines)}
        return (kib["Private_Clean"] + kib["Private_Dirty"]) / 1024, kib["Rss"] / 1024


def memory(env_id: str, n_workers: int = 3) -> str:
    """A Markdown table of what a worker takes of the memory, after 20 000 steps: medians."""
    callback = Memory(20_000)
    a3c(env_id, n_workers).learn(1_000_000, callback, log_interval=None)
    own, resident = np.median(callback.found, axis=0)
    lines = ["| a worker's memory | MiB |", "|---|---|", f"| its own | {own:.0f} |"]
    return "\n".join([*lines, f"| with what it shares | {resident:.0f} |"])


def learner(n_workers: int, seed: int) -> A3C:
    """A3C as it is shipped for CartPole-v1."""
    schedule = LinearSchedule(7e-4, 0.0, 1.0)
    settings: dict[str, Any] = {"n_steps": 16, "gamma": 0.98, "gae_lambda": 0.95, "use_rms_prop": False}
    return A3C("MlpPolicy", ENV_ID, schedule, n_workers=n_workers, seed=seed, **settings)


LEARNERS: dict[str, Callable[[int], BaseAlgorithm]] = {
    "A3C, 2 workers": lambda seed: learner(2, seed),
    "A3C, 1 worker": lambda seed: learner(1, seed),
    "A2C, 8 environments in one process": lambda seed: A2C(
        "MlpPolicy", make_vec_env(ENV_ID, 8, seed=seed), ent_coef=0.0, seed=seed, device="cpu"
    ),
}


class Curve(BaseCallback):
    """Notes seconds, steps and the mean return of the last 100 episodes, a hundred times."""

    def __init__(self) -> None:
        super().__init__()
        self.points: list[tuple[float, int, float]] = []
        self._begin = time.perf_counter()

    def _on_step(self) -> bool:
        episodes = self.model.ep_info_buffer
        if episodes and self.num_timesteps >= N_TIMESTEPS * (len(self.points) + 1) / 100:
            mean_return = float(np.mean([episode["r"] for episode in episodes]))
            self.points.append((round(time.perf_counter() - self._begin, 2), self.num_timesteps, mean_return))
        return True


def learn(side: str, seed: int) -> Run:
    """Train once, and evaluate."""
    model, curve = LEARNERS[side](seed), Curve()
    model.learn(N_TIMESTEPS, curve, log_interval=None)  # type: ignore[arg-type]
    returns, _ = evaluate_policy(model, make_vec_env(ENV_ID, seed=seed + 1_000_000), 100)
    return {"side": side, "seed": seed, "score": returns, "curve": curve.points, "versions": versions()}


def time_to(target: float, run: Run) -> float:
    """Seconds until the mean return has reached a target; infinity if it never did."""
    return next((seconds for seconds, _, mean_return in run["curve"] if mean_return >= target), float("inf"))


def return_after(duration: float, run: Run) -> float:
    """The mean return after so many seconds."""
    known = [mean_return for seconds, _, mean_return in run["curve"] if seconds <= duration]
    return known[-1] if known else float("nan")


def learning_table(runs: list[Run]) -> str:
    """A Markdown table: scores, times to learn, and the training return when A3C's two workers are through."""
    by_side = {side: [run for run in runs if run["side"] == side] for side in LEARNERS}
    first, *_ = by_side.values()
    duration = statistics.median(run["curve"][-1][0] for run in first)
    lines = [
        f"| | greedy return, by seed | seconds to {TARGET}: median (all) | return after {duration:.0f} s, by seed |",
        "|---|---|---|---|",
    ]
    for side, chosen in by_side.items():
        times = [time_to(TARGET, run) for run in chosen]
        cells = [
            ", ".join(f"{run['score']:.0f}" for run in chosen),
            f"{statistics.median(times):.1f} (" + ", ".join(f"{seconds:.1f}" for seconds in times) + ")",
            ", ".join(f"{return_after(duration, run):.0f}" for run in chosen),
        ]
        lines.append(f"| {side.removesuffix(' in one process')} | " + " | ".join(cells) + " |")
    return "\n".join(lines).replace("inf", "never")


def plot(runs: list[Run], path: Path) -> None:
    """Mean training returns against steps and against seconds, a line for every seed."""
    figure, (by_step, by_second) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharey=True)
    for side, color in zip(LEARNERS, ("tab:red", "tab:orange", "tab:blue"), strict=True):
        for number, run in enumerate(run for run in runs if run["side"] == side):
            seconds, steps, returns = zip(*run["curve"], strict=True)
            label = side if number == 0 else None
            by_step.plot(np.array(steps) / 1000, returns, color=color, alpha=0.6, label=label)
            by_second.plot(seconds, returns, color=color, alpha=0.6)
    by_step.set(xlabel="thousand environment steps", ylabel="mean return of 100 episodes")
    by_second.set(xlabel="seconds")
    by_step.legend(fontsize="small")
    for axes in (by_step, by_second):
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def compare_learning(seeds: list[int], figure: Path | None) -> None:
    """Make the runs that are missing, one after the other, side after side, and print the table."""
    done = {(run["side"], run["seed"]) for run in read(RESULTS)}
    jobs = [partial(learn, side, seed) for seed in seeds for side in LEARNERS if (side, seed) not in done]
    complete(RESULTS, jobs, None, lambda run: f"{run['side']}, seed {run['seed']}: {run['score']:.1f}")
    runs = [run for run in read(RESULTS) if run["seed"] in seeds]
    print(learning_table(runs))
    if figure:
        plot(runs, figure)


def main() -> None:
    """Measure all sides, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default=ENV_ID)
    parser.add_argument("--n-timesteps", type=int, default=50_000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--learning", action="store_true", help="compare what is learned, and how soon")
    parser.add_argument("--profile", action="store_true", help="show what a worker's time goes into")
    parser.add_argument("--memory", action="store_true", help="show what memory a worker takes")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="of --learning")
    parser.add_argument("--plot", type=Path, help="where the figure of --learning goes, as PNG")
    options = parser.parse_args()
    th.set_num_threads(1)
    if options.profile:
        with threadpool_limits(1):
            print(profile(options.env))
        return
    if options.memory:  # not from this script: each worker would import it, and all that it imports
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import asynchrony"
        subprocess.run([sys.executable, "-c", f"{code}; print(asynchrony.memory({options.env!r}))"], check=True)
        return
    if options.learning:
        with threadpool_limits(1):
            compare_learning(options.seeds, options.plot)
        return
    speeds: dict[str, list[float]] = {side: [] for side in SIDES}
    with threadpool_limits(1):
        for _ in range(options.repetitions):
            for side, make in SIDES.items():
                speed, start_up = measure(make(options.env), options.n_timesteps)
                speeds[side].append(speed)
                print(f"{side}: {speed:.0f} steps/s, first step after {start_up:.1f} s", flush=True)
    print(speed_table(speeds, RATIOS))


if __name__ == "__main__":
    main()
