"""What it costs to load a model safely: processor seconds of ``safe_load`` ÷ ``load``, alternating, in one process.

python benchmarks/safe_loading.py
"""

import argparse
import io
import time
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_pg_ext import NPG, safe_load


class Images(gym.Env):
    """Images as those of Atari's wrappers."""

    observation_space = gym.spaces.Box(0, 255, (84, 84, 4), np.uint8)
    action_space = gym.spaces.Discrete(4)


def make_models() -> dict[str, tuple[BaseAlgorithm, int]]:
    """Models by name, and how often to load each."""
    small: dict[str, Any] = {"policy_kwargs": {"net_arch": [64, 64]}, "device": "cpu"}
    sac = SAC("MlpPolicy", "Pendulum-v1", buffer_size=1000, **small).learn(150)
    return {
        "PPO, 64-64": (PPO("MlpPolicy", "CartPole-v1", n_steps=64, device="cpu").learn(64), 80),
        "NPG, 64-64": (NPG("MlpPolicy", "CartPole-v1", n_steps=64, device="cpu").learn(64), 80),
        "SAC, 64-64": (sac, 80),
        "PPO, `CnnPolicy` on 84 × 84 × 4": (PPO("CnnPolicy", Images(), n_steps=64, device="cpu"), 40),
    }


def measure(model: BaseAlgorithm, n_loads: int) -> np.ndarray:
    """Processor milliseconds of ``load`` and of ``safe_load``, in turns, [2, n_loads]."""
    file = io.BytesIO()
    model.save(file)
    seconds: list[list[float]] = [[], []]
    loads: list[tuple[Any, list[float]]] = list(zip((type(model).load, safe_load), seconds, strict=True))
    for _ in range(n_loads):
        loads.reverse()  # what one leaves of memory, the other finds
        for load, times in loads:
            file.seek(0)
            start = time.process_time()
            load(file, device="cpu")
            times.append(time.process_time() - start)
    return np.array(seconds) * 1e3


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    repetitions = parser.parse_args().repetitions
    th.set_num_threads(1)
    print("| | ratio of medians | ratio of the best | best of all, ms |\n|---|---|---|---|")
    for name, (model, n_loads) in make_models().items():
        times = np.stack([measure(model, n_loads) for _ in range(repetitions)])
        ranges = []
        for of_repetition in (np.median(times, axis=2), times.min(axis=2)):
            ratios = of_repetition[:, 1] / of_repetition[:, 0]
            ranges.append(f"{ratios.min():.2f} to {ratios.max():.2f}")
        plain, safe = times.min(axis=(0, 2))
        print(f"| {name} | {' | '.join(ranges)} | {safe:.1f} and {plain:.1f} |", flush=True)


if __name__ == "__main__":
    main()
