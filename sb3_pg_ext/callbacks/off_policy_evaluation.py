"""How good a policy is that has not been run, from what was played by others."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from scipy import stats
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_pg_ext.arguments import check_choice, check_count, check_range
from sb3_pg_ext.functional import importance
from sb3_pg_ext.functional.importance import OffPolicyEstimate
from sb3_pg_ext.policies.evaluation import evaluate
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.observations import join

Estimate = Callable[[np.ndarray, np.ndarray, np.ndarray, float], OffPolicyEstimate]
"""From rewards, log-ratios and values of episodes, [m, T] each, and γ."""


def _with_values(rewards: np.ndarray, log_ratios: np.ndarray, values: np.ndarray, gamma: float) -> OffPolicyEstimate:
    return importance.doubly_robust(rewards, log_ratios, values, values, gamma)


def _without(estimate: Callable[..., OffPolicyEstimate], normalized: bool) -> Estimate:
    return lambda rewards, log_ratios, values, gamma: estimate(rewards, log_ratios, gamma, normalized)


ESTIMATES: dict[str, Estimate] = {
    "trajectory": _without(importance.trajectory, normalized=False),
    "per_decision": _without(importance.per_decision, normalized=False),
    "normalized_trajectory": _without(importance.trajectory, normalized=True),
    "normalized_per_decision": _without(importance.per_decision, normalized=True),
    "weighted_doubly_robust": _with_values,
}


POLICIES = ActorCriticPolicy, MaskableActorCriticPolicy


def _has_probabilities(policy: object) -> bool:
    """Whether a policy says of single steps how probable their actions are."""
    return isinstance(policy, POLICIES) and not isinstance(policy, RecurrentActorCriticPolicy)


class Piece(NamedTuple):
    """Steps of one environment in a row; [t, …] each.

    :param inputs: what the policy saw
    :param actions: what it did
    :param rewards: what it got
    :param values: V(s_t) at that time
    :param log_probs: log μ(a_t|s_t) of the policy at that time
    """

    inputs: PolicyInputs
    actions: np.ndarray
    rewards: np.ndarray
    values: np.ndarray
    log_probs: np.ndarray


def _joined(pieces: Sequence[Piece]) -> Piece:
    masks = [piece.inputs.action_masks for piece in pieces]
    inputs = PolicyInputs(
        join([piece.inputs.observations for piece in pieces]),
        None if any(mask is None for mask in masks) else np.concatenate(masks),  # type: ignore[arg-type]
    )
    return Piece(inputs, *(np.concatenate(arrays) for arrays in zip(*(piece[1:] for piece in pieces), strict=True)))


class OffPolicyEvaluationCallback(BaseCallback):
    """Estimates the return of a policy that has not been run, from the latest complete episodes of the training.

    After every update, before the next rollout, it weighs the latest ``n_episodes`` episodes by the ratios of the
    probabilities of their actions under the target and under the policy that took them, whose log-probabilities it
    keeps. The target is the policy of the model as the update has left it, or another one. It logs, for every estimate,
    ``off_policy/<name>/mean``, and ``…/low`` and ``…/high`` of Student's confidence interval; and
    ``off_policy/effective_sample_size``, (Σρ)² / (m·Σρ²) of the weights of whole episodes. Training goes on as without
    it.

    ``trajectory`` and ``per_decision`` are unbiased, if not for the episodes having been learned from; the normalised
    ones, and ``weighted_doubly_robust``, have less variance. That one has V(s_t) of the critic when the step was made
    as its model of Q and V: a control variate of states alone. Intervals are those of sums of many terms. They hold
    where the effective sample size is a good part of 1, and are too narrow where few weights count.

    Rewards are as they stand in the rollout buffer: normalised where ``VecNormalize`` does so, and, in stock
    algorithms, with the value that SB3 adds where a time limit cuts an episode. Until the first ``n_episodes`` have
    ended, short episodes are over-represented, unless the rollout consists of complete ones.

    :param target: the policy to evaluate; ``None`` for the model's own
    :param estimates: which: ``"trajectory"``, ``"per_decision"``, ``"normalized_trajectory"``,
        ``"normalized_per_decision"``, ``"weighted_doubly_robust"``
    :param n_episodes: how many of the latest episodes count
    :param gamma: discount factor γ of the returns
    :param confidence: of the intervals
    :param verbose: as in SB3
    :raises ValueError: for a bad argument; at the beginning of training, if the model or the target do not fit
    """

    def __init__(
        self,
        target: ActorCriticPolicy | None = None,
        estimates: Sequence[str] = ("normalized_per_decision", "weighted_doubly_robust"),
        n_episodes: int = 100,
        gamma: float = 1.0,
        confidence: float = 0.95,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        if target is not None and not _has_probabilities(target):
            raise ValueError(
                f"target={target!r}; allowed: a policy of an on-policy algorithm, such as model.policy, that is not "
                "recurrent, or None"
            )
        if not estimates:
            raise ValueError(f"estimates={estimates!r}; allowed: at least one of {', '.join(map(repr, ESTIMATES))}")
        for name in estimates:
            check_choice("estimates", name, ESTIMATES)
        check_count("n_episodes", n_episodes, 2)
        check_range("gamma", gamma, 0, 1)
        check_range("confidence", confidence, 0, np.nextafter(1, 0), allowed="a number in [0, 1)")
        self.target = target
        self.estimates = estimates
        self.gamma = gamma
        self.confidence = confidence
        self._episodes: deque[Piece] = deque(maxlen=n_episodes)
        self._open: dict[int, list[Piece]] = {}

    def _init_callback(self) -> None:
        model = self.model
        if not isinstance(model, OnPolicyAlgorithm) or not isinstance(model.policy, POLICIES):
            raise ValueError(f"OffPolicyEvaluationCallback in {type(model).__name__}; allowed: on-policy algorithms")
        if not _has_probabilities(model.policy):
            raise ValueError(f"OffPolicyEvaluationCallback with {type(model.policy).__name__}; allowed: no recurrence")
        if model.rollout_buffer is None:
            raise ValueError(
                f"OffPolicyEvaluationCallback in {type(model).__name__}, which keeps no rollouts to weigh; allowed: "
                "on-policy algorithms with a rollout buffer, such as PPO, A2C, NPG and REINFORCE"
            )
        if self.target is not None:
            for name in ("observation_space", "action_space"):
                theirs, ours = getattr(self.target, name), getattr(model, name)
                if theirs != ours:
                    raise ValueError(f"target has the {name} {theirs}; allowed: {ours}, as the model")
        self._check_episodes()

    def _check_episodes(self) -> None:
        reused = getattr(self.model, "reuse_batches", 1)
        if reused > 1:
            raise ValueError(f"OffPolicyEvaluationCallback with reuse_batches={reused}; allowed: 1")
        if self._gives_pieces and self.model.n_steps is not None:  # type: ignore[attr-defined]
            raise ValueError(
                f"OffPolicyEvaluationCallback with n_steps={self.model.n_steps} of "  # type: ignore[attr-defined]
                f"{type(self.model).__name__}; allowed: n_episodes"
            )

    @property
    def _gives_pieces(self) -> bool:
        """Whether the rollout buffer is one column of (pieces of) episodes, as REINFORCE's."""
        return hasattr(self.model, "n_episodes")

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        for n, piece, begins, ends in self._pieces():
            pieces = self._open.pop(n, [])
            if begins or pieces:
                pieces = [piece] if begins else [*pieces, piece]
                if ends:
                    self._episodes.append(_joined(pieces))
                else:
                    self._open[n] = pieces

    def _pieces(self) -> Iterable[tuple[int, Piece, bool, bool]]:
        """Of every environment its pieces of episodes, whether each is the beginning of one, and whether the end."""
        model = self.model
        assert isinstance(model, OnPolicyAlgorithm)
        buffer, last_starts = model.rollout_buffer, model._last_episode_starts
        observations, masks = buffer.observations, getattr(buffer, "action_masks", None)
        for n in range(buffer.rewards.shape[1]):
            inputs = PolicyInputs(observations, masks).map(lambda array, n=n: array[:, n])  # type: ignore[misc]
            actions, rewards, values = (array[:, n] for array in (buffer.actions, buffer.rewards, buffer.values))
            _, log_probs = evaluate(model.policy, inputs, actions)
            starts = np.flatnonzero(buffer.episode_starts[:, n])
            cuts = [0, *starts[starts > 0].tolist(), len(rewards)]
            for first, stop in pairwise(cuts):
                part = slice(first, stop)
                numbers = (array[part].copy() for array in (actions, rewards, values, log_probs))
                piece = Piece(inputs.rows(part).map(np.copy), *numbers)  # the buffer is filled again
                is_last = stop == len(rewards)
                ends = not is_last or self._gives_pieces or bool(last_starts[n])  # type: ignore[index]
                yield n, piece, bool(buffer.episode_starts[first, n]), ends

    def _on_rollout_start(self) -> None:
        if len(self._episodes) > 1:
            for name, number in self.measure().items():
                self.logger.record(f"off_policy/{name}", number)

    def measure(self) -> dict[str, float]:
        """The estimates for the target as it is now, by what they are logged as, from at least two episodes."""
        policy = self.model.policy if self.target is None else self.target
        assert isinstance(policy, POLICIES)
        m, n_steps = len(self._episodes), max(len(episode.rewards) for episode in self._episodes)
        rewards, log_ratios, values = np.zeros((3, m, n_steps))
        everything = _joined(list(self._episodes))
        policy.set_training_mode(False)
        _, log_probs = evaluate(policy, everything.inputs, everything.actions)  # type: ignore[arg-type]
        played = np.arange(n_steps) < np.array([len(episode.rewards) for episode in self._episodes])[:, None]
        rewards[played], values[played] = everything.rewards, everything.values
        log_ratios[played] = log_probs.astype(np.float64) - everything.log_probs
        log_weights = log_ratios.sum(axis=1)
        numbers = {"effective_sample_size": importance.effective_sample_size(np.exp(log_weights - log_weights.max()))}
        quantile = stats.t.ppf((1 + self.confidence) / 2, m - 1)
        for name in self.estimates:
            estimate = ESTIMATES[name](rewards, log_ratios, values, self.gamma)
            half = quantile * estimate.standard_error
            numbers |= {
                f"{name}/mean": estimate.value,
                f"{name}/low": estimate.value - half,
                f"{name}/high": estimate.value + half,
            }
        return numbers
