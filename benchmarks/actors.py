"""IMPALA beside A3C: steps per second, what a slow environment gains by many actors, and what lag does to learning.

    python benchmarks/actors.py --repetitions 5
    python benchmarks/actors.py --rllib rllib/bin/python --sides "RLlib's IMPALA, 2 env runners" "IMPALA, 2 actors"
    python benchmarks/actors.py --sleep
    python benchmarks/actors.py --learning --plot docs/images/impala_lag.png
    python benchmarks/actors.py --simulate --plot docs/images/impala_actors.png
    python benchmarks/actors.py --kill 120

All sides of a comparison run one after the other, again and again, and only the ratios of neighbours mean anything.
Speeds are those after the first 2000 steps, without start-up. Every process computes with one thread.

With ``--learning`` every side trains on CartPole-v1 with the shipped configuration, or with its learning rate, 1e-3,
lowered to 3e-4. A forced lag keeps every unroll back for so many updates. A finished run is a line of
``benchmarks/results/actors.jsonl``. With ``--kill`` some actor is killed every 5 seconds, for so many seconds. With
``--simulate`` seconds of unrolls and of updates are measured, and up to 1024 actors that take as long are simulated.
"""

import argparse
import heapq
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
import torch as th
from asynchrony import Curve, measure, speed_table
from runs import Run, complete, read, versions
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import LinearSchedule
from threadpoolctl import threadpool_limits

from sb3_pg_ext import A3C, IMPALA
from sb3_pg_ext.workers.actors import Delivery

RESULTS = Path(__file__).parent / "results" / "actors.jsonl"
ENV_ID = "CartPole-v1"
N_TIMESTEPS = 500_000
SLEEP = 0.005
CARTPOLE: dict[str, Any] = {
    "n_steps": 32,
    "batch_size": 1,
    "gamma": 0.98,
    "advantage_estimator_kwargs": {"lambda_": 0.95},
    "use_rms_prop": False,
}


def impala(env: Any, n_actors: int, **kwargs: Any) -> IMPALA:
    """IMPALA with so many actors."""
    return IMPALA("MlpPolicy", env, n_actors=n_actors, **{"n_steps": 40, "seed": 0, "device": "cpu", **kwargs})


RLLIB = "RLlib's IMPALA, 2 env runners"
SIDES = {
    "A3C, 2 workers": lambda: A3C("MlpPolicy", ENV_ID, n_workers=2, n_steps=40, seed=0),
    "IMPALA, 2 actors": lambda: impala(ENV_ID, 2),
    "IMPALA on Ray, 2 actors": lambda: impala(ENV_ID, 2, backend="ray"),
}


def measure_rllib(python: str, seconds: float = 20.0) -> float:
    """Steps per second of RLlib's, in a process of its own."""
    script = Path(__file__).parent / "peers" / "rllib_impala.py"
    process = subprocess.run([python, script, str(seconds)], check=True, stdout=subprocess.PIPE, text=True)
    return float(json.loads(process.stdout.splitlines()[-1])["steps_per_second"])


def compare_speeds(sides: list[str], repetitions: int, n_timesteps: int, rllib: str | None) -> None:
    """Print the speed of all sides, and what they are of the first one's."""
    speeds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(repetitions):
        for side in sides:
            if side == RLLIB:
                speed = measure_rllib(rllib or sys.executable)
            else:
                speed, _ = measure(SIDES[side](), n_timesteps)
            speeds[side].append(speed)
            print(f"{side}: {speed:.0f} steps/s", flush=True)
    first, *others = sides
    print(speed_table(speeds, [(other, first) for other in others]))


class Slow(gym.Wrapper[Any, Any, Any, Any]):
    """A step takes 5 ms, which cost no time of a processor."""

    def step(self, action: Any) -> Any:
        """Sleep, and make the step."""
        time.sleep(SLEEP)
        return super().step(action)


def make_slow() -> gym.Env:
    """CartPole, slowly."""
    return Slow(gym.make(ENV_ID))


