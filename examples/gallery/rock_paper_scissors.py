"""Rock, paper, scissors by self-play: policies that circle, and averages that converge.

    python examples/gallery/rock_paper_scissors.py

Two agents learn at the same time, each against the other's present policy. In a game without a pure equilibrium the
policies run after each other, and simultaneous gradients even drive them outwards; the average over time of what they
played goes to the equilibrium, a third each.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
import torch as th
from _picture import main as make_picture
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sb3_pg_ext import REINFORCE

PAYOFF = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
"""What the row earns; rock, paper, scissors."""
START = (1.2, 0.0, -0.5), (-0.3, 0.8, 0.0)


class Game(gym.Env):
    """One throw against an opponent, whose probabilities can be set. There is nothing to see."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Discrete(1)
        self.action_space = gym.spaces.Discrete(3)
        self.opponent = np.full(3, 1 / 3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict]:
        """Begin."""
        super().reset(seed=seed)
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        """Throw."""
        return 0, float(PAYOFF[action, self.np_random.choice(3, p=self.opponent)]), True, False, {}


class Player:
    """An agent, its game, and what it has played.

    :param logits: of its first policy
    :param learning_rate: of plain gradient ascent
    :param seed: of its samples
    """

    def __init__(self, logits: tuple[float, ...], learning_rate: float, seed: int) -> None:
        self.game = Game()
        self.model = REINFORCE(
            "MlpPolicy",
            self.game,
            learning_rate,
            n_episodes=100,
            baseline="leave_one_out",
            policy_kwargs={"net_arch": [], "optimizer_class": th.optim.SGD},
            seed=seed,
        )
        layer: Any = self.model.policy.action_net
        with th.no_grad():
            layer.bias[:] = th.tensor(logits)
            layer.weight[:] = 0
        self.played = [self.policy()]

    def policy(self) -> np.ndarray:
        """The probabilities of rock, paper and scissors."""
        observation = self.model.policy.obs_to_tensor(np.array([0]))[0]
        throws: Any = self.model.policy.get_distribution(observation).distribution
        probs = throws.probs.detach().numpy()[0].astype(float)
        return probs / probs.sum()

    def learn(self, opponent: np.ndarray) -> None:
        """One update against an opponent's policy."""
        self.game.opponent = opponent
        self.model.learn(100, reset_num_timesteps=False)
        self.played.append(self.policy())


def exact(learning_rate: float, n_updates: int) -> np.ndarray:
    """The first player's path by exact simultaneous gradients, [n_updates + 1, 3]."""
    logits = [np.array(each) for each in START]
    path = []
    for _ in range(n_updates + 1):
        p, q = (np.exp(each) / np.exp(each).sum() for each in logits)
        path.append(p)
        logits[0] = logits[0] + learning_rate * p * (PAYOFF @ q - p @ PAYOFF @ q)
        logits[1] = logits[1] + learning_rate * q * (PAYOFF @ p - q @ PAYOFF @ p)
    return np.array(path)


def flat(probs: np.ndarray) -> np.ndarray:
    """Where probabilities lie in a triangle in the plane, [2, ...]."""
    return np.array([probs[..., 1] + probs[..., 2] / 2, probs[..., 2] * np.sqrt(0.75)])


def draw_path(axes: Axes, probs: np.ndarray, title: str) -> None:
    """A path in the triangle, with its average."""
    means = np.cumsum(probs, 0) / np.arange(1, len(probs) + 1)[:, None]
    axes.plot(*flat(np.eye(3)[[0, 1, 2, 0]]), "k", linewidth=0.8)
    axes.plot(*flat(probs), color="C0", linewidth=0.6, label="policy")
    axes.plot(*flat(means), color="C3", linewidth=1.5, label="average of all so far")
    axes.plot(*flat(probs[0]), "o", color="C0", markersize=4)
    axes.plot(*flat(np.full(3, 1 / 3)), "k+", markersize=10)
    for corner, name in zip(np.eye(3), ("rock", "paper", "scissors"), strict=True):
        axes.annotate(name, tuple(flat(corner)), ha="center", va="bottom" if corner[2] else "top")
    axes.set(title=title, aspect="equal")
    axes.axis("off")
    distance, mean_distance = (np.abs(each[-1] - 1 / 3).max() for each in (probs, means))
    print(f"{title}: from a third at most, in the end {distance:.2f}, its average {mean_distance:.3f}")


def draw(short: bool) -> Figure:
    """Both paths."""
    n_updates, learning_rate = (3, 0.4) if short else (300, 0.4)
    players = [Player(logits, learning_rate, seed) for seed, logits in enumerate(START)]
    for _ in range(n_updates):
        first, second = (player.policy() for player in players)
        players[0].learn(second)
        players[1].learn(first)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4))
    draw_path(left, exact(0.1, 10 if short else 2000), "exact gradients")
    draw_path(right, np.array(players[0].played), "REINFORCE, 100 throws an update")
    figure.legend(*left.get_legend_handles_labels(), loc="lower center", ncols=2)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the example."""
    make_picture(__doc__, "rock_paper_scissors", draw, arguments)


if __name__ == "__main__":
    main()
