"""What a step of the streaming actor-critic costs: in time, by the width of the network, and in memory.

    python benchmarks/streaming.py speed            # steps/s beside a plain loop in PyTorch
    python benchmarks/streaming.py images           # AC(λ) on MinAtar/Breakout-v0, which needs MinAtar
    python benchmarks/streaming.py parts            # where the time goes
    python benchmarks/streaming.py widths --plot docs/images/streaming_widths.png
    python benchmarks/streaming.py memory           # beside PPO

Else HalfCheetah-v5 and the streaming recipe, on one thread. Sides take turns, and of each turn the ratios are taken;
medians count. Results are kept in ``benchmarks/results/streaming.json``, by measurement.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
import stable_baselines3
import torch as th
from learning import configurations
from peers.streaming_loop import make_loop
from runs import spaced, versions
from stable_baselines3.common.logger import KVWriter, Logger
from threadpoolctl import threadpool_limits
from throughput import Run, alternate

from sb3_pg_ext import ActorCritic, fast
from sb3_pg_ext.envs.step_infos import make_step
from sb3_pg_ext.policies import SmallCNN

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "streaming.json"
ENV_ID = "HalfCheetah-v5"
ENGINES = ("compiled", "array", "autograd")
WIDTHS = (16, 32, 64, 128, 256, 512)
MEMORY_SIDES = ("nothing but the imports", "ActorCritic.streaming", "fast.A2C", "fast.PPO", "stock PPO")
N_STEPS = 20_000
"""Of the trainings whose memory is measured."""


def make(engine: str, width: int = 128) -> ActorCritic:
    """The streaming actor-critic with two hidden layers."""
    arguments = {"net_arch": [width, width], "state_dependent_std": True, "std_function": "softplus"}
    return ActorCritic.streaming("MlpPolicy", ENV_ID, engine=engine, seed=0, device="cpu", policy_kwargs=arguments)


def training(model: ActorCritic, n_steps: int) -> Run:
    """Go on for so many steps."""

    def run() -> int:
        model.learn(n_steps, reset_num_timesteps=False)
        return n_steps

    return run


def speed(repetitions: int) -> dict[str, Any]:
    """Steps per second of the engines and of the plain loop."""
    learn = make_loop(ENV_ID)

    def loop() -> int:
        learn(1000)
        return 1000

    n_steps = {"compiled": 8000, "array": 3000, "autograd": 1000}
    runs = {"loop": loop} | {engine: training(make(engine), n_steps[engine]) for engine in ENGINES}
    return {"steps_per_second": alternate(runs, repetitions)}


def speed_table(result: dict[str, Any], base: str = "loop") -> str:
    """A Markdown table, with ratios to one of the sides."""
    lines = [f"| | steps/s | ÷ {'the loop' if base == 'loop' else base} |", "|---|---|---|"]
    speeds = result["steps_per_second"]
    for side, values in speeds.items():
        ratios = [a / b for a, b in zip(values, speeds[base], strict=True)]
        ratio = "" if side == base else f"{statistics.median(ratios):.1f} ({min(ratios):.1f}–{max(ratios):.1f})"
        title = "the plain loop" if side == "loop" else f'`engine="{side}"`'
        lines.append(f"| {title} | {spaced(statistics.median(values))} | {ratio} |")
    return "\n".join(lines)


def images(repetitions: int) -> dict[str, Any]:
    """Steps per second of the engines, with the shipped entry of MinAtar/Breakout-v0."""
    entry = configurations("ac")["MinAtar/Breakout-v0"]
    arguments = {name: entry[name] for name in ("learning_rate", "gamma", "trace_lambda", "ent_coef", "optimizer")}
    network = {"features_extractor_class": SmallCNN, "net_arch": []}
    runs = {}
    for engine in ENGINES:
        env: Any = gym.make("MinAtar/Breakout-v0")
        model = ActorCritic("CnnPolicy", env, engine=engine, seed=0, device="cpu", policy_kwargs=network, **arguments)
        runs[engine] = training(model, 500 if engine == "autograd" else 2000)
    return {"steps_per_second": alternate(runs, repetitions)}


def images_table(result: dict[str, Any]) -> str:
    """A Markdown table."""
    return speed_table(result, "autograd")


class Seconds(KVWriter):
    """Sums up the seconds of learning that are logged."""

    def __init__(self) -> None:
        self.total = 0.0

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        """Add those of a rollout."""
        self.total += key_values["time/update_seconds"]

    def close(self) -> None:
        """Nothing is open."""


def parts(repetitions: int) -> dict[str, Any]:
    """Microseconds of a step: of the environment alone, within its wrappers, of the update, and of all."""
    n_steps = 4000
    model, seconds = make("compiled"), Seconds()
    model.set_logger(Logger(None, [seconds]))
    env: Any = gym.make(ENV_ID)
    wrapped: Any = make("compiled").get_env()
    step = make_step(wrapped)  # as the training does
    actions = np.random.default_rng(0).uniform(-1, 1, (n_steps, 1, 6)).astype(np.float32)

    def alone() -> int:
        env.reset(seed=0)
        for action in actions[:, 0]:
            if any(env.step(action)[2:4]):
                env.reset()
        return n_steps

    def within_wrappers() -> int:
        wrapped.reset()
        for action in actions:
            step(action)
        return n_steps

    runs: dict[str, Run] = {"environment": alone, "wrapped": within_wrappers, "all": training(model, n_steps)}
    speeds = alternate(runs, repetitions)
    took = {side: 1e6 / statistics.median(values) for side, values in speeds.items()}
    return {"microseconds": took | {"update": 1e6 * seconds.total / model.num_timesteps}}


def parts_table(result: dict[str, Any]) -> str:
    """A Markdown table."""
    took = result["microseconds"]
    rows = {
        "the environment": took["environment"],
        "its wrappers: `VecNormalize`, the time feature, `Monitor`": took["wrapped"] - took["environment"],
        "the update": took["update"],
        "choosing actions, callbacks, counting": took["all"] - took["wrapped"] - took["update"],
        "all": took["all"],
    }
    return "\n".join(["| | µs |", "|---|---|", *(f"| {name} | {value:.0f} |" for name, value in rows.items())])


def widths(repetitions: int) -> dict[str, Any]:
    """Microseconds of a step by the width of both hidden layers."""
    sides = {(engine, width): training(make(engine, width), 500) for engine in ENGINES for width in WIDTHS}
    speeds = alternate({str(side): run for side, run in sides.items()}, repetitions)
    took = {engine: [1e6 / statistics.median(speeds[str((engine, w))]) for w in WIDTHS] for engine in ENGINES}
    return {"widths": WIDTHS, "microseconds": took}


def widths_table(result: dict[str, Any]) -> str:
    """A Markdown table."""
    lines = [
        "| µs a step | " + " | ".join(map(str, result["widths"])) + " |",
        "|---" * (len(result["widths"]) + 1) + "|",
    ]
    for engine, values in result["microseconds"].items():
        lines.append(f"| {engine} | " + " | ".join(f"{value:.0f}" for value in values) + " |")
    compiled = result["microseconds"]["compiled"]
    for engine in ("array", "autograd"):
        ratios = (f"{a / b:.1f}" for a, b in zip(result["microseconds"][engine], compiled, strict=True))
        lines.append(f"| {engine} ÷ compiled | {' | '.join(ratios)} |")
    return "\n".join(lines)


def draw(result: dict[str, Any], path: Path) -> None:
    """Microseconds against the width, both logarithmic."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for engine, values in result["microseconds"].items():
        axes.loglog(result["widths"], values, "o-", label=engine)
    axes.set(xlabel="width of both hidden layers", ylabel="µs a step, environment included")
    axes.set_xticks(result["widths"], list(map(str, result["widths"])))
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def memory(repetitions: int) -> dict[str, Any]:
    """Peak memory, in MiB, of processes that train."""
    peaks = {}
    for side in MEMORY_SIDES:
        command = [sys.executable, __file__, "--train", side]
        output = [
            subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(repetitions)
        ]
        peaks[side] = statistics.median(float(text.split()[-1]) for text in output)
    return {"mib": peaks}


