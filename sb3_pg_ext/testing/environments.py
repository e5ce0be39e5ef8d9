"""An environment on which an algorithm shows in a second whether it works at all."""

from typing import Any

import gymnasium as gym
import numpy as np

TIME_LIMIT = 15


class Drift(gym.Env[np.ndarray, Any]):
    """A point drifts along a line, and the action pushes it.

    The observation is its position and the share of the time that has passed, the reward how near it is to the origin.
    An episode terminates where the point is further away than 1, and is truncated after 15 steps.

    :param action_space: ``Discrete(3)`` (push left, not at all, right) or ``Box(-1, 1, (1,))``
    """

    observation_space = gym.spaces.Box(-2.0, 2.0, (2,), np.float32)

    def __init__(self, action_space: gym.Space[Any]) -> None:
        self.action_space = action_space
        self.position, self.time = 0.0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start anywhere near the origin."""
        super().reset(seed=seed)
        self.position, self.time = self.np_random.uniform(-0.5, 0.5), 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Push, and drift."""
        push = action - 1 if isinstance(self.action_space, gym.spaces.Discrete) else float(action[0])
        self.position += 0.2 * push + 0.1 * self.np_random.standard_normal()
        self.time += 1
        terminated, truncated = abs(self.position) > 1, self.time == TIME_LIMIT
        return self._observe(), 1.0 - abs(self.position), terminated, truncated, {}

    def _observe(self) -> np.ndarray:
        return np.array([np.clip(self.position, -2, 2), self.time / TIME_LIMIT], np.float32)