def compare_sleepers(n_actors: int, seconds: float) -> None:
    """Print what many actors gain with an environment that waits."""
    print("| actors | steps/s | ratio |\n|---|---|---|")
    alone = None
    for n in (1, n_actors):
        speed, _ = measure(impala(make_slow, n, batch_size=1, n_steps=20), int(seconds * n * 150))
        alone = alone or speed
        print(f"| {n} | {speed:.0f} | {speed / alone:.1f} |", flush=True)


class Lagging(IMPALA):
    """Every unroll is learned from so many updates later than it might be."""

    forced_lag = 10

    def _next_delivery(self) -> Delivery:
        if self._version == 0 and not self._fresh:
            self._held: deque[Delivery] = deque()
        while len(self._held) < self.forced_lag * self.batch_size + 1:
            self._request()
            self._held.append(super()._next_delivery())
        return self._held.popleft()


def uncorrected() -> dict[str, Any]:
    """The same returns, without ratios."""
    return {"advantage_estimator": "gae", "gae_lambda": 0.95, "advantage_estimator_kwargs": None}


LEARNERS: dict[str, tuple[type[IMPALA], dict[str, Any]]] = {
    "V-trace": (IMPALA, {}),
    "V-trace on Ray": (IMPALA, {"backend": "ray"}),
    "V-trace, lag of 10": (Lagging, {}),
    "uncorrected, lag of 10": (Lagging, uncorrected()),
}
SMALLER = " (3e-4)"
LEARNERS |= {side + SMALLER: choice for side, choice in LEARNERS.items() if "Ray" not in side}


def learn(side: str, seed: int, n_timesteps: int) -> Run:
    """Train once, and evaluate."""
    cls, kwargs = LEARNERS[side]
    schedule, curve = LinearSchedule(3e-4 if side.endswith(SMALLER) else 1e-3, 0.0, 1.0), Curve()
    model = cls("MlpPolicy", ENV_ID, schedule, seed=seed, device="cpu", **{"n_actors": 2, **CARTPOLE, **kwargs})
    begin = time.perf_counter()
    model.learn(n_timesteps, curve, log_interval=None)
    seconds = time.perf_counter() - begin
    returns, _ = evaluate_policy(model, make_vec_env(ENV_ID, seed=seed + 1_000_000), 100)
    run = {"side": side, "seed": seed, "score": returns, "seconds": seconds, "n_timesteps": n_timesteps}
    return {**run, "curve": curve.points, "versions": versions()}


def compare_learning(sides: list[str], seeds: list[int], n_timesteps: int, figure: Path | None) -> None:
    """Make the runs that are missing, one after the other, and print a table."""
    done = {(run["side"], run["seed"]) for run in read(RESULTS)}
    jobs = [partial(learn, side, seed, n_timesteps) for seed in seeds for side in sides if (side, seed) not in done]
    complete(RESULTS, jobs, None, lambda run: f"{run['side']}, seed {run['seed']}: {run['score']:.1f}")
    runs = [run for run in read(RESULTS) if run["seed"] in seeds and run["side"] in sides]
    print(learning_table(runs))
    if figure:
        plot(runs, sides, figure)


def learning_table(runs: list[Run]) -> str:
    """A Markdown table: greedy returns after training, seed by seed."""
    lines = ["| | seeds | greedy return, by seed |", "|---|---|---|"]
    for side in LEARNERS:
        chosen = sorted((run for run in runs if run["side"] == side), key=lambda run: run["seed"])
        if chosen:
            scores = ", ".join(f"{run['score']:.0f}" for run in chosen)
            lines.append(f"| {side} | {len(chosen)} | {scores} |")
    return "\n".join(lines)


