"""What workers gain: A3C with one and with two, beside SB3's A2C, in steps per second of whole training.

    python benchmarks/asynchrony.py --repetitions 5

All sides run one after the other, again and again, and only the ratios of neighbours mean anything; their median is
printed. Every process computes with one thread. A side starts anew each time; its speed is taken from the steps after
the first ``WARM_UP``, without start-up, which is told apart. Run it with two idle cores or more.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch as th
from stable_baselines3 import A2C
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv
from threadpoolctl import threadpool_limits

from sb3_pg_ext import A3C

N_STEPS = 5
WARM_UP = 2_000


def a3c(env_id: str, n_workers: int) -> A3C:
    """A3C with so many workers."""
    return A3C("MlpPolicy", env_id, n_workers=n_workers, n_steps=N_STEPS, seed=0)


def a2c(env_id: str, n_envs: int, **kwargs: Any) -> A2C:
    """SB3's A2C with so many environments."""
    return A2C("MlpPolicy", make_vec_env(env_id, n_envs, seed=0, **kwargs), n_steps=N_STEPS, seed=0, device="cpu")


SIDES: dict[str, Callable[[str], BaseAlgorithm]] = {
    "A3C, 2 workers": lambda env_id: a3c(env_id, 2),
    "A3C, 1 worker": lambda env_id: a3c(env_id, 1),
    "A2C, SubprocVecEnv of 2": lambda env_id: a2c(env_id, 2, vec_env_cls=SubprocVecEnv),
    "A2C, 8 environments in one process": lambda env_id: a2c(env_id, 8),
}


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


def main() -> None:
    """Measure all sides, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--n-timesteps", type=int, default=20_000)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    th.set_num_threads(1)
    speeds: dict[str, list[float]] = {side: [] for side in SIDES}
    with threadpool_limits(1):
        for _ in range(options.repetitions):
            for side, make in SIDES.items():
                speed, start_up = measure(make(options.env), options.n_timesteps)
                speeds[side].append(speed)
                print(f"{side}: {speed:.0f} steps/s, first step after {start_up:.1f} s", flush=True)
    ours, *others = speeds
    for other in others:
        ratio = statistics.median(a / b for a, b in zip(speeds[ours], speeds[other], strict=True))
        print(f"{ours} ÷ {other}: {ratio:.2f}")


if __name__ == "__main__":
    main()
