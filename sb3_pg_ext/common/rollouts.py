"""The rollout engine that every on-policy algorithm of this package shares, and that stock ones can be put on.

While the policy is fixed, a step needs only an action: :mod:`~sb3_pg_ext.common.acting` gives it, the environments
answer, :mod:`~sb3_pg_ext.common.transitions` keeps what happened. At the end :func:`evaluate_transitions` computes all
values and log-probabilities in one batch, and the algorithm makes of them what its update needs.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv

from sb3_pg_ext.common.acting import make_actor, make_bounds
from sb3_pg_ext.common.engines import make_engine
from sb3_pg_ext.common.lean import fused_step, unvalidated_distributions
from sb3_pg_ext.common.normalization import remember_statistics
from sb3_pg_ext.common.numerics import NonFiniteError, SurvivesBadNumbers, check_finite
from sb3_pg_ext.common.observations import Observations, arrays_of, map_arrays, stack
from sb3_pg_ext.common.policies import evaluate, predict_values
from sb3_pg_ext.common.quantities import Engine
from sb3_pg_ext.common.threads import limited_threads, thread_count
from sb3_pg_ext.common.transitions import Transitions
from sb3_pg_ext.functional.returns import gae, td_errors

FLATTENED = ("actions", "values", "log_probs", "advantages", "returns")
"""The arrays that SB3's rollout buffers flatten beside the observations when minibatches are first drawn."""

SelfEngine = TypeVar("SelfEngine", bound="RolloutEngine")


@dataclass(frozen=True)
class Evaluation:
    """What the policy says of a rollout, [T, N] each, float32.

    :param values: V(s_t)
    :param next_values: V(s_{t+1}): that of the final observation where truncated, 0 where terminated
    :param log_probs: log π(a_t|s_t)
    """

    values: np.ndarray
    next_values: np.ndarray
    log_probs: np.ndarray


def evaluate_transitions(policy: ActorCriticPolicy, transitions: Transitions, last_obs: Observations) -> Evaluation:
    """Compute values and log-probabilities of a whole rollout in one batch.

    :param policy: the policy that acted
    :param transitions: the rollout
    :param last_obs: the observations after its last step, [N, …]
    :raises NonFiniteError: if a value or a log-probability is not finite
    """
    shape = transitions.rewards.shape
    flat = map_arrays(lambda array: array.reshape(-1, *array.shape[2:]), transitions.observations)
    values, log_probs = (
        array.reshape(shape)
        for array in evaluate(policy, flat, transitions.actions.reshape(-1, transitions.actions.shape[-1]))
    )
    next_values = np.empty_like(values)
    next_values[:-1] = values[1:]
    next_values[-1] = predict_values(policy, last_obs)
    next_values[transitions.terminated] = 0.0
    put_final_values(policy, transitions, next_values)
    for name, array in (("value", values), ("value of the next state", next_values), ("log-probability", log_probs)):
        check_finite(name, array)
    return Evaluation(values, next_values, log_probs)


def put_final_values(policy: ActorCriticPolicy, transitions: Transitions, next_values: np.ndarray) -> None:
    """Write V(final observation) to every truncated step.

    :param policy: the policy
    :param transitions: the rollout
    :param next_values: [T, N], written to
    """
    if transitions.final_observations:
        steps, envs = zip(*transitions.final_observations, strict=True)
        next_values[steps, envs] = predict_values(policy, stack(list(transitions.final_observations.values())))


