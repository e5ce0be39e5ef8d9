"""What is logged, of a healthy run and of four sick ones.

    python examples/gallery/healthy_and_sick.py

``fast.PPO`` on CartPole-v1, the same seed each time. In every column one run is drawn over the healthy one: steps too
large, steps too small, a critic that is never trained, and a policy that is pushed into being certain.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from _picture import main as make_picture
from matplotlib.figure import Figure
from stable_baselines3.common.callbacks import BaseCallback

from sb3_pg_ext import fast
from sb3_pg_ext.envs import make_vec_env

HEALTHY: dict[str, Any] = {"learning_rate": 1e-3, "n_steps": 128, "batch_size": 256, "n_epochs": 10, "engine": "array"}
SICK: dict[str, dict[str, Any]] = {
    "steps too large": {"learning_rate": 0.05},
    "steps too small": {"learning_rate": 1e-5},
    "the critic is not trained": {"vf_coef": 0.0},
    "certain too soon": {"ent_coef": -0.2},
}
TRAIN = ("approx_kl", "clip_fraction", "entropy_loss", "explained_variance")
KEYS = ("rollout/ep_rew_mean", *(f"train/{key}" for key in TRAIN))


class Log(BaseCallback):
    """Keeps what was logged, by key."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, list[tuple[int, float]]] = {key: [] for key in KEYS}

    def _on_rollout_start(self) -> None:
        logged = dict(self.logger.name_to_value)
        episodes = self.model.ep_info_buffer
        if episodes:
            logged["rollout/ep_rew_mean"] = float(np.mean([episode["r"] for episode in episodes]))
        for key, values in self.values.items():
            if key in logged:
                values.append((self.num_timesteps, logged[key]))

    def _on_step(self) -> bool:
        return True


def train(n_timesteps: int, **changes: Any) -> dict[str, list[tuple[int, float]]]:
    """The log of a training."""
    log = Log()
    model = fast.PPO("MlpPolicy", make_vec_env("CartPole-v1", 8, seed=0), seed=0, device="cpu", **HEALTHY | changes)
    model.learn(n_timesteps, log, log_interval=1000)
    return log.values


def draw(short: bool) -> Figure:
    """A row for every key, a column for every illness."""
    n_timesteps = 4096 if short else 60_000
    healthy = train(n_timesteps)
    figure, grid = plt.subplots(
        len(KEYS), len(SICK), figsize=(9, 8), sharex=True, sharey="row", layout="constrained", squeeze=False
    )
    for column, (title, changes) in zip(grid.T, SICK.items(), strict=True):
        sick = train(n_timesteps, **changes)
        for axes, key in zip(column, KEYS, strict=True):
            for values, color, label in ((healthy[key], "tab:blue", "healthy"), (sick[key], "tab:red", "sick")):
                steps, numbers = np.array(values).T
                axes.plot(steps / 1000, numbers, color=color, label=label)
            axes.grid(alpha=0.3)
        column[0].set_title(title)
        column[-1].set_xlabel("thousand steps")
    for axes, key in zip(grid[:, 0], KEYS, strict=True):
        axes.set_ylabel(key.partition("/")[2])
    grid[1, 0].set_yscale("log")
    grid[4, 0].set_ylim(-1.1, 1.1)
    grid[0, 0].legend()
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and draw."""
    make_picture(__doc__, "healthy_and_sick", draw, arguments)


if __name__ == "__main__":
    main()