def plot(runs: list[Run], sides: list[str], path: Path) -> None:
    """Mean training returns against steps, a line for every seed, and a panel for every learning rate."""
    panels = [[side for side in sides if side.endswith(SMALLER) == smaller] for smaller in (False, True)]
    figure, (first, second) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained", sharey=True)
    for axes, chosen, rate in ((first, panels[0], "1e-3"), (second, panels[1], "3e-4")):
        for color, side in enumerate(chosen):
            for number, run in enumerate(run for run in runs if run["side"] == side):
                _, steps, returns = zip(*run["curve"], strict=True)
                label = side.removesuffix(SMALLER) if number == 0 else None
                axes.plot(np.array(steps) / 1000, returns, color=f"C{color}", alpha=0.7, label=label)
        axes.set(title=f"learning rate {rate}", xlabel="thousand environment steps")
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
    first.set_ylabel("mean return of 100 episodes")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


class Timed(IMPALA):
    """Notes how long unrolls and updates take."""

    def _take(self, delivery: Delivery) -> None:
        self.__dict__.setdefault("unroll_seconds", []).append(delivery.working)
        super()._take(delivery)

    def train(self) -> None:
        """Note how long it takes."""
        begin = time.perf_counter()
        super().train()
        self.__dict__.setdefault("update_seconds", []).append(time.perf_counter() - begin)


def simulate(n: int, batch_size: int, unroll: float, spread: float, update: float, n_updates: int) -> tuple[float, ...]:
    """A learner and n actors, each with two unrolls to make.

    :param n: number of actors
    :param batch_size: unrolls for an update, B
    :param unroll: mean of the seconds of an unroll, u, which are gamma-distributed
    :param spread: their standard deviation, as a fraction of the mean
    :param update: seconds of an update, s
    :param n_updates: after so many it ends; the first half is not counted
    :return: which part of its time the learner works, and mean and maximum of the lag
    """
    rng = np.random.default_rng(0)
    shape = 1 / spread**2

    def duration() -> float:
        return float(rng.gamma(shape, unroll / shape))

    version, updating_until, busy, counted_from = 0, None, 0.0, 0.0
    to_make, lags = [1] * n, list[int]()
    queue: deque[tuple[int, int]] = deque()
    events = [(duration(), actor, 0) for actor in range(n)]
    heapq.heapify(events)
    working = [True] * n
    fresh: list[tuple[int, int]] = []
    now = 0.0
    while version < n_updates:
        now, actor, begun = heapq.heappop(events)
        if actor == LEARNER:
            version, updating_until, fresh, busy = version + 1, None, [], busy + update
            if version == n_updates // 2:
                busy, counted_from, lags = 0.0, now, []
        else:
            queue.append((actor, begun))
            working[actor] = to_make[actor] > 0
            if working[actor]:
                to_make[actor] -= 1
                heapq.heappush(events, (now + duration(), actor, version))
        if updating_until is None:
            while queue and len(fresh) < batch_size:
                taken, made_with = queue.popleft()
                fresh.append((taken, made_with))
                lags.append(version - made_with)
                if working[taken]:
                    to_make[taken] += 1
                else:
                    working[taken] = True
                    heapq.heappush(events, (now + duration(), taken, version))
            if len(fresh) == batch_size:
                updating_until = now + update
                heapq.heappush(events, (updating_until, LEARNER, 0))
    return busy / (now - counted_from), float(np.mean(lags)), float(np.max(lags))


LEARNER = -1


