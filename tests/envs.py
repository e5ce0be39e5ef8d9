"""Tiny environments that tests share."""

from collections.abc import Container
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

VECTOR = spaces.Box(-1, 1, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (36, 36, 1), np.uint8)

ACTION_SPACES: dict[str, spaces.Space[Any]] = {
    "Box": spaces.Box(-1, 1, (1,), np.float32),
    "Box of two dimensions": spaces.Box(np.float32([[-2, -1]]), np.float32([[2, 0]]), (1, 2)),
    "Discrete": spaces.Discrete(3),
    "MultiDiscrete": spaces.MultiDiscrete([3, 2]),
    "MultiBinary": spaces.MultiBinary(2),
}

OBSERVATION_SPACES: dict[str, spaces.Space[Any]] = {
    "Box": VECTOR,
    "Box of two dimensions": spaces.Box(-1, 1, (2, 3), np.float32),
    "float64": spaces.Box(-1, 1, (3,), np.float64),
    "Discrete": spaces.Discrete(4),
    "MultiDiscrete": spaces.MultiDiscrete([3, 2]),
    "MultiBinary": spaces.MultiBinary(4),
    "image": IMAGE,
    "Dict": spaces.Dict({"vector": VECTOR, "number": spaces.Discrete(3), "image": IMAGE}),
}


class RandomEnv(gym.Env[Any, Any]):
    """Random observations, and every component of an action costs its value. It refuses an action outside its space.

    Every second episode terminates after ``length`` steps, the others are truncated one step later.

    :param action_space: the action space; ``None`` for the usual one
    :param observation_space: the observation space
    :param length: number of steps of an episode that terminates
    """

    usual_action_space = ACTION_SPACES["Box"]

    def __init__(
        self,
        action_space: spaces.Space[Any] | None = None,
        observation_space: spaces.Space[Any] = VECTOR,
        length: int = 4,
    ) -> None:
        self.action_space = self.usual_action_space if action_space is None else action_space
        self.observation_space = deepcopy(observation_space)  # its random generator is this environment's own
        self.length = length
        self.n_episodes = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
            self.n_episodes = 0
        self.n_episodes += 1
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.time += 1
        reward = float(np.sum(-action)) + self.np_random.normal()
        terminates = self.n_episodes % 2 == 0
        terminated = terminates and self.time == self.length
        truncated = not terminates and self.time == self.length + 1
        return self.observation_space.sample(), reward, terminated, truncated, {}


class MaskedEnv(RandomEnv):
    """A :class:`RandomEnv` of choices that allows some of them at every step, and refuses all others.

    :param action_space: Discrete, MultiDiscrete or MultiBinary
    """

    def __init__(self, action_space: spaces.Space[Any] = ACTION_SPACES["Discrete"], **kwargs: Any) -> None:
        super().__init__(action_space, **kwargs)
        if isinstance(action_space, spaces.Discrete):
            self.sizes = [int(action_space.n)]
        elif isinstance(action_space, spaces.MultiDiscrete):
            self.sizes = action_space.nvec.tolist()
        else:
            assert isinstance(action_space, spaces.MultiBinary)
            self.sizes = [2] * int(action_space.n)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        obs, info = super().reset(**kwargs)
        self._choose_masks()
        return obs, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        for choice, mask in zip(np.atleast_1d(action), self.masks, strict=True):
            assert mask[int(choice)], f"{action!r} is not allowed by {self.masks}"
        stepped = super().step(action)
        self._choose_masks()
        return stepped

    def action_masks(self) -> np.ndarray:
        return np.concatenate(self.masks)

    def _choose_masks(self) -> None:
        self.masks = [self.np_random.random(size) < 0.5 for size in self.sizes]
        for mask in self.masks:
            mask[self.np_random.integers(len(mask))] = True


class EveryEndEnv(RandomEnv):
    """A :class:`RandomEnv` whose episodes are terminated, truncated, and both at once, in turn; it has much to tell."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        return super().reset(**kwargs)[0], {"n_episodes": self.n_episodes}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, *_ = super().step(action)
        end, kind = self.time == self.length, self.n_episodes % 3
        info = {
            "time": self.time,
            "position": np.array([self.time, self.n_episodes], np.float32),
            "name": f"step {self.time}",
            "nested": {"reward": reward, "even": self.time % 2 == 0},
        }
        if end:
            info["kind"] = kind
        return obs, reward, end and kind != 1, end and kind != 2, info


class SpoiltEnv(RandomEnv):
    """A :class:`RandomEnv` that gives a non-finite value at the second step of some episodes.

    :param what: ``"observation"`` or ``"reward"``
    :param number: NaN or an infinity
    :param episodes: which episodes, counted from 0 over the whole life of the environment
    """

    def __init__(self, what: str, number: float, episodes: Container[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.what, self.number, self.episodes = what, number, episodes
        self.episode = -1

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self.episode += 1
        return super().reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, *ends = super().step(action)
        if self.time == 2 and self.episode in self.episodes:
            if self.what == "reward":
                reward = self.number
            else:
                obs[0] = self.number
        return obs, reward, *ends
