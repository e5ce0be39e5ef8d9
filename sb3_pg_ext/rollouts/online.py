"""Collecting for algorithms that learn between two steps of the environments."""

import time
from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_pg_ext.envs.step_infos import StepInfos, make_step
from sb3_pg_ext.functional.finite import NonFiniteError, check_step
from sb3_pg_ext.guards.normalization import remember_statistics
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.observations import Observations, arrays_of, map_arrays
from sb3_pg_ext.rollouts.action_sampling import make_bounds
from sb3_pg_ext.rollouts.collector import RolloutCollector
from sb3_pg_ext.rollouts.transitions import Infos


class Transition(NamedTuple):
    """One step of every environment, told truthfully.

    :param inputs: what the policy saw, [N, …]
    :param actions: the policy's actions, before they are clipped, [N, action_dim]
    :param rewards: [N]
    :param terminated: [N], whether there is no state to come
    :param truncated: [N], whether the episode was cut off
    :param next_inputs: what the policy sees next, [N, …]: where the episode ends its last observation, not that of the
        next episode
    :param starts: [N], whether the step is the first of an episode
    """

    inputs: PolicyInputs
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    next_inputs: PolicyInputs
    starts: np.ndarray


class OnlineCollector(RolloutCollector):
    """A rollout in which the algorithm learns at every step: act, step the environments, learn, and so on.

    A rollout of ``n_steps`` steps is what lies between two reports: callbacks see it begin and end, and what is logged
    sums it up. It has no buffer. ``on_step`` comes after the step of the environments and before it is learned from; if
    it stops the training, that step is not learned from.

    A step that gives an observation or a reward that is not finite is not learned from either. It ends the rollout, and
    the environments are reset.

    A subclass has ``_begin_rollout``, ``_act``, ``_learn_from`` and ``_end_rollout``.
    """

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
        use_masking: bool | None = False,
    ) -> bool:
        """Act and learn. SB3's signature.

        :param env: the training environments
        :param callback: called at every step, and at the beginning and end of the rollout
        :param rollout_buffer: unused
        :param n_rollout_steps: number of steps in every environment; fewer where the training ends before
        :param use_masking: unused: action masks are not supported
        :return: whether training goes on; False if the callback stopped it
        :raises ValueError: if this was the third rollout in a row that a non-finite value ended, or the third update in
            a row that was skipped
        """
        self.policy.set_training_mode(False)
        put_statistics_back = remember_statistics(self.get_vec_normalize_env())
        step = make_step(env)
        callback.on_rollout_start()
        assert self._last_obs is not None, "learn() resets the environments"
        assert self._last_episode_starts is not None
        left = -(-(self._total_timesteps - self.num_timesteps) // env.num_envs)
        n_steps, reward_sum, seconds = 0, 0.0, 0.0
        planned = max(1, min(n_rollout_steps, left))
        self._begin_rollout(planned)
        within_bounds = make_bounds(self.policy, env.num_envs)
        none = np.zeros(env.num_envs, bool)
        inputs = PolicyInputs(self._last_obs)
        try:
            _check_observations(self._last_obs)
            while n_steps < planned:
                actions = self._act(inputs, self._last_episode_starts)
                clipped_actions = within_bounds(actions)
                stepped: Any = step(clipped_actions)
                new_obs, rewards, dones, infos = stepped
                self.num_timesteps += env.num_envs

                callback.update_locals(locals())
                if not callback.on_step():
                    # Training may be resumed, and the environments have gone on.
                    self._last_obs, self._last_episode_starts = new_obs, np.ones(env.num_envs, bool)
                    self._end_rollout(n_steps)
                    return False

                n_steps += 1
                self._update_info_buffer(*_with_news(infos, dones))  # type: ignore[arg-type]
                check_step("reward", rewards)
                _check_observations(new_obs)
                next_inputs = PolicyInputs(new_obs)
                terminated = truncated = none
                final_inputs = next_inputs
                if dones.any():
                    terminated, truncated, final_inputs = _tell_apart(new_obs, dones, infos)
                start = time.perf_counter()
                self._learn_from(
                    Transition(
                        inputs,
                        actions.reshape(env.num_envs, -1),
                        rewards,
                        terminated,
                        truncated,
                        final_inputs,
                        self._last_episode_starts,
                    )
                )
                seconds += time.perf_counter() - start
                reward_sum += float(rewards.sum(dtype=np.float64))
                inputs, self._last_obs = next_inputs, new_obs
                self._last_episode_starts = dones
        except NonFiniteError as problem:
            put_statistics_back()
            self._end_rollout(n_steps)
            self._drop_rollout(problem)
            self._last_obs = env.reset()  # type: ignore[assignment]
            self._last_episode_starts = np.ones(env.num_envs, dtype=bool)
            return True
        self._keep_rollout()
        self.logger.record("rollout/reward_mean", reward_sum / (n_steps * env.num_envs))
        self.logger.record("time/update_seconds", seconds)
        self._end_rollout(n_steps)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _begin_rollout(self, n_steps: int) -> None:
        """Prepare for so many steps.

        :param n_steps: how many there will be, unless something ends the rollout before
        """
        raise NotImplementedError

    def _act(self, inputs: PolicyInputs, starts: np.ndarray) -> np.ndarray:
        """Choose an action for every environment, [N, …], not yet clipped.

        :param inputs: what the policy sees, [N, …]
        :param starts: [N], whether an episode starts
        :raises NonFiniteError: if the policy's output is not finite
        """
        raise NotImplementedError

    def _learn_from(self, transition: Transition) -> None:
        """Learn from a step of every environment, whose numbers are finite.

        :param transition: the step
        """
        raise NotImplementedError

    def _end_rollout(self, n_steps: int) -> None:
        """Record what is logged.

        :param n_steps: how many steps were learned from
        """
        raise NotImplementedError


def _with_news(infos: Infos, dones: np.ndarray) -> tuple[Infos, np.ndarray]:
    """The infos and dones of environments where there may be news of an episode."""
    if not isinstance(infos, StepInfos):
        return infos, dones
    rows = infos.news(dones)
    return [infos[n] for n in rows], dones[rows]


def _check_observations(observations: Observations) -> None:
    for array in arrays_of(observations):
        check_step("observation", array)


def _tell_apart(new_obs: Observations, dones: np.ndarray, infos: Infos) -> tuple[np.ndarray, np.ndarray, PolicyInputs]:
    """Where episodes are terminated, where truncated, and the next observations with the last ones of episodes."""
    terminated, truncated = dones.astype(bool), np.zeros(len(dones), bool)
    next_obs = map_arrays(np.copy, new_obs)
    for n in np.flatnonzero(dones).tolist():
        final = infos[n].get("terminal_observation")
        if final is None:
            continue
        truncated[n] = bool(infos[n].get("TimeLimit.truncated", False))
        terminated[n] = not truncated[n]
        if isinstance(next_obs, dict):
            for key, array in next_obs.items():
                array[n] = final[key]
        else:
            next_obs[n] = final
    _check_observations(next_obs)
    return terminated, truncated, PolicyInputs(next_obs)
