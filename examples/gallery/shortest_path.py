"""Shortest path: policy gradients beside value iteration and approximate policy iteration.

    python examples/gallery/shortest_path.py

A grid with a wall, a goal, and ice on which one move in five goes astray. Value iteration knows the probabilities and
is exact. Greedy policy iteration estimates Q from samples and jumps to what looks best. The policy gradient moves
a softmax policy, a little at a time, from the same samples.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
from _picture import main as make_picture
from matplotlib.figure import Figure
from stable_baselines3.common.callbacks import BaseCallback

from sb3_pg_ext import REINFORCE
from sb3_pg_ext.functional.returns import discounted_sum

GRID = ("S....", ".##..", ".#...", "...#G")
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
GAMMA, STRAY, TIME_LIMIT = 0.95, 0.2, 60
CELLS = [(y, x) for y, line in enumerate(GRID) for x, mark in enumerate(line) if mark != "#"]
GOAL = CELLS.index((3, 4))


def transitions() -> np.ndarray:
    """P(s'|s, a), [S, A, S]. A wall or the border is not entered; the goal is not left."""
    probabilities = np.zeros((len(CELLS), 4, len(CELLS)))
    for s, (y, x) in enumerate(CELLS):
        for action in range(4):
            for move, (dy, dx) in enumerate(MOVES):
                there = (y + dy, x + dx)
                target = CELLS.index(there) if there in CELLS and s != GOAL else s
                probabilities[s, action, target] += STRAY / 4 + (1 - STRAY) * (move == action)
    return probabilities


PROBABILITIES = transitions()
REWARDS = np.where(np.arange(len(CELLS)) == GOAL, 0.0, -1.0)
"""Every step costs 1 until the goal is reached."""


class Grid(gym.Env):
    """Reach the goal. The observation is the number of the cell."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Discrete(len(CELLS))
        self.action_space = gym.spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict]:
        """Begin in a cell at random, but not at the goal."""
        super().reset(seed=seed)
        self._t, self._cell = 0, int(self.np_random.integers(len(CELLS) - 1))
        return self._cell, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        """Move."""
        self._t += 1
        self._cell = int(self.np_random.choice(len(CELLS), p=PROBABILITIES[self._cell, action]))
        return self._cell, -1.0, self._cell == GOAL, self._t >= TIME_LIMIT, {}


def value(policy: np.ndarray) -> float:
    """The expected discounted return of a policy [S, A], from a cell at random; exact."""
    steps = np.einsum("sa,sat->st", policy, PROBABILITIES)
    steps[GOAL] = 0
    return float(np.linalg.solve(np.eye(len(CELLS)) - GAMMA * steps, REWARDS)[:GOAL].mean())


def value_iteration(n_sweeps: int) -> list[float]:
    """What the greedy policy after each sweep is worth."""
    values, found = np.zeros(len(CELLS)), []
    for _ in range(n_sweeps):
        q = REWARDS[:, None] + GAMMA * PROBABILITIES @ values
        values = np.where(np.arange(len(CELLS)) == GOAL, 0, q.max(1))
        found.append(value(np.eye(4)[q.argmax(1)]))
    return found


def policy_iteration(n_rounds: int, n_steps: int, rng: np.random.Generator) -> list[float]:
    """What greedy policies are worth whose Q is the mean of the returns sampled in the latest round."""
    env, policy, found = Grid(), np.full((len(CELLS), 4), 0.25), []
    env.reset(seed=int(rng.integers(1 << 30)))
    for _ in range(n_rounds):
        explored = 0.7 * policy + 0.3 / 4
        states, actions, rewards, goes_on = [], [], [], []
        state, _ = env.reset()
        for _ in range(n_steps):
            action = int(rng.choice(4, p=explored[state]))
            states.append(state)
            actions.append(action)
            state, reward, terminated, truncated, _ = env.step(action)
            rewards.append(reward)
            goes_on.append(GAMMA * (not (terminated or truncated)))
            if terminated or truncated:
                state, _ = env.reset()
        returns = discounted_sum(np.array([rewards], np.float32).T, np.array([goes_on], np.float32).T)[:, 0]
        q = np.full((len(CELLS), 4), -np.inf)
        for s, a in set(zip(states, actions, strict=True)):
            q[s, a] = returns[(np.array(states) == s) & (np.array(actions) == a)].mean()
        policy = np.where(np.isinf(q.max(1))[:, None], policy, np.eye(4)[q.argmax(1)])
        found.append(value(policy))
    return found


class Progress(BaseCallback):
    """The exact worth of the policy at the start of every rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []
        self.values: list[float] = []

    def _on_rollout_start(self) -> None:
        policy: Any = self.model.policy
        moves = policy.get_distribution(policy.obs_to_tensor(np.arange(len(CELLS)))[0]).distribution
        probs = moves.probs.detach().numpy()
        self.steps.append(self.num_timesteps)
        self.values.append(value(probs))

    def _on_step(self) -> bool:
        return True


def draw(short: bool) -> Figure:
    """The worth of the policies against steps in the environment."""
    n_steps, n_seeds, size = (600, 1, 300) if short else (20_000, 2, 1000)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True)
    sweeps = value_iteration(12)
    left.plot(range(1, len(sweeps) + 1), sweeps, "k.-")
    left.set(xlabel="sweeps over all cells", ylabel="expected return from a cell at random")
    left.set_title("Value iteration, which knows the grid")
    for seed in range(n_seeds):
        greedy = policy_iteration(n_steps // size, size, np.random.default_rng(seed))
        right.plot(
            np.arange(1, len(greedy) + 1) * size,
            greedy,
            color="C3",
            linewidth=0.9,
            label=None if seed else "greedy policy iteration, from samples",
        )
        progress = Progress()
        model = REINFORCE(
            "MlpPolicy",
            Grid(),
            0.15,
            gamma=GAMMA,
            n_steps=size,
            baseline="value",
            seed=seed,
            critic_learning_rate=0.1,
            policy_kwargs={"net_arch": []},
        )
        model.learn(n_steps, callback=progress)
        right.plot(
            progress.steps, progress.values, color="C0", linewidth=1.2, label=None if seed else "policy gradient"
        )
        print(
            f"seed {seed}: policy iteration {np.mean(greedy[-10:]):.2f} ± {np.std(greedy[-10:]):.2f} in the end, "
            f"policy gradient {progress.values[-1]:.2f}, optimum {sweeps[-1]:.2f}"
        )
    right.axhline(sweeps[-1], color="k", linestyle="--", linewidth=0.8, label="optimum")
    right.set(xlabel="steps in the environment", title="From samples", ylim=(sweeps[-1] - 16, sweeps[-1] + 0.7))
    right.locator_params(axis="x", nbins=4)
    right.legend(loc="lower right", fontsize=8)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the example."""
    make_picture(__doc__, "shortest_path", draw, arguments)


if __name__ == "__main__":
    main()
