"""The built-in baselines."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sb3_pg_ext.baselines.episodes import Episodes


@dataclass(frozen=True)
class NoBaseline:
    """b = 0."""

    def __call__(self, episodes: Episodes) -> np.ndarray:
        """Zeros, [B]."""
        return np.zeros_like(episodes.returns)


@dataclass(frozen=True)
class Mean:
    """The mean of the batch's own returns: over all steps, or, of total returns, over the episodes.

    Each episode's own return is part of the mean, which shrinks the expected gradient: with total returns of m episodes
    by the factor 1 − 1/m.
    """

    def __call__(self, episodes: Episodes) -> np.ndarray:
        """The mean, at every step, [B]."""
        returns = episodes.returns
        if episodes.total_returns:
            first_steps = np.flatnonzero(np.diff(episodes.episode_id, prepend=-1))
            returns = returns[first_steps]
        return np.full_like(episodes.returns, returns.mean(dtype=np.float64))


@dataclass(frozen=True)
class Value:
    """V(s_t), learned by the policy's critic (Sutton & Barto 2018, section 13.4)."""

    needs_values: ClassVar[bool] = True

    def __call__(self, episodes: Episodes) -> np.ndarray:
        """V(s_t), [B]."""
        assert episodes.values is not None, "REINFORCE trains a critic for every baseline that needs values"
        return episodes.values
