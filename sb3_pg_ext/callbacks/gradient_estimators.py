"""Batches of complete episodes, and the policy gradients that are estimated from them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.nn.utils import parameters_to_vector

from sb3_pg_ext.baselines import Baseline, Episodes, LearningBaseline, apply_baseline, corrections
from sb3_pg_ext.baselines.episodes import CHUNK_BYTES
from sb3_pg_ext.estimators import AdvantageEstimator
from sb3_pg_ext.functional.importance import weighted_steps
from sb3_pg_ext.functional.tensors.gradients import influential
from sb3_pg_ext.functional.variance import VarianceParts, variance_parts
from sb3_pg_ext.gradients.scores import ScoreFunctions
from sb3_pg_ext.policies.evaluation import action_tensor, chunks
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.rollouts.assessment import Evaluation, StepOutcomes, estimate
from sb3_pg_ext.rollouts.episodes import rewards_to_go, sees_actions, to_episodes, with_actions
from sb3_pg_ext.rollouts.transitions import EpisodeTransitions


@dataclass(frozen=True)
class Batch:
    """Complete episodes, and what the policy says of them.

    :param policy: π, whose gradient is estimated
    :param transitions: what happened
    :param evaluation: values and log-probabilities by π, [T, N]
    :param gamma: discount factor γ
    :param discounts_states: whether the algorithm weights step t with γᵗ
    :param log_ratios: log π(a_t|s_t)/μ(a_t|s_t) where another policy μ played, [B]; ``None`` where it was π
    """

    policy: ActorCriticPolicy
    transitions: EpisodeTransitions
    evaluation: Evaluation
    gamma: float
    discounts_states: bool
    log_ratios: np.ndarray | None = None

    @cached_property
    def inputs(self) -> PolicyInputs:
        """What the policy saw, episode by episode, [B, …]."""
        return self.transitions.inputs.map(self.transitions.flat)

    @cached_property
    def actions(self) -> np.ndarray:
        """The actions, episode by episode, [B, action_dim]."""
        return self.transitions.flat(self.transitions.actions)

    @cached_property
    def to_go(self) -> Episodes:
        """What a baseline of rewards-to-go sees; episodes that were cut count the rewards that they collected."""
        episodes = self._episodes(total_returns=False)
        return replace(episodes, weights=(self.gamma**episodes.t).astype(np.float32) if self.discounts_states else 1.0)

    @cached_property
    def total(self) -> Episodes:
        """What a baseline of total returns sees. They are discounted from the start of the episode already."""
        return self._episodes(total_returns=True)

    def _episodes(self, total_returns: bool) -> Episodes:
        to_go = rewards_to_go(self.transitions, None, self.gamma)
        from_the_start = np.zeros(to_go.shape[1], int)
        values = self.transitions.flat(self.evaluation.values)
        episodes = to_episodes(self.transitions, self.inputs.observations, to_go, total_returns, from_the_start, values)
        return replace(episodes, scores=ScoreFunctions(self.policy, self.inputs, self.actions), gamma=self.gamma)

    def advantages(self, estimator: AdvantageEstimator) -> np.ndarray:
        """What an estimator makes of all episodes in one column, [B]."""

        def column(array: np.ndarray) -> np.ndarray:
            return self.transitions.flat(array)[:, None]

        outcomes = StepOutcomes(
            *(column(getattr(self.transitions, name)) for name in ("rewards", "terminated", "truncated"))
        )
        values, next_values, log_probs = (
            column(array) for array in (self.evaluation.values, self.evaluation.next_values, self.evaluation.log_probs)
        )
        return estimate(estimator, outcomes, values, next_values, self.gamma, log_probs, log_probs).advantages[:, 0]

    def gradient(self, weights: np.ndarray, actions: np.ndarray | None = None) -> th.Tensor:
        """Σ_t ∇log π(a_t|s_t)·w_t with respect to the parameters that log π depends on, [parameters], float64.

        :param weights: w_t, [B], float32
        :param actions: other actions than those that were taken, [B, action_dim]
        """
        actions = self.actions if actions is None else actions
        policy, total = self.policy, th.zeros((), dtype=th.float64)
        for part, obs, more in chunks(self.inputs, policy.device):
            chosen = action_tensor(actions[part], policy.action_space, policy.device)
            log_probs = policy.get_distribution(obs, **more).log_prob(chosen)
            parameters = influential(log_probs, list(policy.parameters()))
            objective = log_probs @ th.tensor(weights[part], device=policy.device)
            total = total + parameters_to_vector(th.autograd.grad(objective, parameters)).double().cpu()
        return total


class Term(NamedTuple):
    """Σ_t ∇log π(a'_t|s_t)·w_t, a part of a gradient.

    :param weights: w_t, [B], float32
    :param actions: a', [B, action_dim]; ``None`` for those that were taken
    """

    weights: np.ndarray
    actions: np.ndarray | None = None


class GradientEstimator(Protocol):
    """Makes a gradient of a batch."""

    def terms(self, batch: Batch) -> list[Term] | None:
        """What the gradient is the sum of; ``None`` if single steps have no weights of their own."""

    def gradient(self, batch: Batch) -> th.Tensor:
        """The sum over the episodes of the batch, [parameters], float64."""

    def fit(self, batch: Batch) -> None:
        """Learn from a batch that was used."""


@dataclass
class BaselineGradient:
    """Returns minus a baseline.

    :param baseline: the baseline
    :param total_returns: whether it is subtracted from total returns
    """

    baseline: Baseline
    total_returns: bool

    def _episodes(self, batch: Batch) -> Episodes:
        episodes = batch.total if self.total_returns else batch.to_go
        if not sees_actions(self.baseline):
            return episodes
        return with_actions(episodes, batch.policy, batch.inputs, batch.actions)

    def terms(self, batch: Batch) -> list[Term] | None:
        """Of the returns, and of the baseline's correction; none with a baseline for every component."""
        episodes = self._episodes(batch)
        b = apply_baseline(self.baseline, episodes, per_component=None)
        if b.ndim != 1:
            return None
        of_returns = Term((episodes.weights * (episodes.returns - b)).astype(np.float32))
        return [of_returns, *self._corrections(episodes)]

    def _corrections(self, episodes: Episodes) -> Iterator[Term]:
        for actions, terms in corrections(self.baseline, episodes):
            yield Term((episodes.weights * terms).astype(np.float32), actions)

    def gradient(self, batch: Batch) -> th.Tensor:
        """With a baseline for every component, each is subtracted from its own."""
        if (terms := self.terms(batch)) is not None:
            return total(batch, terms)
        episodes = self._episodes(batch)
        b = apply_baseline(self.baseline, episodes, per_component=None)
        g, x = episodes.gradients
        return th.as_tensor((x - b * g).sum(axis=0)) + total(batch, self._corrections(episodes))

    def fit(self, batch: Batch) -> None:
        """Where the baseline learns."""
        if isinstance(self.baseline, LearningBaseline):
            self.baseline.fit(self._episodes(batch))


@dataclass
class AdvantageGradient:
    """Advantages by an estimator, from the values of the model's critic.

    :param estimator: the estimator
    """

    estimator: AdvantageEstimator

    def terms(self, batch: Batch) -> list[Term]:
        """Of the advantages."""
        return [Term((batch.to_go.weights * batch.advantages(self.estimator)).astype(np.float32))]

    def gradient(self, batch: Batch) -> th.Tensor:
        """Their sum."""
        return total(batch, self.terms(batch))

    def fit(self, batch: Batch) -> None:
        """There is nothing to learn."""


@dataclass
class ImportanceGradient:
    """Rewards-to-go of another policy's episodes, weighted by ratios: REINFORCE's ``reuse_ratio``.

    :param per_decision: whether the ratios of a whole episode count, or each step's alone
    :param max_ratio: what they and their products are cut at
    """

    per_decision: bool
    max_ratio: float

    def terms(self, batch: Batch) -> list[Term]:
        """Of the weighted returns."""
        episodes, log_ratios = batch.to_go, batch.log_ratios
        log_ratios = np.zeros(len(episodes.t)) if log_ratios is None else log_ratios
        returns, weights = weighted_steps(
            episodes.rewards, log_ratios, episodes.t, batch.gamma, self.per_decision, self.max_ratio
        )
        return [Term((episodes.weights * weights * returns).astype(np.float32))]

    def gradient(self, batch: Batch) -> th.Tensor:
        """Their sum."""
        return total(batch, self.terms(batch))

    def fit(self, batch: Batch) -> None:
        """There is nothing to learn."""


def total(batch: Batch, terms: Iterable[Term]) -> th.Tensor:
    """The sum of terms of a gradient, [parameters], float64; 0 of none."""
    return sum((batch.gradient(*term) for term in terms), th.zeros((), dtype=th.float64))


Branches = tuple[tuple[Batch, Batch], tuple[Batch, Batch]]
"""Episodes that are alike up to a state; in it, two actions, and two continuations of each; [actions][continuations]"""


def parts_of(estimator: GradientEstimator, branches: Branches, steps: np.ndarray) -> VarianceParts | None:
    """The variance of an estimator's single steps, in parts; ``None`` where single steps have no weights.

    :param estimator: what is estimated with, as it is
    :param branches: the k-th episodes of all four batches are alike up to the state that is looked at
    :param steps: where in the k-th episode that state is, [K]; each was drawn from all steps of the first episodes
    """
    states = [[_selected(batch, steps) for batch in row] for row in branches]
    terms = [[estimator.terms(batch) for batch in row] for row in branches]
    if any(each is None for row in terms for each in row):
        return None
    episodes = branches[0][0].to_go
    assert episodes.scores is not None
    size = max(1, CHUNK_BYTES // (16 * episodes.scores.shape[1]))

    def blocks() -> Iterator[np.ndarray]:
        for first in range(0, len(steps), size):
            part = slice(first, first + size)
            yield np.stack([np.stack([rows(i, j, part) for j in range(2)], axis=1) for i in range(2)], axis=1)

    def rows(i: int, j: int, part: slice) -> np.ndarray:
        batch, chosen = branches[i][j], states[i][j][part]
        x = np.float64(0)
        for numbers, actions in terms[i][j] or []:
            taken = batch.actions if actions is None else actions
            scores = ScoreFunctions(batch.policy, batch.inputs.rows(chosen), taken[chosen])[:]
            x = x + numbers[chosen, None] * scores
        return x

    return variance_parts(blocks(), episodes.lengths.astype(np.float64))


def _selected(batch: Batch, steps: np.ndarray) -> np.ndarray:
    """The places of the states among the flat steps of a batch, [K]."""
    lengths = batch.to_go.lengths
    return np.cumsum(lengths) - lengths + steps
