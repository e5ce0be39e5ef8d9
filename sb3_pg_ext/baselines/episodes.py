"""What a baseline sees, and what it is."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class Episodes:
    """The episodes of a rollout as flat arrays of B steps, one episode after the other.

    With ``n_steps`` instead of ``n_episodes`` they may be pieces of episodes.

    :param rewards: r_t, [B], float32
    :param returns: what REINFORCE multiplies ∇log π with, [B], float32: the return from step t on, or the episode's
        total return at each of its steps
    :param observations: [B, …]; a dictionary of such arrays where the observation space is a Dict
    :param t: the step within the episode, counted from 0, [B], int64
    :param episode_id: which episode, counted from 0, [B], int64
    :param total_returns: whether ``returns`` are total returns
    :param values: V(s_t), [B], float32; ``None`` if no critic is trained
    """

    rewards: np.ndarray
    returns: np.ndarray
    observations: np.ndarray | dict[str, np.ndarray]
    t: np.ndarray
    episode_id: np.ndarray
    total_returns: bool = False
    values: np.ndarray | None = None

    @cached_property
    def lengths(self) -> np.ndarray:
        """The number of steps of every episode, [m]."""
        return np.bincount(self.episode_id)


class Baseline(Protocol):
    """A function b of the episodes, one number for every step, that is subtracted from the returns.

    The gradient stays unbiased if b at a step does not depend on the action taken there. A baseline that reads
    ``episodes.values`` sets ``needs_values = True``; then REINFORCE trains a critic.
    """

    def __call__(self, episodes: Episodes) -> np.ndarray:
        """The baseline at every step, [B], float32."""
        ...


@runtime_checkable
class LearningBaseline(Baseline, Protocol):
    """A baseline that learns from one update to the next. Its state is saved and loaded with the algorithm."""

    def fit(self, episodes: Episodes) -> None:
        """Learn from episodes; called after the baseline was used, so that it never predicts a return it has seen."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What it has learned, as numbers and arrays."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        ...
