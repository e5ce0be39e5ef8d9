"""What a checkpoint costs: seconds to save it, and megabytes written, the first time and when 10 000 steps are new.

python benchmarks/checkpoints.py
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_pg_ext.checkpoints import CheckpointWriter, resume

NEW_STEPS = 10_000


def make(name: str) -> BaseAlgorithm:
    """A model that has begun to train, with a full replay buffer if it has one."""
    if name == "PPO, CartPole-v1 × 8":
        return PPO("MlpPolicy", VecNormalize(make_vec_env("CartPole-v1", 8)), n_steps=128, device="cpu").learn(1)
    if name == "PPO, LunarLander-v3 × 8":
        return PPO("MlpPolicy", make_vec_env("LunarLander-v3", 8), n_steps=128, device="cpu").learn(1)
    if name == "PPO, HalfCheetah-v5 × 8":
        return PPO("MlpPolicy", make_vec_env("HalfCheetah-v5", 8), n_steps=128, device="cpu").learn(1)
    cls, env, size = {
        "DQN, CartPole-v1, 100 000 transitions": (DQN, "CartPole-v1", 100_000),
        "SAC, HalfCheetah-v5, 1 000 000 transitions": (SAC, "HalfCheetah-v5", 1_000_000),
    }[name]
    model = cls("MlpPolicy", env, buffer_size=size, learning_starts=10, device="cpu").learn(10)
    buffer = model.replay_buffer
    assert buffer is not None
    random = np.random.default_rng(0)
    for array in (buffer.observations, buffer.next_observations, buffer.actions, buffer.rewards):
        array[...] = random.integers(-100, 100, array.shape)
    buffer.full = True
    return model


def add_steps(model: BaseAlgorithm) -> None:
    """Let the oldest transitions be replaced."""
    buffer = getattr(model, "replay_buffer", None)
    if buffer is not None:
        rows = np.arange(buffer.pos, buffer.pos + NEW_STEPS) % buffer.buffer_size
        for array in (buffer.observations, buffer.next_observations, buffer.actions, buffer.rewards):
            array[rows] += 1
        buffer.pos = (buffer.pos + NEW_STEPS) % buffer.buffer_size
    model.num_timesteps += NEW_STEPS


def written(path: Path) -> float:
    """Megabytes of the files that are not shared with an earlier checkpoint."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and file.stat().st_nlink == 1) / 1e6


def measure(name: str, repetitions: int) -> str:
    """A row of the table."""
    model, folder = make(name), Path(tempfile.mkdtemp(prefix="checkpoints"))
    try:
        writer, seconds, sizes = CheckpointWriter(folder), [], []
        for _ in range(repetitions + 1):
            start = time.perf_counter()
            path = writer.save(model)
            seconds.append(time.perf_counter() - start)
            sizes.append(written(path))
            add_steps(model)
        start = time.perf_counter()
        resume(folder)
        resumed = time.perf_counter() - start
    finally:
        shutil.rmtree(folder)
    later, size = statistics.median(seconds[1:]), statistics.median(sizes[1:])
    return f"| {name} | {seconds[0]:.3f} | {sizes[0]:.1f} | {later:.3f} | {size:.1f} | {resumed:.2f} |"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5, help="how many later checkpoints")
    repetitions = parser.parse_args().repetitions
    print("| training | first: s | MB | later: s | MB | resume: s |\n|---|---|---|---|---|---|")
    for name in (
        "PPO, CartPole-v1 × 8",
        "PPO, LunarLander-v3 × 8",
        "PPO, HalfCheetah-v5 × 8",
        "DQN, CartPole-v1, 100 000 transitions",
        "SAC, HalfCheetah-v5, 1 000 000 transitions",
    ):
        print(measure(name, repetitions), flush=True)


if __name__ == "__main__":
    main()
