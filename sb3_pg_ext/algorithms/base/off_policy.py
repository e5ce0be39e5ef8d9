"""What off-policy algorithms need beyond SB3's base: finite values alone, fast updates, a log that is cheap per step.

SB3 collects the transitions and stores them. What is added here stands around that, so that replay buffers, action
noise and callbacks work as ever.
"""

import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar, SupportsFloat, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, ReplayBufferSamples, RolloutReturn
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_pg_ext.algorithms.base.acting import ActionSampler, ModelActionSampler
from sb3_pg_ext.algorithms.base.actor_losses import ActorLoss
from sb3_pg_ext.algorithms.base.learning import Learning
from sb3_pg_ext.algorithms.base.targets import Target, follow
from sb3_pg_ext.algorithms.base.threads import limited_threads, thread_count
from sb3_pg_ext.arguments import check_count, check_range
from sb3_pg_ext.functional.finite import NonFiniteError, check_step
from sb3_pg_ext.gradients.torch_fast_paths import fused_step
from sb3_pg_ext.guards.counting import NonFiniteGuard
from sb3_pg_ext.guards.normalization import remember_statistics
from sb3_pg_ext.policies.observations import Observations, arrays_of
from sb3_pg_ext.policies.plain_mlp import UnsupportedPolicyError, check_methods

SelfOffPolicyBase = TypeVar("SelfOffPolicyBase", bound="OffPolicyBase")


def summarize_q(q_values: np.ndarray, targets: np.ndarray) -> dict[str, SupportsFloat]:
    """What is logged of every critic of state and action: Q, and how far it is from its targets, [B, …]."""
    td_errors = targets - q_values
    return {
        "td_error_mean": td_errors.mean(),
        "td_error_std": td_errors.std(),
        "explained_variance": 1 - td_errors.var() / targets.var(),
        "q_mean": q_values.mean(),
        "q_max": q_values.max(),
    }


