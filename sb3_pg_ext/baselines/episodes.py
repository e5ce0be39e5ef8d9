"""What a baseline sees, and what it is."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

CHUNK_BYTES = 32 * 2**20
"""Score functions are read in chunks of at most so many bytes, so that memory stays flat."""


class Scores(Protocol):
    """An array [B, n] of which slices of rows are read: NumPy's own, or one that computes them at that moment."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[B, n]."""
        ...

    def __getitem__(self, part: slice, /) -> np.ndarray:
        """The rows of a slice."""
        ...


Correction = tuple[np.ndarray, np.ndarray]
"""Actions a', [B, action_dim], and their weights c, [B]: the term Σ_t w_t c_t ∇log π(a'_t|s_t) of a gradient."""


@dataclass(frozen=True)
class ActionFactors:
    """π(·|s_t) as a product of factors, one for every number of an action: either choices, or Gaussians.

    :param probabilities: of every factor the probabilities of its choices 0, 1, …, [B, choices] each, float64
    :param mean: μ of the Gaussians, [B, action_dim], float64
    :param std: σ likewise
    """

    probabilities: tuple[np.ndarray, ...] = ()
    mean: np.ndarray | None = None
    std: np.ndarray | None = None

    def deviations(self, actions: np.ndarray) -> list[np.ndarray]:
        """Of every factor, what of its action differs from the expectation: it has mean 0 under π.

        Of a Gaussian (a_i − μ_i)/σ_i, [B, 1]; of choices 1[a_i = k] − π_i(k), [B, choices].

        :param actions: a, [B, action_dim]
        """
        if self.mean is None or self.std is None:
            taken = actions.reshape(len(actions), -1).astype(np.int64)
            return [np.eye(p.shape[1])[taken[:, i]] - p for i, p in enumerate(self.probabilities)]
        scaled = (actions.reshape(self.mean.shape) - self.mean) / self.std
        return [scaled[:, i : i + 1] for i in range(scaled.shape[1])]

    def support(self, i: int, actions: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Actions that stand for all of a factor's, the others being as they were, and their probabilities, [B].

        Expectations over them are those over π_i, of every function of a choice, and of ∇log π of a Gaussian and what
        is linear in it: there they are μ_i ± σ_i.

        :param i: the factor
        :param actions: a, [B, action_dim]
        """
        n_steps = len(actions)
        if self.mean is None or self.std is None:
            for k, probability in enumerate(self.probabilities[i].T):
                yield _replaced(actions, i, np.full(n_steps, k)), probability
        else:
            for sign in (1.0, -1.0):
                yield _replaced(actions, i, self.mean[:, i] + sign * self.std[:, i]), np.full(n_steps, 0.5)

    def probes(self, slopes: list[np.ndarray], actions: np.ndarray) -> Iterator[Correction]:
        """∇_θ E_{a~π} Σ_i c_i·x_i(a_i), with the deviations x of :meth:`deviations`, in terms of ∇log π of actions.

        Of Gaussians, ∇log π(μ + σu) − ∇log π(μ − σu) = 2 Σ_i (u_i/σ_i) ∇μ_i, with u = c up to its size.

        :param slopes: c_i, of every factor as many as it has deviations, [B, …] each
        :param actions: a, [B, action_dim]
        """
        if self.mean is None or self.std is None:
            for i, c in enumerate(slopes):
                for k, (others, probability) in enumerate(self.support(i, actions)):
                    yield others, probability * (c[:, k] - (self.probabilities[i] * c).sum(axis=1))
        else:
            direction = np.concatenate(slopes, axis=1)
            size = np.maximum(np.abs(direction).max(axis=1), np.finfo(np.float64).tiny)
            for sign in (1.0, -1.0):
                yield (
                    self.mean + sign * self.std * direction / size[:, None],
                    sign * size / 2,
                )


def _replaced(actions: np.ndarray, i: int, column: np.ndarray) -> np.ndarray:
    """With other numbers for one factor."""
    others = actions.reshape(len(actions), -1).copy()
    others[:, i] = column
    return others


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
    :param scores: ∇_θ log π(a_t|s_t) with respect to the n parameters of the actor, [B, n], float32; computed as it is
        read, which has to happen before the policy is updated, so not in ``fit``
    :param weights: what REINFORCE weights each step with besides its return, [B] or one number for all: γᵗ with
        ``discount_state_distribution``
    :param gamma: γ of the returns
    :param actions: a_t, [B, action_dim]; ``None`` unless the baseline has ``needs_actions = True``
    :param policy: π(·|s_t), likewise
    """

    rewards: np.ndarray
    returns: np.ndarray
    observations: np.ndarray | dict[str, np.ndarray]
    t: np.ndarray
    episode_id: np.ndarray
    total_returns: bool = False
    values: np.ndarray | None = None
    scores: Scores | None = None
    weights: np.ndarray | float = 1.0
    gamma: float = 1.0
    actions: np.ndarray | None = None
    policy: ActionFactors | None = None

    @cached_property
    def lengths(self) -> np.ndarray:
        """The number of steps of every episode, [m]."""
        return np.bincount(self.episode_id)

    @cached_property
    def episode_returns(self) -> np.ndarray:
        """The return of every episode, that of its first step, [m]."""
        return self.returns[np.flatnonzero(np.diff(self.episode_id, prepend=-1))]

    @cached_property
    def columns(self) -> np.ndarray:
        """The rank of every step's t among all that occur, [B]: its column in :meth:`by_time`."""
        return np.unique(self.t, return_inverse=True)[1]

    def by_time(self, numbers: np.ndarray) -> np.ndarray:
        """Lay numbers, one for every step, out as a table, [m, times]; 0 where an episode has no such step.

        :param numbers: [B]
        """
        table = np.zeros((len(self.lengths), self.columns.max() + 1))
        table[self.episode_id, self.columns] = numbers
        return table

    def weighted_scores(self) -> Iterator[tuple[slice, np.ndarray]]:
        """w_t ∇log π(a_t|s_t), chunk by chunk: which steps, and their rows, [b, n]."""
        assert self.scores is not None, "REINFORCE gives every baseline the score functions"
        n_steps, n_parameters = self.scores.shape
        weights = np.broadcast_to(np.float32(self.weights), n_steps)
        size = max(1, CHUNK_BYTES // (4 * n_parameters))
        for start in range(0, n_steps, size):
            part = slice(start, min(start + size, n_steps))
            yield part, weights[part, None] * self.scores[part]

    @cached_property
    def gradients(self) -> tuple[np.ndarray, np.ndarray]:
        """g = Σ_t w_t ∇log π(a_t|s_t) and X = Σ_t w_t G_t ∇log π(a_t|s_t) of every episode, [m, n] each, float64."""
        assert self.scores is not None, "REINFORCE gives every baseline the score functions"
        g, x = np.zeros((2, len(self.lengths), self.scores.shape[1]))
        for part, rows in self.weighted_scores():
            ids = self.episode_id[part]
            starts = np.flatnonzero(np.diff(ids, prepend=-1))
            g[ids[starts]] += np.add.reduceat(rows, starts, dtype=np.float64)
            x[ids[starts]] += np.add.reduceat(self.returns[part, None] * rows, starts, dtype=np.float64)
        return g, x


class Baseline(Protocol):
    """A function b of the episodes that is subtracted from the returns.

    The gradient stays unbiased if b at a step does not depend on the action taken there. What a baseline needs it says
    by attributes, all of which may be left out:

    - ``needs_values = True`` if it reads ``episodes.values``: REINFORCE trains a critic;
    - ``needs_episodes = 2`` if it needs so many complete episodes: REINFORCE refuses fewer, and ``n_steps``;
    - ``needs_actions = True`` if it reads ``episodes.actions`` or ``episodes.policy``: REINFORCE refuses policies that
      are no product of choices or Gaussians;
    - ``max_observation_size``: REINFORCE refuses observations of more numbers.

    One that depends on the action has a method ``correction``, see :class:`CorrectedBaseline`.
    """

    def __call__(self, episodes: Episodes) -> np.ndarray:
        """The baseline, float32: at every step, [B].

        With ``BaselineSpec(per_component=True)`` one of every episode for every component of the gradient, [m, n]: then
        REINFORCE subtracts b∘Σ_t w_t ∇log π(a_t|s_t) from the gradient of an episode.
        """
        ...


@runtime_checkable
class CorrectedBaseline(Baseline, Protocol):
    """A baseline b(s, a) that sees the action, and adds the expectation of what it takes away.

        ĝ = Σ_t w_t [∇log π(a_t|s_t)(G_t − b(s_t, a_t)) + ∇_θ E_{a~π} b(s_t, a)]

    has no bias if b does not depend on what follows the action, so, what it learns, it has to learn from earlier
    batches.
    """

    def correction(self, episodes: Episodes) -> Iterable[Correction]:
        """∇_θ E_{a~π} b(s_t, a), or an unbiased estimate of it, in terms of score functions: Σ_k c_k ∇log π(a_k|s_t).

        :return: of every term the actions a_k, [B, action_dim], and c_k, [B]. Choices have π(k|s) b(s, k) for c_k.
        """
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