def memory_table(result: dict[str, Any]) -> str:
    """A Markdown table."""
    peaks = result["mib"]
    least = peaks[MEMORY_SIDES[0]]
    titles = {side: f"`{side}`" if "." in side else side for side in peaks}
    lines = [f"| {titles[side]} | {peak:.0f} | {peak - least:.0f} |" for side, peak in peaks.items()]
    return "\n".join(["| | peak, MiB | above the imports |", "|---|---|---|", *lines])


def train(side: str) -> None:
    """Train, and print the peak memory in MiB."""
    arguments: dict[str, Any] = {"seed": 0, "device": "cpu", "policy_kwargs": {"net_arch": [128, 128]}}
    classes = {"fast.A2C": fast.A2C, "fast.PPO": fast.PPO, "stock PPO": stable_baselines3.PPO}
    if side in classes:
        classes[side]("MlpPolicy", ENV_ID, **arguments).learn(N_STEPS)
    elif side == "ActorCritic.streaming":
        make("auto").learn(N_STEPS)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


MEASUREMENTS = {
    "speed": (speed, speed_table),
    "images": (images, images_table),
    "parts": (parts, parts_table),
    "widths": (widths, widths_table),
    "memory": (memory, memory_table),
}


def main() -> None:
    """Measure, keep the results, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurements", nargs="*", metavar="measurement", help=", ".join(MEASUREMENTS))
    parser.add_argument("--repetitions", type=int, default=3, help="counted turns of each side (default: 3)")
    parser.add_argument("--plot", type=Path, help="draw the widths into this file")
    parser.add_argument("--train", choices=MEMORY_SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    with threadpool_limits(1):
        th.set_num_threads(1)
        if args.train:
            train(args.train)
            return
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        for name in args.measurements or MEASUREMENTS:
            measure, _ = MEASUREMENTS[name]
            results[name] = {**measure(args.repetitions), "repetitions": args.repetitions, "versions": versions()}
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    for name in args.measurements or MEASUREMENTS:
        print(f"{name}\n\n{MEASUREMENTS[name][1](results[name])}\n")
    if args.plot:
        draw(results["widths"], args.plot)


if __name__ == "__main__":
    main()
