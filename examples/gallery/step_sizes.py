"""Step sizes: too small is slow, too large is a disaster, and how wide the room between them is.

    python examples/gallery/step_sizes.py

CartPole-v1 with REINFORCE and PPO, whose step size is a learning rate, and NPG, whose step size is a KL. Above: the
mean return of the latest 100 episodes of a short training. Below: the median KL(old‖new) of its updates, which tells
what the steps were; PPO's as it estimates it.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from _picture import main as make_picture
from matplotlib.figure import Figure
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from sb3_pg_ext import NPG, REINFORCE, fast
from sb3_pg_ext.envs import make_vec_env

SIZES = {
    "REINFORCE": (1e-4, 1e-3, 5e-3, 2e-2, 1e-1, 1.0),
    "NPG": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    "PPO": (1e-5, 1e-4, 1e-3, 5e-3, 2e-2, 1e-1),
}
UNITS = {"REINFORCE": "learning rate", "NPG": "target_kl", "PPO": "learning rate"}
KEYS = {"REINFORCE": "train/kl", "NPG": "train/kl", "PPO": "train/approx_kl"}


class Kls(BaseCallback):
    """Keeps the KL of every update.

    :param key: what it is logged as
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key
        self.kls: list[float] = []

    def _on_rollout_start(self) -> None:
        if self.key in self.logger.name_to_value:
            self.kls.append(float(self.logger.name_to_value[self.key]))

    def _on_step(self) -> bool:
        return True


def make(name: str, size: float, seed: int) -> BaseAlgorithm:
    """An algorithm with a step size."""
    env = make_vec_env("CartPole-v1", 8, seed=seed)
    small = {"net_arch": [32]}
    if name == "REINFORCE":
        return REINFORCE("MlpPolicy", env, size, n_steps=64, baseline="value", policy_kwargs=small, seed=seed)
    if name == "NPG":
        return NPG("MlpPolicy", env, n_steps=64, target_kl=size, policy_kwargs=small, seed=seed)
    ppo: dict[str, Any] = {"batch_size": 256, "n_epochs": 5, "engine": "array"}
    return fast.PPO("MlpPolicy", env, size, n_steps=64, policy_kwargs=small, seed=seed, **ppo)


def draw(short: bool) -> Figure:
    """Return and KL against the step size."""
    n_steps, n_seeds = (1024, 1) if short else (20_000, 2)
    figure, panels = plt.subplots(2, 3, figsize=(11, 5), sharex="col", sharey="row")
    for (above, below), (name, sizes) in zip(panels.T, SIZES.items(), strict=True):
        for seed in range(n_seeds):
            returns, kls = [], []
            for size in sizes[:2] if short else sizes:
                model, callback = make(name, size, seed), Kls(KEYS[name])
                model.learn(n_steps, callback=callback, log_interval=10**9)
                returns.append(np.mean([episode["r"] for episode in model.ep_info_buffer or ()]))
                kls.append(float(np.median(callback.kls)) if callback.kls else np.nan)
                print(f"{name}, {UNITS[name]} {size}, seed {seed}: return {returns[-1]:.0f}, KL {kls[-1]:.1e}")
            above.semilogx(sizes[: len(returns)], returns, "o-", markersize=3, color="C0")
            below.loglog(sizes[: len(kls)], np.maximum(kls, 1e-9), "o-", markersize=3, color="C1")
        above.set(title=name)
        below.set(xlabel=UNITS[name])
    panels[0, 0].set_ylabel("return in the end")
    panels[1, 0].set_ylabel("KL(old‖new) of an update")
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the example."""
    make_picture(__doc__, "step_sizes", draw, arguments)


if __name__ == "__main__":
    main()
