"""The base of on-policy algorithms with a critic, whose advantages come from a registered estimator."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from sb3_pg_ext.algorithms.base.on_policy import OnPolicyBase
from sb3_pg_ext.arguments import check_flag, check_range
from sb3_pg_ext.estimators import AdvantageEstimator, resolve_estimator
from sb3_pg_ext.gradients.minibatches import Steps
from sb3_pg_ext.plugins import EstimatorSpec, registry
from sb3_pg_ext.policies.images import lay_out_images
from sb3_pg_ext.rollouts.assessment import assess, check_transitions
from sb3_pg_ext.rollouts.episodes import steps_of_episodes
from sb3_pg_ext.rollouts.filling import STOCK_BUFFERS, store_transitions
from sb3_pg_ext.rollouts.transitions import Transitions

PROVIDES = frozenset({"truncation", "raw_rewards", "target_log_probs"})
"""What these algorithms give an estimator beyond rewards, values and episode boundaries: everything."""


class ActorCriticBase(OnPolicyBase):
    """Fills the rollout buffer with raw rewards, values, log-probabilities, and the estimator's advantages and returns.

    A subclass takes ``advantage_estimator`` (a name or an instance) and ``advantage_estimator_kwargs``, and sets both
    before ``_setup_model()``; it may also take ``discount_state_distribution``, which weights the advantage of step t
    of an episode with γᵗ. λ has one source, the argument ``gae_lambda``: see
    :func:`~sb3_pg_ext.estimators.resolve_estimator`. One that makes several epochs may also take
    ``recompute_advantages``, and then calls ``_recompute_advantages()`` before every epoch but the first.
    """

    advantage_estimator: str | AdvantageEstimator
    advantage_estimator_kwargs: Mapping[str, Any] | None
    recompute_advantages = False

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_range("gae_lambda", self.gae_lambda, 0, 1)
        check_flag("discount_state_distribution", self.discount_state_distribution)
        self._estimator = resolve_estimator(
            self.advantage_estimator,
            self.advantage_estimator_kwargs,
            gae_lambda=self.gae_lambda,
            provides=PROVIDES,
        )
        self._name_estimator()
        self._check_rollout_buffer_class()

    def _check_rollout_buffer_class(self) -> None:
        for name in ("compute_returns_and_advantage", "get", "_get_samples"):
            stock = [getattr(cls, name) for cls in STOCK_BUFFERS]
            if self.rollout_buffer_class is not None and getattr(self.rollout_buffer_class, name, None) not in stock:
                raise ValueError(
                    f"rollout_buffer_class={self.rollout_buffer_class!r} has its own {name}(), which would never be "
                    "called; allowed: a subclass of RolloutBuffer or DictRolloutBuffer without one, since advantages "
                    "come from advantage_estimator"
                )

    def _name_estimator(self) -> None:
        """Replace an instance of a registered estimator by its name and numbers, so that only these are saved."""
        estimator: Any = self.advantage_estimator
        spec = registry().find_by_factory(EstimatorSpec, type(estimator))
        if spec is not None and is_dataclass(estimator):
            numbers = {field.name: getattr(estimator, field.name) for field in fields(estimator)}
            numbers.pop("gae_lambda", None)
            self.advantage_estimator, self.advantage_estimator_kwargs = spec.name, numbers

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            "_estimator",
            "_transitions",
            "_behaviour_log_probs",
            "_state_weights",
        ]

    def _finish_rollout(self, transitions: Transitions, first_starts: np.ndarray) -> None:
        last_inputs = self._last_inputs()
        check_transitions(transitions, last_inputs)
        evaluation, estimate = assess(self.policy, transitions, last_inputs, self._estimator, self.gamma)
        store_transitions(self.rollout_buffer, transitions, transitions.rewards, evaluation, first_starts)
        self._state_weights = self._weigh_states(transitions, first_starts)
        self.rollout_buffer.advantages = estimate.advantages * self._state_weights
        self.rollout_buffer.returns = estimate.returns
        self._assessed = transitions.rewards, evaluation
        if self.recompute_advantages:
            self._transitions, self._behaviour_log_probs = transitions, evaluation.log_probs
            transitions.evaluated = None  # by a policy that changes now
        self.logger.record("rollout/reward_mean", float(transitions.rewards.mean()))

    def _steps(self) -> Steps:
        """The rollout, with images as the policy's convolutions are fastest with them."""
        steps = Steps.of(self.rollout_buffer, self.action_space)
        return replace(steps, inputs=lay_out_images(self.policy, steps.inputs))

    def _weigh_states(self, transitions: Transitions, first_starts: np.ndarray) -> np.ndarray:
        """γᵗ, [T, N], with ``discount_state_distribution``; else 1."""
        if not self.discount_state_distribution:
            return np.ones((), np.float32)
        t = steps_of_episodes(transitions, self._steps_before(first_starts))
        self._steps_into_episode = np.where(transitions.ends[-1], 0, t[-1] + 1)
        return (self.gamma**t).astype(np.float32)

    def _recompute_advantages(self) -> None:
        """Estimate advantages and returns anew, with the current critic and policy (Andrychowicz et al., 2021).

        For the start of every epoch but the first, where ``recompute_advantages`` is set. Values and log-probabilities
        in the buffer stay those of the rollout; the estimator sees both the old and the new log-probabilities.

        :raises NonFiniteError: if a value, a log-probability or an advantage is not finite
        """
        self.policy.set_training_mode(False)
        _, estimate = assess(
            self.policy,
            self._transitions,
            self._last_inputs(),
            self._estimator,
            self.gamma,
            behaviour_log_probs=self._behaviour_log_probs,
        )
        self.policy.set_training_mode(True)
        buffer = self.rollout_buffer
        # SB3's buffer flattens its arrays when minibatches are first drawn.
        flat = buffer.swap_and_flatten if buffer.generator_ready else np.asarray
        buffer.advantages, buffer.returns = flat(estimate.advantages * self._state_weights), flat(estimate.returns)

    def _log_rollout(self) -> None:
        """Log what the rollout says of critic, advantages and exploration, whatever the update does with it."""
        buffer = self.rollout_buffer
        self.logger.record("train/n_updates", self._n_updates + 1, exclude="tensorboard")
        self.logger.record("train/advantage_mean", float(buffer.advantages.mean()))
        self.logger.record("train/advantage_std", float(buffer.advantages.std()))
        self._log_critic()
        self._log_exploration()
