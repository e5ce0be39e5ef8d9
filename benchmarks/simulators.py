"""What simulators that step many environments at once bring, in steps per second, and how that grows with their number.

    taskset -c 1 python benchmarks/simulators.py a2c rollout ppo sync
    python benchmarks/simulators.py ppo-threads pong
    taskset -c 1 python benchmarks/simulators.py profile
    taskset -c 1 python benchmarks/simulators.py growth --plot docs/images/simulators.png

Every comparison runs in a process of its own. Its sides take turns: A, B, C, A, B, C, …, and of each turn the ratios
are taken; their median counts. PyTorch and NumPy have one thread. On one core EnvPool's thread and the learner take
turns, too, as they have to anyway; waking a thread on another core costs more than it brings where a step of all
environments takes microseconds. So the sides are compared on one core, but for those that need two.

``profile`` says what the time of A2C on EnvPool is spent on. ``growth`` trains A2C with 1 to 1024 environments, each
number and backend in a process of its own for its peak memory. Results are kept in
``benchmarks/results/simulators.json``, by comparison.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import stable_baselines3
import torch as th
from runs import spaced, versions, with_range
from stable_baselines3.common import env_util
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecFrameStack
from threadpoolctl import threadpool_limits
from throughput import STEPS_PER_UPDATE, Run, alternate, rollouts, training

from sb3_pg_ext import fast
from sb3_pg_ext.envs import EnvPoolVecEnv, make_vec_env
from sb3_pg_ext.functional import mlp
from sb3_pg_ext.gradients.compiled_backend import CompiledBackend
from sb3_pg_ext.policies.plain_mlp import actor_layers, critic_layers, network_input
from sb3_pg_ext.rollouts.action_sampling import MLPActionSampler

RESULTS = Path(__file__).parent / "results" / "simulators.json"
CHEETAH = "HalfCheetah-v5"
NUMBERS = (1, 4, 16, 64, 256, 1024)
N_STEPS = 32


def stock_env(env_id: str, n_envs: int) -> VecEnv:
    """SB3's ``DummyVecEnv``."""
    return env_util.make_vec_env(env_id, n_envs, seed=0)


def our_env(env_id: str, n_envs: int, backend: str, **arguments: Any) -> VecEnv:
    """One of ``make_vec_env``."""
    return make_vec_env(env_id, n_envs, 0, backend, **arguments)


def make_pool(task_id: str, n_envs: int, n_steps: int) -> tuple[Any, np.ndarray]:
    """EnvPool itself, without any VecEnv, and actions drawn beforehand, [T, N, …]."""
    import envpool

    pool = envpool.make(task_id, env_type="gymnasium", num_envs=n_envs, num_threads=1, seed=0)
    pool.reset()
    space = pool.action_space
    space.seed(0)
    return pool, np.array([[space.sample() for _ in range(n_envs)] for _ in range(n_steps)])


def pool_alone(task_id: str, n_envs: int, n_steps: int) -> Run:
    """EnvPool, stepped."""
    pool, actions = make_pool(task_id, n_envs, n_steps)

    def run() -> int:
        for action in actions:
            pool.step(action)
        return n_steps * n_envs

    return run


def bare_arithmetic(cls: type[BaseAlgorithm], task_id: str, n_envs: int) -> Run:
    """EnvPool and the networks' arithmetic as often as training has them, with nothing else: a bound for any learner.

    Actors see one batch of observations again and again, the critic one rollout, and gradients are those of the
    minibatches of one update.
    """
    n_steps = STEPS_PER_UPDATE // n_envs
    model: Any = cls("MlpPolicy", our_env(task_id, n_envs, "envpool"), n_steps=n_steps, device="cpu", seed=0)  # type: ignore[call-arg]
    model.learn(1)
    backend, minibatches = model._make_backend(), []
    differentiate = backend._differentiate

    def noting(*arguments: Any) -> Any:
        minibatches.append(arguments)
        return differentiate(*arguments)

    backend._differentiate = noting
    model.learn(1, reset_num_timesteps=False)
    backend._differentiate = differentiate
    actor, critic = mlp.laid_out(actor_layers(model.policy), n_envs), critic_layers(model.policy)
    seen, of_rollout = network_input(model._last_obs), network_input(model.rollout_buffer.observations)
    pool, actions = make_pool(task_id, n_envs, n_steps)

    def run() -> int:
        for _ in range(2):
            for action in actions:
                mlp.forward(actor, seen)
                pool.step(action)
            mlp.forward(critic, of_rollout)
            for minibatch in minibatches:
                backend._differentiate(*minibatch)  # the backend keeps what it has passed the addresses of
        return 2 * STEPS_PER_UPDATE

    return run


