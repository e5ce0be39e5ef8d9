"""An environment that plays episodes from a script and keeps its own record of them."""

from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


@dataclass(frozen=True)
class Script:
    """The rewards of one episode, and whether it is cut after them.

    :param rewards: its rewards, one a step
    :param truncated: whether it is truncated at its end instead of terminated
    """

    rewards: tuple[float, ...]
    truncated: bool = False


@dataclass
class Played:
    """An episode as the environment saw it; ``observations`` has one more than the rest."""

    script: Script
    observations: list[np.ndarray] = field(default_factory=list)
    actions: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return len(self.rewards) == len(self.script.rewards)


class ScriptedEnv(gym.Env[np.ndarray, Any]):
    """Plays the scripts round and round, whatever the actions.

    Observations are multiples of 1/8, and differ from step to step and from episode to episode.

    :param action_space: the action space
    :param scripts: the episodes
    :param first: number of the first observation, to tell environments apart
    """

    observation_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, action_space: spaces.Space[Any], *scripts: Script, first: int = 0) -> None:
        self.action_space = action_space
        self.scripts = cycle(scripts)
        self.count = first
        self.played: list[Played] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.played.append(Played(next(self.scripts)))
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        episode = self.played[-1]
        reward = episode.script.rewards[len(episode.rewards)]
        episode.actions.append(np.copy(action))
        episode.rewards.append(reward)
        truncated = episode.complete and episode.script.truncated
        return self._observe(), reward, episode.complete and not truncated, truncated, {}

    def _observe(self) -> np.ndarray:
        self.count += 1
        obs = np.array([self.count * 5 % 17 - 8, self.count * 3 % 13 - 6], np.float32) / 8
        self.played[-1].observations.append(obs)
        return obs
