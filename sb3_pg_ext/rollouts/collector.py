"""Collecting rollouts, for every on-policy algorithm of this package and for stock ones.

While the policy is fixed, a step needs only an action: :mod:`~sb3_pg_ext.rollouts.action_sampling` gives it, the
environments answer, :mod:`~sb3_pg_ext.rollouts.transitions` keeps what happened. At the end
:func:`~sb3_pg_ext.rollouts.assessment.evaluate_transitions` computes all values and log-probabilities in one batch, and
the algorithm makes of them what its update needs.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_pg_ext.envs.step_infos import make_step
from sb3_pg_ext.functional.finite import NonFiniteError
from sb3_pg_ext.functional.tensors.distributions import unvalidated_distributions
from sb3_pg_ext.guards.counting import NonFiniteGuard
from sb3_pg_ext.guards.normalization import remember_statistics
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.rollouts.action_masks import make_mask_reader
from sb3_pg_ext.rollouts.action_sampling import make_action_sampler, make_bounds
from sb3_pg_ext.rollouts.assessment import Evaluation, check_transitions, evaluate_transitions
from sb3_pg_ext.rollouts.filling import fill_rollout_buffer, unflattened
from sb3_pg_ext.rollouts.transitions import Transitions


class RolloutCollector(NonFiniteGuard, OnPolicyAlgorithm):
    """Replaces the rollout of an SB3 on-policy algorithm.

    As a mix-in before a stock class it leaves that class's ``train()`` and saved files as they are:
    ``class PPO(RolloutCollector, stable_baselines3.PPO)``. Callbacks work as ever, with these differences:

    - ``self.locals`` has no ``values``, ``log_probs`` and ``obs_tensor`` at a step, since nothing needs them there;
    - ``infos`` are, where the VecEnv can, dictionaries that are made when somebody looks:
      :class:`~sb3_pg_ext.envs.StepInfos`;
    - ``rollout_buffer`` is filled at the end of the rollout, before ``on_rollout_end``, not step by step;
    - parameters must not be changed between ``on_rollout_start`` and ``on_rollout_end``;
    - a rollout that is dropped for its non-finite values ends without ``on_rollout_end``.

    The same seed gives the same results from run to run, and the actions of SB3's own rollout, up to rounding.
    """

    transient: ClassVar[tuple[str, ...]] = (*NonFiniteGuard.transient, "_assessed")

    _assessed: tuple[np.ndarray, Evaluation] | None = None
    _paths: Mapping[str, str] = MappingProxyType({})
    _rollout_is_good = False

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
        use_masking: bool | None = False,
    ) -> bool:
        """Collect one rollout with the current policy. SB3's signature, and the last argument of sb3-contrib's.

        :param env: the training environments
        :param callback: called at every step, and at the beginning and end of the rollout
        :param rollout_buffer: filled at the end
        :param n_rollout_steps: number of steps in every environment
        :param use_masking: whether the environments say which actions are allowed, and the policy takes that;
            ``None``: where the environments do
        :return: whether training goes on; False if the callback stopped it
        :raises ValueError: if this was the third rollout in a row that was spoilt by non-finite values, or an
            environment allows no action
        """
        self._rollout_is_good = False
        self.policy.set_training_mode(False)
        see_masks = make_mask_reader(env, self.policy, use_masking)
        put_statistics_back = remember_statistics(self.get_vec_normalize_env())
        transitions = self._start_rollout(env)
        if self.use_sde:
            self._reset_noise(env.num_envs)
        step = make_step(env)
        callback.on_rollout_start()
        assert self._last_obs is not None, "learn() resets the environments"
        assert self._last_episode_starts is not None
        obs, first_starts = self._last_obs, self._last_episode_starts
        n_steps = 0
        try:
            act, path = make_action_sampler(self.policy, env.num_envs, n_rollout_steps)
            self._announce("Choosing actions", path)
            within_bounds = make_bounds(self.policy, env.num_envs)
            while not transitions.complete:
                if self.use_sde and self.sde_sample_freq > 0 and n_steps % self.sde_sample_freq == 0:
                    self._reset_noise(env.num_envs)
                inputs = PolicyInputs(obs, action_masks := see_masks(n_steps))
                actions = act(inputs)
                clipped_actions = within_bounds(actions)
                new_obs, rewards, dones, infos = step(clipped_actions)
                self.num_timesteps += env.num_envs

                callback.update_locals(locals())
                if not callback.on_step():
                    # Training may be resumed, and the environments have gone on.
                    self._last_obs, self._last_episode_starts = new_obs, dones  # type: ignore[assignment]
                    self._leave_rollout(transitions, first_starts)
                    return False

                n_steps += 1
                self._update_info_buffer(*transitions.counted(infos, dones))
                transitions.add(inputs, actions, rewards, dones, infos)
                obs = self._last_obs = new_obs  # type: ignore[assignment]
                self._last_episode_starts = dones
            act.finish()
            with unvalidated_distributions(), np.errstate(all="ignore"):  # non-finite values are looked for
                transitions.evaluated = act.evaluated
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
        :raises NonFiniteError: if there is a non-finite value in it
        """
        last_inputs = self._last_inputs()
        check_transitions(transitions, last_inputs)
        evaluation = evaluate_transitions(self.policy, transitions, last_inputs)
        fill_rollout_buffer(self.rollout_buffer, transitions, evaluation, first_starts)
        self._assessed = transitions.rewards, evaluation
        self.logger.record("rollout/reward_mean", float(transitions.rewards.mean()))

    def dump_logs(self, iteration: int = 0) -> None:
        """Write an entry of the log, with what is computed for it alone: the TD errors of the latest rollout.

        :param iteration: number of iterations, SB3's
        """
        if self._assessed is not None:
            rewards, evaluation = self._assessed
            errors = rewards + self.gamma * evaluation.next_values.astype(np.float64) - evaluation.values
            self.logger.record("train/td_error_mean", float(errors.mean()))
            self.logger.record("train/td_error_std", float(errors.std()))
            self._assessed = None
        super().dump_logs(iteration)

    def _last_inputs(self) -> PolicyInputs:
        """What the policy sees after the latest step."""
        assert self._last_obs is not None, "learn() resets the environments"
        return PolicyInputs(self._last_obs)

    def _reset_noise(self, n_envs: int) -> None:
        # A standard deviation that is not finite is noticed, and counted, when it is used.
        with unvalidated_distributions():
            self.policy.reset_noise(n_envs)

    def _announce(self, activity: str, path: str) -> None:
        if self.verbose >= 1 and path != self._paths.get(activity):
            print(f"{activity} by {path}")
        self._paths = {**self._paths, activity: path}