def on_pong(cls: type[BaseAlgorithm], env: VecEnv) -> Run:
    """Training on images: one rollout and one update."""
    model = cls("CnnPolicy", env, n_steps=128, batch_size=256, n_epochs=4, device="cpu", seed=0)  # type: ignore[call-arg]

    def run() -> int:
        before = model.num_timesteps
        model.learn(128 * env.num_envs, reset_num_timesteps=False)
        return model.num_timesteps - before

    return run


def stock_pong() -> VecEnv:
    """Pong as SB3's users have it."""
    env = env_util.make_atari_env("ale_py:PongNoFrameskip-v4", 8, seed=0, vec_env_cls=SubprocVecEnv)
    return VecFrameStack(env, 4)


def pong_pool() -> VecEnv:
    """Pong of EnvPool, with all that ``AtariWrapper`` does."""
    options = {"episodic_life": True, "reward_clip": True}
    return our_env("PongNoFrameskip-v4", 8, "envpool", env_kwargs=options)


many_updates = partial(training, n_updates=25)
"""So many that all turns are a whole training: in its course episodes grow longer, and end less often."""

Sides = dict[str, Callable[[], Run]]
COMPARISONS: dict[str, tuple[str, int, Sides]] = {
    "a2c": (
        "A2C, CartPole-v1 × 64, 32 steps",
        15,
        {
            "fast.A2C, EnvPool": lambda: many_updates(fast.A2C, our_env("CartPole-v1", 64, "envpool")),
            "fast.A2C, FastDummyVecEnv": lambda: many_updates(fast.A2C, our_env("CartPole-v1", 64, "dummy")),
            "stock A2C, DummyVecEnv": lambda: many_updates(stable_baselines3.A2C, stock_env("CartPole-v1", 64)),
            "EnvPool and bare arithmetic": lambda: bare_arithmetic(fast.A2C, "CartPole-v1", 64),
        },
    ),
    "rollout": (
        "rollouts, CartPole-v1 × 64",
        45,
        {
            "rollout of fast.A2C, EnvPool": lambda: rollouts(fast.A2C, our_env("CartPole-v1", 64, "envpool")),
            "EnvPool alone": lambda: pool_alone("CartPole-v1", 64, 64),
        },
    ),
    "ppo": (
        "PPO, HalfCheetah-v5 × 8",
        7,
        {
            "fast.PPO, EnvPool": lambda: training(fast.PPO, our_env(CHEETAH, 8, "envpool")),
            "fast.PPO, FastDummyVecEnv": lambda: training(fast.PPO, our_env(CHEETAH, 8, "dummy")),
            "stock PPO, DummyVecEnv": lambda: training(stable_baselines3.PPO, stock_env(CHEETAH, 8)),
            "EnvPool and bare arithmetic": lambda: bare_arithmetic(fast.PPO, CHEETAH, 8),
        },
    ),
    "ppo-threads": (
        "PPO, HalfCheetah-v5 × 8, two threads",
        7,
        {
            "fast.PPO, EnvPool": lambda: training(fast.PPO, our_env(CHEETAH, 8, "envpool", num_threads=2)),
            "fast.PPO, FastDummyVecEnv": lambda: training(fast.PPO, our_env(CHEETAH, 8, "dummy")),
            "stock PPO, DummyVecEnv": lambda: training(stable_baselines3.PPO, stock_env(CHEETAH, 8)),
        },
    ),
    "pong": (
        "PPO, Pong × 8, two cores",
        5,
        {
            "fast.PPO, EnvPool": lambda: on_pong(fast.PPO, pong_pool()),
            "stock PPO, SubprocVecEnv": lambda: on_pong(stable_baselines3.PPO, stock_pong()),
        },
    ),
    "sync": (
        "stock PPO, HalfCheetah-v5 × 8",
        9,
        {
            "GymnasiumVecEnv(SyncVectorEnv)": lambda: training(stable_baselines3.PPO, our_env(CHEETAH, 8, "gymnasium")),
            "DummyVecEnv": lambda: training(stable_baselines3.PPO, stock_env(CHEETAH, 8)),
        },
    ),
}

