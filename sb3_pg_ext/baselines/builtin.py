"""The built-in baselines."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from sb3_pg_ext.arguments import check_range
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
        return np.full_like(episodes.returns, _mean_return(episodes))


@dataclass
class MovingAverage:
    """A running mean of the returns of earlier batches, 0 before the first (Williams 1992, reinforcement comparison).

    The k-th batch before the present one has a weight proportional to decay^k.

    :param decay: 0 for the mean of the last batch alone, near 1 for a long memory
    :raises ValueError: if ``decay`` is not in [0, 1)
    """

    decay: float = 0.9
    _sum: float = field(default=0.0, init=False)
    _weight: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        check_range("decay", self.decay, 0, np.nextafter(1, 0), allowed="a number in [0, 1)")

    def __call__(self, episodes: Episodes) -> np.ndarray:
        """The running mean, at every step, [B]."""
        return np.full_like(episodes.returns, self._sum / self._weight if self._weight else 0.0)

    def fit(self, episodes: Episodes) -> None:
        """Take the mean of a batch in: over all steps, or, of total returns, over the episodes."""
        self._sum = self.decay * self._sum + (1 - self.decay) * _mean_return(episodes)
        self._weight = self.decay * self._weight + (1 - self.decay)

    def state_dict(self) -> dict[str, Any]:
        """The weighted sum of the means, and the sum of their weights."""
        return {"sum": self._sum, "weight": self._weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._sum, self._weight = state["sum"], state["weight"]


@dataclass(frozen=True)
class Time:
    """b_t: the mean of the batch's own returns at time step t, over the episodes that reach it.

    Each step's own return is part of the mean, which shrinks the expected gradient.
    """

    def __call__(self, episodes: Episodes) -> np.ndarray:
        """The mean at the time of every step, [B]."""
        returns = episodes.returns
        sums, counts = (episodes.by_time(numbers).sum(axis=0) for numbers in (returns, np.ones_like(returns)))
        return (sums / counts)[episodes.columns].astype(np.float32)


@dataclass(frozen=True)
class LeaveOneOut:
    """b_{i,t} = Σ_{j≠i} G_{j,t} / (m − 1): the mean return of the other episodes at the same time (RLOO).

    An episode counts 0 at the times that it does not reach, since no reward is left there. With total returns it counts
    its total at all times (Kool et al. 2019, https://openreview.net/forum?id=r1lgTGL5DE).
    """

    needs_episodes: ClassVar[int] = 2

    def __call__(self, episodes: Episodes) -> np.ndarray:
        """The mean of the others at the time of every step, [B]."""
        if episodes.total_returns:
            return _mean_of_others(episodes.episode_returns[:, None])[episodes.episode_id, 0]
        return _mean_of_others(episodes.by_time(episodes.returns))[episodes.episode_id, episodes.columns]


@dataclass(frozen=True)
class Value:
    """V(s_t), learned by the policy's critic (Sutton & Barto 2018, section 13.4)."""

    needs_values: ClassVar[bool] = True

    def __call__(self, episodes: Episodes) -> np.ndarray:
        """V(s_t), [B]."""
        assert episodes.values is not None, "REINFORCE trains a critic for every baseline that needs values"
        return episodes.values


def _mean_return(episodes: Episodes) -> float:
    """The mean over all steps, or, of total returns, over the episodes."""
    returns = episodes.episode_returns if episodes.total_returns else episodes.returns
    return float(returns.mean(dtype=np.float64))


def _mean_of_others(table: np.ndarray) -> np.ndarray:
    """For every row the mean of the others, [m, …], float32."""
    m = len(table)
    return ((1 - np.eye(m)) @ table / (m - 1)).astype(np.float32)