def simulate_all(figure: Path | None) -> None:
    """Measure, simulate, and print a table."""
    batch_size = 4
    model = Timed("MlpPolicy", ENV_ID, n_actors=1, n_steps=40, batch_size=batch_size, seed=0, device="cpu")
    model.learn(30_000, log_interval=None)
    unrolls, updates = (np.array(vars(model)[name][20:]) for name in ("unroll_seconds", "update_seconds"))
    unroll, update = float(np.mean(unrolls)), float(np.mean(updates))
    spread = min(1.0, float(np.std(unrolls)) / unroll)
    most = batch_size * unroll / update
    print(f"an unroll takes {unroll * 1e3:.2f} ms (± {spread:.0%}), an update {update * 1e3:.2f} ms: n* = {most:.1f}")
    fast, slow = (unroll, "CartPole"), (unroll + 40 * SLEEP, "CartPole, 5 ms a step")
    print("| actors | learner works | lag: mean | max | learner works, 5 ms a step | lag: mean | max |")
    print("|---|---|---|---|---|---|---|")
    counts = [2**k for k in range(11)]
    results = {
        name: [simulate(n, batch_size, mean, spread, update, max(400, 6 * n)) for n in counts]
        for mean, name in (fast, slow)
    }
    for i, n in enumerate(counts):
        cells = [f"{used:.0%} | {lag:.1f} | {most:.0f}" for used, lag, most in (each[i] for each in results.values())]
        print(f"| {n} | " + " | ".join(cells) + " |")
    if figure is None:
        return
    canvas, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for color, (mean, name) in zip(("C0", "C1"), (fast, slow), strict=True):
        used, lag, _ = map(np.array, zip(*results[name], strict=True))
        left.plot(counts, used, "o-", color=color, label=name)
        right.plot(counts, lag, "o-", color=color, label=name)
        left.plot(counts, np.minimum(1, np.array(counts) * update / (batch_size * mean)), ":", color=color)
        saturated = np.array(counts) > batch_size * mean / update
        right.plot(counts, np.where(saturated, 2, 1) * np.array(counts) / batch_size, ":", color=color)
    left.set(xscale="log", xlabel="actors", ylabel="part of its time that the learner works", ylim=(0, 1.05))
    right.set(xscale="log", yscale="log", xlabel="actors", ylabel="mean lag, in updates")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(figure, dpi=110)
    plt.close(canvas)


class Killer(BaseCallback):
    """Kills a random actor every five seconds, and notes how much memory the learner has, in MiB."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.begin = self.latest = time.monotonic()
        self.seconds, self.n_killed, self.pids = seconds, 0, set[int]()
        self.memory: list[float] = []

    def _on_step(self) -> bool:
        now = time.monotonic()
        if now - self.latest > 5:
            self.latest = now
            assert isinstance(self.model, IMPALA)
            pids = [pid for pid in self.model._actors.pids if pid is not None]  # type: ignore[union-attr]
            self.pids.update(pids)
            os.kill(random.choice(pids), signal.SIGKILL)
            self.n_killed += 1
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.memory.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        return now - self.begin < self.seconds


def kill(seconds: float) -> None:
    """Train while actors are killed, and tell what is left."""
    model = impala(ENV_ID, 2, on_worker_failure="restart", max_restarts=10**6)
    killer = Killer(seconds)
    model.learn(10**9, killer, log_interval=None)
    left = [pid for pid in killer.pids if Path(f"/proc/{pid}").exists()]
    print(f"{killer.n_killed} killed, {model._n_restarts} replaced; {model.num_timesteps} steps, {model._n_updates}")
    print(f"updates; processes left: {left}; MiB: {', '.join(f'{each:.0f}' for each in killer.memory)}")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", nargs="+", help="which to compare; by default all that need no Ray")
    parser.add_argument("--n-timesteps", type=int)
    parser.add_argument("--rllib", help="a Python that has RLlib, for that side")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--sleep", action="store_true", help="compare 16 actors with one, where a step takes 5 ms")
    parser.add_argument("--learning", action="store_true", help="compare what is learned")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="of --learning")
    parser.add_argument("--plot", type=Path, help="where the figure goes, as PNG")
    parser.add_argument("--simulate", action="store_true", help="simulate up to 1024 actors")
    parser.add_argument("--kill", type=float, help="kill actors for so many seconds")
    options = parser.parse_args()
    th.set_num_threads(1)
    with threadpool_limits(1):
        if options.kill:
            kill(options.kill)
        elif options.simulate:
            simulate_all(options.plot)
        elif options.sleep:
            compare_sleepers(16, 8.0)
        elif options.learning:
            sides = options.sides or [side for side in LEARNERS if "Ray" not in side]
            compare_learning(sides, options.seeds, options.n_timesteps or N_TIMESTEPS, options.plot)
        else:
            sides = options.sides or [side for side in SIDES if "Ray" not in side]
            compare_speeds(sides, options.repetitions, options.n_timesteps or 50_000, options.rllib)


if __name__ == "__main__":
    main()
