"""What stock algorithms do not log of their training."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import sb3_contrib
import torch as th
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from sb3_pg_ext.arguments import check_count
from sb3_pg_ext.evaluation.episodes import undisturbed
from sb3_pg_ext.gradients.norms import GradientNorms
from sb3_pg_ext.guards.counting import NonFiniteGuard
from sb3_pg_ext.policies.evaluation import mean_entropy
from sb3_pg_ext.rollouts.filling import rollout_inputs

EVERY = 10
"""Of so many gradients the norm of one is measured: of every one it would cost small networks 6 % of their time."""


class DiagnosticsCallback(BaseCallback):
    """Logs of stock algorithms what those of this package log by themselves, for which it does nothing.

    - On-policy algorithms, once a rollout: ``train/td_error_mean`` and ``train/td_error_std`` of
      δ_t = r_t + γ·V(s_{t+1}) − V(s_t), ``train/advantage_mean`` and ``train/advantage_std``, and of TRPO
      ``train/entropy_loss``.
    - DQN, SAC, TD3 and DDPG, every ``log_freq`` calls, of a batch from the replay buffer: ``train/td_error_mean`` and
      ``train/td_error_std`` of y − Q(s, a), where y is the algorithm's target (TD3's without noise) and Q the smallest
      of its critics; ``train/q_mean`` and ``train/q_max`` of Q(s, a); of DQN also ``train/value_mean``, of
      max_a Q(s, a).
    - All of them: ``train/grad_norm``, the mean norm of every tenth gradient, before clipping, of critics where there
      are separate optimisers; then ``train/actor_grad_norm``, too.

    Training goes on as without it, bit by bit: batches are drawn with generators that are put back.

    :param log_freq: number of calls between two batches from the replay buffer
    :param verbose: as in SB3
    """

    def __init__(self, log_freq: int = 1000, verbose: int = 0) -> None:
        super().__init__(verbose)
        check_count("log_freq", log_freq)
        self.log_freq = log_freq

    def _on_training_start(self) -> None:
        self._hooks, self._norms = ExitStack(), {}
        if not isinstance(self.model, NonFiniteGuard):
            for key, optimizer in _optimizers(self.model):
                self._norms[key] = self._hooks.enter_context(GradientNorms(optimizer, every=EVERY))

    def _on_training_end(self) -> None:
        self._hooks.close()

    def _on_rollout_end(self) -> None:
        model = self.model
        if isinstance(model, NonFiniteGuard) or not isinstance(model, OnPolicyAlgorithm):
            return
        buffer = model.rollout_buffer
        self._record("td_error", self._td_errors(model))
        self._record("advantage", buffer.advantages)
        entropy = mean_entropy(model.policy, rollout_inputs(buffer)) if isinstance(model, sb3_contrib.TRPO) else None
        if entropy is not None:
            self.logger.record("train/entropy_loss", -entropy)
        self._record_norms()

    def _on_step(self) -> bool:
        model, is_due = self.model, self.n_calls % self.log_freq == 0
        if is_due and isinstance(model, OffPolicyAlgorithm) and not isinstance(model, NonFiniteGuard):
            self._measure_q(model)
            self._record_norms()
        return True

    def _td_errors(self, model: OnPolicyAlgorithm) -> np.ndarray:
        """Of the whole rollout, [T, N]. Where an episode is cut, SB3 has added γV to its last reward."""
        buffer = model.rollout_buffer
        last = self.locals["values"].flatten().cpu().numpy()
        ends = np.append(buffer.episode_starts[1:], [self.locals["dones"]], axis=0)
        next_values = np.append(buffer.values[1:], [last], axis=0)
        return buffer.rewards + model.gamma * (1 - ends) * next_values - buffer.values

    def _measure_q(self, model: OffPolicyAlgorithm) -> None:
        ask = next((ask for kind, ask in CRITICS if isinstance(model, kind)), None)
        if ask is None or self.num_timesteps <= model.learning_starts:
            return
        assert model.replay_buffer is not None
        with undisturbed(model, self.num_timesteps), th.no_grad():
            model.policy.set_training_mode(False)
            batch = model.replay_buffer.sample(model.batch_size, env=model.get_vec_normalize_env())
            q_values, next_values, values = ask(model, batch)
            discounts = model.gamma if batch.discounts is None else batch.discounts
            targets = batch.rewards + (1 - batch.dones) * discounts * next_values
        self._record("td_error", (targets - q_values).cpu().numpy())
        self.logger.record("train/q_mean", float(q_values.mean()))
        self.logger.record("train/q_max", float(q_values.max()))
        if values is not None:
            self.logger.record("train/value_mean", float(values.mean()))

    def _record(self, name: str, numbers: np.ndarray) -> None:
        self.logger.record(f"train/{name}_mean", float(numbers.mean()))
        self.logger.record(f"train/{name}_std", float(numbers.std()))

    def _record_norms(self) -> None:
        for key, norms in self._norms.items():
            if measured := norms.pop():
                self.logger.record(key, float(np.mean(measured)))


def _optimizers(model: Any) -> Iterator[tuple[str, th.optim.Optimizer]]:
    """The optimisers of a model's networks, each with the key of its gradient's norm."""
    critic, actor = (getattr(getattr(model, name, None), "optimizer", None) for name in ("critic", "actor"))
    if critic is not None:
        yield "train/grad_norm", critic
        if actor is not None:
            yield "train/actor_grad_norm", actor
    elif (optimizer := getattr(model.policy, "optimizer", None)) is not None:
        yield "train/grad_norm", optimizer


Answer = tuple[th.Tensor, th.Tensor, th.Tensor | None]
"""Q(s, a), the value of s' in the algorithm's target, and max_a Q(s, a) where it can be had, [B, 1] each."""


def _ask_dqn(model: Any, batch: ReplayBufferSamples) -> Answer:
    values = model.q_net(batch.observations)
    next_values = model.q_net_target(batch.next_observations).max(1, keepdim=True).values
    return values.gather(1, batch.actions.long()), next_values, values.max(1, keepdim=True).values


def _ask_sac(model: Any, batch: ReplayBufferSamples) -> Answer:
    actions, log_probs = model.actor.action_log_prob(batch.next_observations)
    ent_coef = model.ent_coef_tensor if model.log_ent_coef is None else model.log_ent_coef.exp()
    next_values = _smallest(model.critic_target(batch.next_observations, actions)) - ent_coef * log_probs[:, None]
    return _smallest(model.critic(batch.observations, batch.actions)), next_values, None


def _ask_td3(model: Any, batch: ReplayBufferSamples) -> Answer:
    actions = model.actor_target(batch.next_observations)
    next_values = _smallest(model.critic_target(batch.next_observations, actions))
    return _smallest(model.critic(batch.observations, batch.actions)), next_values, None


def _smallest(q_values: tuple[th.Tensor, ...]) -> th.Tensor:
    return th.cat(q_values, dim=1).min(1, keepdim=True).values


CRITICS: tuple[tuple[type, Callable[[Any, ReplayBufferSamples], Answer]], ...] = (
    (DQN, _ask_dqn),
    (SAC, _ask_sac),
    (TD3, _ask_td3),
)
"""What answers for the critics of a kind of algorithm; DDPG is a TD3."""