GROWING: dict[str, Callable[[int], tuple[Any, VecEnv]]] = {
    "stock A2C, DummyVecEnv": lambda n: (stable_baselines3.A2C, stock_env("CartPole-v1", n)),
    "fast.A2C, SyncVectorEnv": lambda n: (fast.A2C, our_env("CartPole-v1", n, "gymnasium")),
    "fast.A2C, FastDummyVecEnv": lambda n: (fast.A2C, our_env("CartPole-v1", n, "dummy")),
    "fast.A2C, EnvPool": lambda n: (fast.A2C, our_env("CartPole-v1", n, "envpool")),
}


def measure(name: str) -> dict[str, Any]:
    """Alternate between the sides of a comparison and return all speeds, in steps per second."""
    th.set_num_threads(1)
    _, repetitions, sides = COMPARISONS[name]
    speeds = alternate({side: make() for side, make in sides.items()}, repetitions)
    return {"speeds": {side: [round(speed, 1) for speed in of_side] for side, of_side in speeds.items()}}


def measure_growth(side: str, n_envs: int) -> dict[str, Any]:
    """Steps per second, the best of three, and peak memory of A2C with so many environments."""
    th.set_num_threads(1)
    cls, env = GROWING[side](n_envs)
    model = cls("MlpPolicy", env, n_steps=N_STEPS, device="cpu", seed=0)
    n_updates = max(1, 2048 // (N_STEPS * n_envs))
    speeds = []
    with threadpool_limits(1):
        for _ in range(4):
            start, before = time.perf_counter(), model.num_timesteps
            model.learn(n_updates * N_STEPS * n_envs, reset_num_timesteps=False)
            speeds.append((model.num_timesteps - before) / (time.perf_counter() - start))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"side": side, "n_envs": n_envs, "speed": round(max(speeds[1:]), 1), "peak_mib": round(peak, 1)}


PARTS: list[tuple[Any, str, str]] = [
    (fast.A2C, "learn", "between rollouts and updates"),
    (fast.A2C, "collect_rollouts", "callbacks, counting, storing transitions"),
    (EnvPoolVecEnv, "step_wait", "final observations, statistics and infos"),
    (EnvPoolVecEnv, "_step_pool", "EnvPool"),
    (MLPActionSampler, "__call__", "drawing actions"),
    (mlp, "forward", "passes of the networks, in rollouts"),
    (fast.A2C, "_finish_rollout", "advantages, log-probabilities, the rollout buffer"),
    (fast.A2C, "train", "minibatches, RMSprop, the way back, logs"),
    (CompiledBackend, "differentiate", "the gradient of 2048 steps"),
]
"""Functions, and what of a training is within them and not within the others."""


