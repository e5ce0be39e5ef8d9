"""Baselines and variance: how noisy REINFORCE's gradient is, and what each baseline does about it.

    python examples/gallery/baselines_and_variance.py

REINFORCE learns CartPole-v1 with rewards-to-go and V as baseline. On the way, GradientVarianceCallback takes the
same policy, samples batches of episodes, and measures how the gradient would vary with each baseline.
"""

from collections.abc import Sequence

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
from _picture import main as make_picture
from matplotlib.figure import Figure
from stable_baselines3.common.callbacks import BaseCallback

from sb3_pg_ext import REINFORCE
from sb3_pg_ext.callbacks import GradientVarianceCallback

BASELINES = ("none", "mean", "time", "leave_one_out", "optimal", "value")


class Kept(BaseCallback):
    """Keeps what is measured of gradients, once for every time that it is."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    def _on_rollout_start(self) -> None:
        numbers = {key: value for key, value in self.logger.name_to_value.items() if key.startswith("gradient")}
        if numbers and (not self.rows or numbers != {key: self.rows[-1][key] for key in numbers}):
            self.rows.append(numbers | {"steps": self.num_timesteps})

    def _on_step(self) -> bool:
        return True


def draw(short: bool) -> Figure:
    """Variance of the gradient relative to that without a baseline."""
    n_steps, n_batches, update_freq = (1000, 3, 2) if short else (30_000, 30, 8)
    model = REINFORCE(
        "MlpPolicy", "CartPole-v1", 3e-3, n_episodes=10, baseline="value", policy_kwargs={"net_arch": [32]}, seed=0
    )
    variance = GradientVarianceCallback(
        gym.make("CartPole-v1"), BASELINES, update_freq=update_freq, n_batches=n_batches, n_episodes=5
    )
    kept = Kept()
    model.learn(n_steps, callback=[variance, kept], log_interval=10**9)
    steps = [row["steps"] for row in kept.rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    for number, name in enumerate(BASELINES):
        for axes, key in ((left, "variance"), (right, "cosine")):
            numbers = np.array([row[f"gradient/{name}/{key}"] for row in kept.rows])
            reference = np.array([row["gradient/none/variance"] for row in kept.rows]) if key == "variance" else 1
            axes.plot(steps, numbers / reference, "o-", markersize=3, color=f"C{number}", label=name)
            print(f"{name}: {key} {np.round(numbers / reference, 2).tolist()}")
    left.set(xlabel="steps", title="variance, relative to that without a baseline", yscale="log")
    right.set(xlabel="steps", title="cosine of a batch's gradient and the mean of all")
    right.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the example."""
    make_picture(__doc__, "baselines_and_variance", draw, arguments)


if __name__ == "__main__":
    main()