class OffPolicyBase(Learning, NonFiniteGuard, OffPolicyAlgorithm):
    """The base of this package's off-policy algorithms. Each adds its arguments, its optimisers, its target networks
    and its update.

    A transition with a NaN or an infinity never reaches the replay buffer. It ends the rollout, which is what SB3
    collects between two updates: the environments are reset, the trajectory in the buffer counts as truncated there,
    the update is left out.

    An update that meets a non-finite value, or leaves one in the parameters, is undone.
    """

    engine: str
    transient: ClassVar[tuple[str, ...]] = (*NonFiniteGuard.transient, "_act", "_backend", "_latest")
    _act: ActionSampler | None = None
    _backend: Any = None
    _path = ""
    _latest: Any = None
    """What the log tells of the latest update."""

    _rollout_was_dropped = False
    _chose_n_step_buffer = False
    _reward_sum = 0.0
    _n_rewards = 0

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_count("buffer_size", self.buffer_size)
        check_count("batch_size", self.batch_size)
        check_range("learning_starts", self.learning_starts, 0)
        check_range("tau", self.tau, np.nextafter(0, 1), 1, allowed="(0, 1]")
        check_count("train_freq", self.train_freq[0] if isinstance(self.train_freq, tuple) else self.train_freq)
        check_count("gradient_steps", self.gradient_steps, -1)
        check_count("n_steps", self.n_steps)
        if not isinstance(self.action_noise, ActionNoise | None):
            raise ValueError(f"action_noise={self.action_noise!r}; allowed: an ActionNoise of SB3, or None")

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        space = env.action_space
        if isinstance(space, spaces.Box) and not space.is_bounded():
            raise ValueError(f"action_space={space}; allowed: a Box with finite bounds, to which actions are scaled")
        if isinstance(space, spaces.Box) and not np.issubdtype(space.dtype, np.floating):
            raise ValueError(
                f"action_space={space}; allowed: a Box of floats (the buffer would cut scaled actions off)"
            )
        if isinstance(space, spaces.Box) and not np.all(space.low < space.high):
            raise ValueError(f"action_space={space}; allowed: a Box with low < high (actions are scaled to −1 to 1)")
        return OffPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper)

    def _setup_model(self) -> None:
        self._check_arguments()
        self._settle_n_steps()
        super()._setup_model()

    def _check_engine(self) -> None:
        """Refuse an engine that cannot do what is asked of it."""
        if self.engine != "auto":
            self._make_backend()

    def describe_engine(self) -> str:
        """What differentiates the networks as they are now, and why: ``"arrays"``, or ``"autograd, because …"``."""
        return self._make_backend()[1]

    def _current_backend(self) -> Any:
        """What differentiates the networks as they are now."""
        if self._backend is None or not self._backend.is_current():
            self._backend, path = self._make_backend()
            if self.verbose >= 1 and path != self._path:
                print(f"Differentiating by {path}")
            self._path = path
        return self._backend

    def _make_backend(self) -> tuple[Any, str]:
        """What differentiates the networks and, in words, which it is and why.

        :raises ValueError: if it cannot do what is asked of it
        """
        raise NotImplementedError

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        self._act = self._backend = self._latest = None
        return super()._setup_learn(*args, **kwargs)

    def _make_action_sampler(self) -> ActionSampler:
        """How actions are chosen: as ``predict`` does, faster where that is possible."""
        try:
            check_methods(self, OffPolicyAlgorithm, ("predict",))
            return self._make_fast_action_sampler()
        except UnsupportedPolicyError:
            return ModelActionSampler(self)

    def _make_fast_action_sampler(self) -> ActionSampler:
        """The faster way, which follows every in-place change of the policy's parameters.

        :raises UnsupportedPolicyError: if there is none for the policy
        """
        raise UnsupportedPolicyError("there is none for this algorithm")

    def _numbers_of(self, batch: ReplayBufferSamples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rewards, discounts of V(s') or Q(s', a'), which are 0 where the episode terminated, and actions."""
        rewards, terminated, actions = (x.detach().cpu().numpy() for x in (batch.rewards, batch.dones, batch.actions))
        gamma: Any = self.gamma if batch.discounts is None else batch.discounts.cpu().numpy()
        return rewards, (1 - terminated) * gamma, actions

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.num_timesteps < learning_starts and not (self.use_sde and self.use_sde_at_warmup):
            return super()._sample_action(learning_starts, action_noise, n_envs)
        assert self._last_obs is not None, "learn() resets the environments"
        if self._act is None or not self._act.is_current():
            self._act = self._make_action_sampler()
        actions = self._act(self._last_obs).reshape(n_envs, *(self.action_space.shape or ()))
        if not isinstance(self.action_space, spaces.Box):
            return actions, actions
        if action_noise is not None:
            actions = np.clip(actions + action_noise(), -1, 1)
        return self.policy.unscale_action(actions), actions

    def _settle_n_steps(self) -> None:
        """Refuse ``n_steps`` beside a replay buffer of the user's; SB3 would ignore it."""
        agrees = {"n_steps": self.n_steps, "gamma": self.gamma}.items() <= self.replay_buffer_kwargs.items()
        if self.replay_buffer_class is NStepReplayBuffer and (agrees or self._chose_n_step_buffer):
            # In a loaded model SB3 has chosen it, and chooses again: gamma and n_steps may be others.
            self.replay_buffer_class = None
            self.replay_buffer_kwargs = {
                name: value for name, value in self.replay_buffer_kwargs.items() if name not in ("n_steps", "gamma")
            }
        self._chose_n_step_buffer = self.n_steps != 1
        if self.n_steps == 1:
            return
        if isinstance(self.observation_space, spaces.Dict):
            raise ValueError(f"n_steps={self.n_steps} with Dict observations; allowed: 1, SB3 has no buffer for both")
        if self.replay_buffer_class is not None:
            raise ValueError(
                f"n_steps={self.n_steps} together with replay_buffer_class={self.replay_buffer_class.__name__}; "
                "allowed: one of them (a buffer of your own takes n_steps and gamma in replay_buffer_kwargs)"
            )

    def learn(
        self: SelfOffPolicyBase,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfOffPolicyBase:
        """Train, see :meth:`sb3_pg_ext.algorithms.base.learning.Learning.learn`, on as many threads as pay.

        :param log_interval: log every so many episodes; ``None`` for never
        """
        with limited_threads(thread_count(self.policy)):
            return super().learn(
                total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar
            )

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback, *args: Any, **kwargs: Any) -> RolloutReturn:
        """Collect transitions and store them. SB3's signature.

        :param env: the training environments
        :param callback: called at every step, and at the beginning and end of the rollout
        :param args: SB3's further arguments
        :return: what was collected
        :raises ValueError: if this was the third rollout in a row that was spoilt by non-finite values
        """
        self._rollout_was_dropped = False
        put_statistics_back = remember_statistics(self.get_vec_normalize_env())
        try:
            rollout = super().collect_rollouts(env, callback, *args, **kwargs)
        except NonFiniteError as problem:
            put_statistics_back()
            self._drop_rollout(problem)
            self._rollout_was_dropped = True
            self._go_on_from(env.reset())  # type: ignore[arg-type]
            if self.action_noise is not None:
                self.action_noise.reset()
            return RolloutReturn(0, 0, continue_training=True)
        if not rollout.continue_training:
            # Training may be resumed, and the environments have gone on.
            self._go_on_from(callback.locals["new_obs"])
        self._keep_rollout()
        return rollout

    def _go_on_from(self, observations: Observations) -> None:
        """Go on where the environments are, after a step that is not in the replay buffer."""
        assert self.replay_buffer is not None
        truncate_trajectories(self.replay_buffer)
        self._last_obs = observations
        normalizer = self.get_vec_normalize_env()
        if normalizer is not None:
            self._last_original_obs = normalizer.get_original_obs()

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        guarded: Any = FiniteOnly(replay_buffer)
        super()._store_transition(guarded, buffer_action, new_obs, reward, dones, infos)
        self._reward_sum += float(reward.sum(dtype=np.float64))  # finite rewards may overflow together
        self._n_rewards += len(reward)

    def train(self, gradient_steps: int, batch_size: int | None = None) -> None:
        """Update the policy with batches from the replay buffer; once after a rollout that was dropped, do nothing.

        :param gradient_steps: number of updates
        :param batch_size: number of transitions for each; ``None`` for the model's own
        """
        if self._rollout_was_dropped:
            self._rollout_was_dropped = False
            return
        start = time.perf_counter()
        optimizers = [*self._optimizers().values()]
        self._update_learning_rate(optimizers)
        with ExitStack() as scope, np.errstate(all="ignore"):  # non-finite values are looked for
            for optimizer in optimizers:
                scope.enter_context(fused_step(optimizer))
            for _ in range(gradient_steps):
                batch = self._sample(batch_size or self.batch_size)
                undo = self._keep_for_undo(optimizers)
                try:
                    self._improve(batch)
                    undo.check()
                except NonFiniteError as problem:
                    undo.restore()
                    self._skip_update(problem)
                else:
                    self._n_updates += 1
                    self._let_targets_follow()
                    self._keep_update()
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("time/update_seconds", time.perf_counter() - start)

    def actor_losses(self) -> dict[str, ActorLoss]:
        """What the actor could minimise, as it and the critic are now, by the name of the gradient.

        ``"reparametrized"`` is differentiated through the sampled action, ``"score"`` by the score function.
        """
        return {}

    def _sample(self, batch_size: int) -> ReplayBufferSamples:
        """Transitions from the replay buffer, for one update."""
        assert self.replay_buffer is not None
        return self.replay_buffer.sample(batch_size, env=self.get_vec_normalize_env())

    def _let_targets_follow(self) -> None:
        for target in self._targets():
            if self._n_updates % target.interval == 0:
                follow(target)

    def _optimizers(self) -> Mapping[str, th.optim.Optimizer]:
        """The optimisers, by the names under which SB3 saves them: the model's attributes, with dots."""
        raise NotImplementedError

    def _targets(self) -> Sequence[Target]:
        """The target networks, and what they follow after an update."""
        raise NotImplementedError

    def _improve(self, batch: ReplayBufferSamples) -> None:
        """One update with one batch: what makes an algorithm. Target networks follow afterwards.

        :raises NonFiniteError: if something is not finite; then parameters and optimisers are put back
        """
        raise NotImplementedError

    def dump_logs(self) -> None:
        """Write log data. What needs computing is computed here, not at every step."""
        if self._n_rewards:
            self.logger.record("rollout/reward_mean", self._reward_sum / self._n_rewards)
            self._reward_sum, self._n_rewards = 0.0, 0
        if self._latest is not None and self._undo is not None:
            with np.errstate(all="ignore"):  # targets may all be the same
                for key, value in self._summarize().items():
                    self.logger.record(f"train/{key}", float(value))
            self.logger.record("train/step_norm", self._undo.distance())
        super().dump_logs()

    def _summarize(self) -> Mapping[str, SupportsFloat]:
        """What is logged of the latest update."""
        raise NotImplementedError

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", *self._optimizers()], []


class FiniteOnly:
    """Stands before a replay buffer and lets no non-finite value in.

    :param replay_buffer: the buffer
    """

    def __init__(self, replay_buffer: ReplayBuffer) -> None:
        self._add: Any = replay_buffer.add

    def add(
        self,
        obs: Observations,
        next_obs: Observations,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Store a step of all environments.

        :raises NonFiniteError: if an observation or a reward is not finite; then nothing is stored
        """
        check_step("reward", reward)
        for array in (*arrays_of(obs), *arrays_of(next_obs)):
            check_step("observation", array)
        self._add(obs, next_obs, action, reward, done, infos)


def truncate_trajectories(buffer: ReplayBuffer) -> None:
    """Let the trajectories in a replay buffer end at the latest step, as truncated: n-step returns and hindsight goals
    must not reach across the gap that follows.

    A buffer that optimises memory cannot tell truncation; SB3 has it take such an end for a termination.
    """
    if isinstance(buffer, HerReplayBuffer):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it warns of what is intended here
            buffer.truncate_last_trajectory()
    elif buffer.size() > 0:
        latest = buffer.pos - 1
        if not buffer.optimize_memory_usage:
            buffer.timeouts[latest] = np.where(buffer.dones[latest], buffer.timeouts[latest], 1)
        buffer.dones[latest] = 1