def profile(n_updates: int = 240) -> dict[str, Any]:
    """Milliseconds that each of :data:`PARTS` takes of a rollout of 2048 steps and an update of A2C."""
    th.set_num_threads(1)
    spent, within, since = dict.fromkeys([label for _, _, label in PARTS], 0.0), ["outside"], time.perf_counter()

    def turn_to(label: str | None) -> None:
        nonlocal since
        now = time.perf_counter()
        spent[within[-1]] = spent.get(within[-1], 0.0) + now - since
        since = now
        within.append(label) if label else within.pop()

    def timed(function: Callable[..., Any], label: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            turn_to(label)
            try:
                return function(*args, **kwargs)
            finally:
                turn_to(None)

        return call

    model = fast.A2C("MlpPolicy", our_env("CartPole-v1", 64, "envpool"), n_steps=32, device="cpu", seed=0)
    with threadpool_limits(1):
        model.learn(2 * STEPS_PER_UPDATE)
        for owner, name, label in PARTS:
            setattr(owner, name, timed(getattr(owner, name), label))
        model.learn(n_updates * STEPS_PER_UPDATE, reset_num_timesteps=False)
    spent.pop("outside")
    return {"ms": {label: round(1000 * seconds / n_updates, 2) for label, seconds in spent.items()}}


def profile_table(results: dict[str, Any]) -> str:
    """A Markdown table of :func:`profile`."""
    found = results["profile"]["ms"]
    rows = sorted(found.items(), key=lambda row: -row[1])
    return "\n".join(
        [
            "| | ms |",
            "|---|---|",
            *(f"| {label} | {ms:.1f} |" for label, ms in rows),
            f"| all | {sum(found.values()):.1f} |",
        ]
    )


def in_a_process(*arguments: str) -> Any:
    """What this script prints when it is called with other arguments."""
    command = [sys.executable, "-W", "ignore", __file__, *arguments]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return json.loads(output.splitlines()[-1])


def growth() -> dict[str, Any]:
    """All numbers and backends."""
    return {"points": [in_a_process("--grow", side, str(n)) for n in NUMBERS for side in GROWING]}


def table(results: dict[str, Any]) -> str:
    """A Markdown table: the first side of each comparison in steps per second, and its ratio to each of the others."""
    lines = ["| | steps/s | ÷ | ratio |", "|---|---|---|---|"]
    for name, (title, _, _) in COMPARISONS.items():
        if name in results:
            (ours, speeds), *others = results[name]["speeds"].items()
            for other, theirs in others:
                ratios = [one / two for one, two in zip(speeds, theirs, strict=True)]
                steps = spaced(statistics.median(speeds))
                lines.append(f"| {title}: {ours} | {steps} | {other} | {with_range(ratios)} |")
    return "\n".join(lines)


def growth_table(results: dict[str, Any]) -> str:
    """A Markdown table of :func:`growth`: steps per second, ratios, and the memory that EnvPool takes beside SB3's."""
    heads = [*GROWING, "EnvPool ÷ FastDummyVecEnv", "EnvPool ÷ stock A2C", "MiB of EnvPool"]
    lines = [f"| environments | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for number in NUMBERS:
        points = {point["side"]: point for point in results["growth"]["points"] if point["n_envs"] == number}
        stock, _, dummy, pool = (points[side] for side in GROWING)
        cells = [spaced(round(points[side]["speed"], -2)) for side in GROWING]
        cells += [f"{pool['speed'] / other['speed']:.2f}" for other in (dummy, stock)]
        lines.append(f"| {number} | {' | '.join(cells)} | {pool['peak_mib'] - dummy['peak_mib']:.0f} |")
    return "\n".join(lines)


def plot(points: list[dict[str, Any]], path: Path) -> None:
    """Speed and memory over the number of environments."""
    figure, (fast_axis, memory_axis) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for side in GROWING:
        chosen = [point for point in points if point["side"] == side]
        numbers = [point["n_envs"] for point in chosen]
        fast_axis.loglog(numbers, [point["speed"] for point in chosen], marker="o", ms=4, label=side, base=2)
        memory_axis.loglog(numbers, [point["peak_mib"] for point in chosen], marker="o", ms=4, label=side, base=2)
    for axis, label in ((fast_axis, "steps per second"), (memory_axis, "peak memory of the process, MiB")):
        axis.set(xlabel="environments", ylabel=label, xticks=NUMBERS, xticklabels=NUMBERS)
        axis.set_yscale("log", base=10)
        axis.grid(alpha=0.3, which="both")
    fast_axis.legend(frameon=False, fontsize="small")
    figure.suptitle(f"A2C on CartPole-v1, {N_STEPS} steps an update")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Make the comparisons that are asked for, keep them beside the others, and print the table of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*COMPARISONS, "growth", "profile"]
    parser.add_argument("comparisons", nargs="*", metavar="comparison", help=", ".join(names))
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the results go, as JSON")
    parser.add_argument("--plot", type=Path, help="draw the growth into this file")
    parser.add_argument("--measure", choices=[*COMPARISONS, "profile"], help=argparse.SUPPRESS)
    parser.add_argument("--grow", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(profile() if args.measure == "profile" else measure(args.measure)))
        return
    if args.grow:
        print(json.dumps(measure_growth(args.grow[0], int(args.grow[1]))))
        return
    if unknown := sorted({*args.comparisons} - {*names}):
        parser.error(f"unknown: {', '.join(unknown)}; allowed: {', '.join(names)}")
    results = json.loads(args.output.read_text()) if args.output.exists() else {}
    for name in args.comparisons:
        found = growth() if name == "growth" else in_a_process("--measure", name)
        results[name] = {**found, "versions": versions()}
        args.output.write_text(json.dumps(results, indent=1) + "\n")
    if args.plot:
        plot(results["growth"]["points"], args.plot)
    print(profile_table(results) if args.comparisons == ["profile"] else table(results))


if __name__ == "__main__":
    main()
