"""Features: what a linear policy can learn depends on what it is shown.

    python examples/gallery/features.py

CartPole-v1 with a policy and a critic that are linear in their features, ``net_arch=[]``: the observation itself;
one-hot indices of a coarse grid; coarse coding by overlapping grids; a random projection with a nonlinearity; and, to
compare, a network that learns its features.
"""

from collections.abc import Callable, Sequence
from functools import partial

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
from _picture import main as make_picture
from gymnasium.utils import RecordConstructorArgs
from matplotlib.figure import Figure
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecMonitor

from sb3_pg_ext import NPG
from sb3_pg_ext.envs import FastDummyVecEnv

LOW, HIGH = np.array([-2.4, -2.5, -0.21, -2.5]), np.array([2.4, 2.5, 0.21, 2.5])
Features = Callable[[np.ndarray], np.ndarray]


def scaled(observation: np.ndarray) -> np.ndarray:
    """The observation, its usual range scaled to [0, 1] and clipped to it, [4]."""
    return np.clip((observation - LOW) / (HIGH - LOW), 0, 1)


def one_hot(n_bins: int) -> tuple[Features, int]:
    """In which cell of a grid the observation lies; a grid of n_bins⁴ cells."""
    weights = n_bins ** np.arange(4)

    def features(observation: np.ndarray) -> np.ndarray:
        cell = np.minimum((scaled(observation) * n_bins).astype(int), n_bins - 1)
        vector = np.zeros(n_bins**4, np.float32)
        vector[cell @ weights] = 1
        return vector

    return features, n_bins**4


def coarse_coding(n_bins: int, n_tilings: int) -> tuple[Features, int]:
    """The cells of several grids, each shifted against the others, scaled so that a vector has the length 1."""
    grid, size = one_hot(n_bins + 1)
    shifts = np.arange(n_tilings)[:, None] * np.array([1, 3, 5, 7]) % n_tilings / n_tilings / (n_bins + 1)

    def features(observation: np.ndarray) -> np.ndarray:
        at = LOW + scaled(observation) * (HIGH - LOW) * n_bins / (n_bins + 1)
        return np.concatenate([grid(at + shift * (HIGH - LOW)) for shift in shifts]) / np.float32(np.sqrt(n_tilings))

    return features, n_tilings * size


def random_projection(n_features: int) -> tuple[Features, int]:
    """cos(Wx + b) with random W and b, [n_features]: random Fourier features, which stand for a Gaussian kernel."""
    rng = np.random.default_rng(0)
    weights, phases = rng.normal(0, 3, (n_features, 4)), rng.uniform(0, 2 * np.pi, n_features)

    def features(observation: np.ndarray) -> np.ndarray:
        return (np.cos(weights @ scaled(observation) + phases) * np.sqrt(2 / n_features)).astype(np.float32)

    return features, n_features


class Featured(gym.ObservationWrapper, RecordConstructorArgs):
    """An environment, seen through features.

    :param env: the environment
    :param features: what the agent sees of an observation
    :param size: how many numbers that is
    """

    def __init__(self, env: gym.Env, features: Features, size: int) -> None:
        RecordConstructorArgs.__init__(self, features=features, size=size)
        gym.ObservationWrapper.__init__(self, env)
        self.features = features
        self.observation_space = gym.spaces.Box(-1, 1, (size,), np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """What the agent sees."""
        return self.features(observation)


def make(features: Features, size: int) -> Featured:
    """CartPole-v1, seen through features."""
    return Featured(gym.make("CartPole-v1"), features, size)


def identity() -> tuple[Features, int]:
    """The scaled observation, between −1 and 1."""
    return lambda observation: (2 * scaled(observation) - 1).astype(np.float32), 4


class Curve(BaseCallback):
    """Keeps the mean return of the latest 100 episodes at the end of every rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []
        self.returns: list[float] = []

    def _on_rollout_end(self) -> None:
        episodes = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        if episodes:
            self.steps.append(self.num_timesteps)
            self.returns.append(float(np.mean(episodes)))

    def _on_step(self) -> bool:
        return True


def draw(short: bool) -> Figure:
    """Learning curves."""
    n_steps, n_seeds = (512, 1) if short else (15_000, 2)
    kinds = {
        "the observation, linear": (identity(), []),
        "one-hot, 4⁴ cells": (one_hot(4), []),
        "coarse coding, 8 grids of 4⁴": (coarse_coding(3, 8), []),
        "random projection, 200": (random_projection(200), []),
        "the observation, learned features": (identity(), [32, 32]),
    }
    figure, axes = plt.subplots(figsize=(7, 4))
    for number, (name, ((features, size), net_arch)) in enumerate(kinds.items()):
        for seed in range(n_seeds):
            env = VecMonitor(FastDummyVecEnv([partial(make, features, size)] * 4))
            shape = {"net_arch": net_arch}
            model = NPG("MlpPolicy", env, 1e-2, n_steps=128, target_kl=0.02, policy_kwargs=shape, seed=seed)
            curve = Curve()
            model.learn(n_steps, callback=curve)
            axes.plot(curve.steps, curve.returns, color=f"C{number}", linewidth=1.2, label=None if seed else name)
            print(f"{name}, {size} numbers, seed {seed}: {curve.returns[-1]:.0f}")
    axes.set(xlabel="steps", ylabel="return, mean of the latest 100 episodes")
    axes.legend(fontsize=8)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the example."""
    make_picture(__doc__, "features", draw, arguments)


if __name__ == "__main__":
    main()
