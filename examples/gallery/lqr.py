"""The linear-quadratic regulator: policy gradients on a cost that is not convex, and where they still find the optimum.

    python examples/gallery/lqr.py

A cart on a line, x' = A x + B u, pays xᵀQx + uᵀRu at every step. The policy is u = −K x with two numbers K. From
several K that keep the cart from running away, three ways lead to the best one: the exact gradient, the exact natural
gradient, and gradients from samples, by REINFORCE and NPG.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
import torch as th
from _picture import main as make_picture
from matplotlib.figure import Figure
from scipy.linalg import solve_discrete_are, solve_discrete_lyapunov
from stable_baselines3.common.callbacks import BaseCallback

from sb3_pg_ext import NPG, REINFORCE

A = np.array([[1.0, 0.3], [0.0, 1.0]])
B = np.array([[0.0], [0.3]])
Q, R = np.diag([1.0, 0.2]), np.diag([0.3])
START = np.eye(2)
"""The covariance of the first state."""
STARTS = np.array([[0.4, 3.2], [3.4, 2.2], [0.3, 0.7]])


class Cart(gym.Env):
    """A cart that is pushed along a line. The observation is its position and speed, the reward the negative cost."""

    def __init__(self, n_steps: int = 40) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gym.spaces.Box(-20, 20, (1,), np.float32)
        self.n_steps = n_steps

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Begin at a random position and speed."""
        super().reset(seed=seed)
        self._t, self._x = 0, self.np_random.multivariate_normal(np.zeros(2), START)
        return self._x.astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Push."""
        cost = self._x @ Q @ self._x + action @ R @ action
        self._x = A @ self._x + B @ action
        self._t += 1
        return self._x.astype(np.float32), -float(cost), False, self._t >= self.n_steps, {}


def cost(k: np.ndarray) -> float:
    """C(K) = tr(P START), infinite where the cart runs away."""
    closed = A - B @ k[None]
    if np.abs(np.linalg.eigvals(closed)).max() >= 1:
        return np.inf
    return float(np.trace(solve_discrete_lyapunov(closed.T, Q + k[:, None] @ R @ k[None]) @ START))


def gradient(k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """∇C(K) = 2[(R + BᵀPB)K − BᵀPA]Σ, [2], and Σ, the sum of the states' second moments, [2, 2]."""
    closed = A - B @ k[None]
    p = solve_discrete_lyapunov(closed.T, Q + k[:, None] @ R @ k[None])
    sigma = solve_discrete_lyapunov(closed, START)
    return 2 * ((R + B.T @ p @ B) @ k[None] - B.T @ p @ A)[0] @ sigma, sigma


def best() -> np.ndarray:
    """K* by the Riccati equation, [2]."""
    p = solve_discrete_are(A, B, Q, R)
    return np.linalg.solve(R + B.T @ p @ B, B.T @ p @ A)[0]


def descend(k: np.ndarray, natural: bool, n_steps: int) -> np.ndarray:
    """The path of exact gradients, [n_steps + 1, 2]. A step that would raise the cost is halved until it does not."""
    path = [k]
    for _ in range(n_steps):
        of_cost, sigma = gradient(k)
        direction, size = (np.linalg.solve(sigma, of_cost), 0.1) if natural else (of_cost, 0.02)
        while cost(k - size * direction) > cost(k):
            size /= 2
        k = k - size * direction
        path.append(k)
    return np.array(path)


class Path(BaseCallback):
    """Keeps −K at the start of every rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.points: list[np.ndarray] = []

    def _on_rollout_start(self) -> None:
        layer: Any = self.model.policy.action_net
        self.points.append(-layer.weight.detach().numpy()[0].copy())

    def _on_step(self) -> bool:
        return True


def sample(algorithm: str, k: np.ndarray, n_steps: int) -> np.ndarray:
    """The path of an algorithm that sees nothing but rewards, [n, 2]."""
    linear = {"net_arch": {"pi": [], "vf": [32]}, "log_std_init": -0.5}
    model: REINFORCE | NPG
    if algorithm == "REINFORCE":
        model = REINFORCE(
            "MlpPolicy", Cart(), 0.15, gamma=0.99, n_episodes=40, baseline="value", policy_kwargs=linear, seed=1
        )
    else:
        model = NPG(
            "MlpPolicy", Cart(), n_steps=1600, gamma=0.99, gae_lambda=0.9, target_kl=0.02, policy_kwargs=linear, seed=1
        )
    layer: Any = model.policy.action_net
    with th.no_grad():
        layer.weight[:] = th.as_tensor(-k)
    path = Path()
    model.learn(n_steps, callback=path)
    return np.array(path.points)


def draw(short: bool) -> Figure:
    """The paths over the cost."""
    n_exact, n_sampled, n_grid = (5, 3200, 8) if short else (300, 32_000, 80)
    goal = best()
    first, second = np.linspace(-0.1, 4.2, n_grid), np.linspace(0.2, 4.2, n_grid)
    costs = np.array([[cost(np.array([x, y])) for x in first] for y in second])
    figure, panels = plt.subplots(1, 4, figsize=(12, 3.2), sharex=True, sharey=True)
    ways = {
        "exact gradient": lambda k: descend(k, False, n_exact),
        "exact natural gradient": lambda k: descend(k, True, n_exact),
        "REINFORCE, from samples": lambda k: sample("REINFORCE", k, n_sampled),
        "NPG, from samples": lambda k: sample("NPG", k, n_sampled),
    }
    for axes, (title, way) in zip(panels, ways.items(), strict=True):
        axes.contour(
            first, second, np.log10(costs / cost(goal)), np.linspace(0.01, 1, 14), cmap="Greys", linewidths=0.7
        )
        axes.contourf(first, second, np.isinf(costs), [0.5, 1], colors=["#f4d6d2"])
        for start in STARTS:
            path = way(start)
            axes.plot(*path.T, ".-", markersize=2, linewidth=0.8)
            print(f"{title}: cost {cost(path[0]):.2f} → {cost(path[-1]):.3f}, at best {cost(goal):.3f}")
        axes.plot(*goal, "k*", markersize=9)
        axes.set(title=title, xlabel="K, of the position")
    panels[0].set_ylabel("K, of the speed")
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the example."""
    make_picture(__doc__, "lqr", draw, arguments)


if __name__ == "__main__":
    main()