class RolloutEngine(SurvivesBadNumbers, OnPolicyAlgorithm):
    """Replaces the rollout of an SB3 on-policy algorithm, and runs its update without ballast.

    As a mix-in before a stock class it leaves that class's ``train()`` and saved files as they are:
    ``class PPO(RolloutEngine, stable_baselines3.PPO)``. Callbacks work as ever, with these differences:

    - ``self.locals`` has no ``values``, ``log_probs`` and ``obs_tensor`` at a step, since nothing needs them there;
    - ``rollout_buffer`` is filled at the end of the rollout, before ``on_rollout_end``, not step by step;
    - parameters must not be changed between ``on_rollout_start`` and ``on_rollout_end``;
    - a rollout that is dropped for its bad numbers ends without ``on_rollout_end``.

    The same seed gives the same results from run to run, and the same distribution of results as SB3's own rollout,
    not the same stream of random numbers.
    """

    engine = "auto"
    _paths: Mapping[str, str] = MappingProxyType({})
    _rollout_is_good = False

    def learn(self: SelfEngine, *args: Any, **kwargs: Any) -> SelfEngine:
        """Train, as SB3's ``learn`` and with its arguments, on as many threads as :func:`thread_count` says."""
        with limited_threads(thread_count(self.policy)):
            return super().learn(*args, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        self._check_engine()

    def _check_engine(self) -> None:
        """Refuse an unknown engine, or one that cannot do what is asked of it."""
        if self.engine != "auto":
            self._choose_engine()

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """Collect one rollout with the current policy. SB3's signature.

        :param env: the training environments
        :param callback: called at every step, and at the beginning and end of the rollout
        :param rollout_buffer: filled at the end
        :param n_rollout_steps: number of steps in every environment
        :return: whether training goes on; False if the callback stopped it
        :raises ValueError: if this was the third rollout in a row that was spoilt by bad numbers
        """
        self._rollout_is_good = False
        self.policy.set_training_mode(False)
        put_statistics_back = remember_statistics(self._vec_normalize_env)
        transitions = self._start_rollout(env)
        if self.use_sde:
            self._reset_noise(env.num_envs)
        callback.on_rollout_start()
        assert self._last_obs is not None, "learn() resets the environments"
        assert self._last_episode_starts is not None
        obs, first_starts = self._last_obs, self._last_episode_starts
        n_steps = 0
        try:
            act, path = make_actor(self.policy, env.num_envs, n_rollout_steps)
            self._announce("Choosing actions", path)
            within_bounds = make_bounds(self.policy, env.num_envs)
            while not transitions.complete:
                if self.use_sde and self.sde_sample_freq > 0 and n_steps % self.sde_sample_freq == 0:
                    self._reset_noise(env.num_envs)
                actions = act(obs)
                clipped_actions = within_bounds(actions)
                new_obs, rewards, dones, infos = env.step(clipped_actions)
                self.num_timesteps += env.num_envs

                callback.update_locals(locals())
                if not callback.on_step():
                    # Training may be resumed, and the environments have gone on.
                    self._last_obs, self._last_episode_starts = new_obs, dones  # type: ignore[assignment]
                    self._leave_rollout(transitions, first_starts)
                    return False

                n_steps += 1
                self._update_info_buffer(*transitions.counted(infos, dones))
                transitions.add(obs, actions, rewards, dones, infos)
                obs = self._last_obs = new_obs  # type: ignore[assignment]
                self._last_episode_starts = dones
            with unvalidated_distributions(), np.errstate(all="ignore"):  # bad numbers are looked for
                self._finish_rollout(transitions, first_starts)
        except NonFiniteError as problem:
            put_statistics_back()
            self._drop_rollout(problem)
            self._last_obs = env.reset()  # type: ignore[assignment]
            self._last_episode_starts = np.ones(env.num_envs, dtype=bool)
            return True
        self._keep_rollout()
        self._rollout_is_good = True
        # In the locals of callbacks the transitions would outlive the rollout, observations and all.
        callback.update_locals({**locals(), "transitions": None})
        with unflattened(rollout_buffer):
            callback.on_rollout_end()
        return True

    def train(self) -> None:
        """Update the policy with the rollout; a rollout that was dropped is passed over."""
        if not self._rollout_is_good:
            return
        start = time.perf_counter()
        with unvalidated_distributions(), fused_step(self.policy.optimizer):
            self._update()
        self.logger.record("time/update_seconds", time.perf_counter() - start)

    def _update(self) -> None:
        """What ``train()`` does with a good rollout; here, the ``train()`` of the stock class."""
        super().train()

    def _start_rollout(self, env: VecEnv) -> Transitions:
        """Make room for a rollout."""
        self.rollout_buffer.reset()
        return Transitions(self.observation_space, self.action_space, env.num_envs, self.n_steps)

    def _leave_rollout(self, transitions: Transitions, first_starts: np.ndarray) -> None:
        """Note where the environments are, when a callback ends the training at a step that is not stored.

        :param transitions: the steps before that one
        :param first_starts: [N], whether the rollout's first steps begin an episode
        """

    def _finish_rollout(self, transitions: Transitions, first_starts: np.ndarray) -> None:
        """Fill the rollout buffer, as SB3's own rollout does.

        :param transitions: the rollout
        :param first_starts: [N], whether its first steps begin an episode
        :raises NonFiniteError: if there is a bad number in it
        """
        assert self._last_obs is not None
        check_transitions(transitions, self._last_obs)
        evaluation = evaluate_transitions(self.policy, transitions, self._last_obs)
        fill_rollout_buffer(self.rollout_buffer, transitions, evaluation, first_starts)
        self.logger.record("rollout/reward_mean", float(transitions.rewards.mean()))

    def _reset_noise(self, n_envs: int) -> None:
        with unvalidated_distributions():  # a bad deviation is noticed, and counted, when it is used
            self.policy.reset_noise(n_envs)

    def _make_engine(self) -> Engine:
        """What differentiates the policy in the coming update."""
        engine, path = self._choose_engine()
        self._announce("Differentiating", path)
        return engine

    def _choose_engine(self) -> tuple[Engine, str]:
        """The engine and, in words, which it is and why.

        :raises ValueError: if it cannot do what is asked of it
        """
        return make_engine(self.policy, self.engine)

    def _announce(self, activity: str, path: str) -> None:
        if self.verbose >= 1 and path != self._paths.get(activity):
            print(f"{activity} by {path}")
        self._paths = {**self._paths, activity: path}


def check_transitions(transitions: Transitions, last_obs: Observations) -> None:
    """Refuse a rollout with NaN or infinity in its observations or rewards.

    :param transitions: the rollout
    :param last_obs: the observations after its last step, [N, …]
    :raises NonFiniteError: naming the first offending step and environment
    """
    check_finite("reward", transitions.rewards)
    for array in arrays_of(transitions.observations):
        check_finite("observation", array)
    finals = [(f"after step {t} in environment {n}", obs) for (t, n), obs in transitions.final_observations.items()]
    for place, obs in [*finals, ("after the last step", last_obs)]:
        if not all(np.isfinite(array).all() for array in arrays_of(obs)):
            raise NonFiniteError(f"observation with NaN or infinity {place} of the rollout")


@contextmanager
def unflattened(buffer: RolloutBuffer) -> Iterator[None]:
    """Within the scope minibatches may be drawn, for which SB3 flattens the arrays; then they become [T, N, …] again.

    A buffer with a ``get()`` of its own is left alone.

    :param buffer: a full buffer
    """
    if type(buffer).get not in (RolloutBuffer.get, DictRolloutBuffer.get):
        yield
        return
    n_steps, n_envs = buffer.advantages.shape
    observations: Any = buffer.observations
    shapes = [array.shape[2:] for array in (*arrays_of(observations), *(getattr(buffer, name) for name in FLATTENED))]
    yield
    if buffer.generator_ready:
        rest = iter(shapes)

        def restored(array: np.ndarray) -> np.ndarray:
            return array.reshape(n_envs, n_steps, *next(rest)).swapaxes(0, 1)

        observations = buffer.observations
        buffer.observations = map_arrays(restored, observations)  # type: ignore[assignment]
        for name in FLATTENED:
            setattr(buffer, name, restored(getattr(buffer, name)))
        buffer.generator_ready = False


def fill_rollout_buffer(
    buffer: RolloutBuffer, transitions: Transitions, evaluation: Evaluation, first_starts: np.ndarray
) -> None:
    """Fill a buffer of SB3 in one go, with what SB3's rollout would have put into it step by step.

    That includes rewards into which γV(final observation) is folded at a time limit. A buffer that overrides ``add`` or
    ``compute_returns_and_advantage`` has them called; GAE of the stock ones is computed here, bit by bit the same.

    :param buffer: an empty buffer of T steps and N environments
    :param transitions: the rollout
    :param evaluation: its values and log-probabilities
    :param first_starts: [N], whether its first steps begin an episode
    """
    ends = transitions.ends
    bootstraps = np.where(transitions.truncated, buffer.gamma * evaluation.next_values, np.float32(0))
    rewards = transitions.rewards + bootstraps
    in_one_go = store_transitions(buffer, transitions, rewards, evaluation, first_starts)
    if in_one_go and type(buffer).compute_returns_and_advantage is RolloutBuffer.compute_returns_and_advantage:
        discounts = np.where(ends, np.float32(0), np.float32(buffer.gamma))
        deltas = td_errors(rewards, discounts, evaluation.values, evaluation.next_values)
        buffer.advantages = gae(deltas, ends, buffer.gamma, buffer.gae_lambda)
        buffer.returns = buffer.advantages + buffer.values
    else:
        buffer.compute_returns_and_advantage(th.as_tensor(evaluation.next_values[-1])[:, None], ends[-1])


def store_transitions(
    buffer: RolloutBuffer,
    transitions: Transitions,
    rewards: np.ndarray,
    evaluation: Evaluation,
    first_starts: np.ndarray,
) -> bool:
    """Put everything but advantages and returns into a buffer of SB3.

    :param buffer: an empty buffer of T steps and N environments
    :param transitions: the rollout
    :param rewards: the rewards to store, [T, N]
    :param evaluation: values and log-probabilities
    :param first_starts: [N], whether the first steps begin an episode
    :return: whether it went in one go; a buffer that overrides ``add`` has it called step by step
    """
    starts = np.concatenate([first_starts[None], transitions.ends[:-1]])
    observations: Any = transitions.observations
    if type(buffer).add in (RolloutBuffer.add, DictRolloutBuffer.add):
        buffer.observations, buffer.actions, buffer.rewards = observations, transitions.actions, rewards
        buffer.episode_starts = starts.astype(np.float32)
        buffer.values, buffer.log_probs = evaluation.values, evaluation.log_probs
        buffer.pos, buffer.full = len(rewards), True
        return True
    values, log_probs = th.as_tensor(evaluation.values)[..., None], th.as_tensor(evaluation.log_probs)
    for t, reward in enumerate(rewards):
        obs: Any = map_arrays(itemgetter(t), observations)
        buffer.add(obs, transitions.actions[t], reward, starts[t], values[t], log_probs[t])
    return False
