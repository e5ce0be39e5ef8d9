"""An actor: environments and a copy of the network, in a process of its own."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from sb3_pg_ext.algorithms.base.threads import limited_threads
from sb3_pg_ext.algorithms.impala.unrolls import USUAL_INFO, Info, News, Unroll, UnrollLayout
from sb3_pg_ext.functional.finite import NonFiniteError, check_finite
from sb3_pg_ext.functional.tensors.distributions import unvalidated_distributions
from sb3_pg_ext.gradients.choice import make_backend
from sb3_pg_ext.gradients.minibatches import flatten as flatten_steps
from sb3_pg_ext.policies.evaluation import action_array
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.observations import arrays_of
from sb3_pg_ext.rollouts.action_masks import make_mask_reader
from sb3_pg_ext.rollouts.action_sampling import Evaluated, make_action_sampler, make_bounds
from sb3_pg_ext.rollouts.assessment import check_transitions
from sb3_pg_ext.rollouts.transitions import Transitions
from sb3_pg_ext.workers.flat import flatten
from sb3_pg_ext.workers.monitor_files import continued_monitor_files
from sb3_pg_ext.workers.shared_statistics import Slots, share_statistics


@dataclass(frozen=True)
class ActorConfig:
    """What an actor has to know; called in its process, it makes the actor. The names are those of IMPALA's arguments.

    :param make_env: builds its environments, a VecEnv
    :param make_policy: builds a policy; its parameters are replaced at once
    """

    make_env: Callable[[], VecEnv]
    make_policy: Callable[[], ActorCriticPolicy]
    n_steps: int
    n_envs_per_actor: int
    use_sde: bool
    sde_sample_freq: int
    use_masking: bool

    def __call__(self, index: int, seed: int, slots: Slots) -> "UnrollingActor":
        """Make it."""
        return UnrollingActor(self, index, seed, slots)


class UnrollingActor:
    """Makes unrolls of ``n_steps`` steps in its environments, one after the other.

    :param config: what it has to know
    :param index: which of the actors it is
    :param seed: its own seed
    :param slots: of the running statistics that all actors share
    """

    def __init__(self, config: ActorConfig, index: int, seed: int, slots: Slots) -> None:
        self._scope = ExitStack()
        self._scope.enter_context(limited_threads(1))
        set_random_seed(seed)
        self._config = config
        self.policy = config.make_policy()
        self.policy.set_training_mode(False)
        self._parameters = flatten(self.policy).detach().numpy()
        self._backend, _ = make_backend(self.policy)
        self._within_bounds = make_bounds(self.policy, config.n_envs_per_actor)
        self._layout = UnrollLayout(
            self.policy.observation_space,
            self.policy.action_space,
            config.n_steps,
            config.n_envs_per_actor,
            config.use_masking,
        )
        self._in_a_row = 0
        with continued_monitor_files():
            self.env = config.make_env()
        self.env.seed(seed)
        self._see_masks = make_mask_reader(self.env, self.policy, config.use_masking, index * config.n_envs_per_actor)
        self._statistics = share_statistics(unwrap_vec_normalize(self.env), slots, index)
        self._obs: Any = self.env.reset()

    def work(self, parameters: np.ndarray, arrays: list[np.ndarray], goes_on: Callable[[], bool]) -> News:
        """Make an unroll with the given parameters, see :class:`~sb3_pg_ext.workers.actors.Actor`."""
        np.copyto(self._parameters, parameters)
        unroll, news = self._layout.view(arrays), News()
        unroll.transitions.terminated.fill(False)
        unroll.transitions.truncated.fill(False)
        # Non-finite values are looked for.
        with unvalidated_distributions(), np.errstate(all="ignore"):
            try:
                self._fill(unroll, news, goes_on)
                self._in_a_row = 0
            except NonFiniteError as problem:
                self._in_a_row += 1
                news.problem, news.in_a_row = str(problem), self._in_a_row
                for statistics in self._statistics:
                    statistics.recover()
                self._obs = self.env.reset()
        for statistics in self._statistics:
            statistics.exchange()
        news.final_observations = unroll.transitions.final_observations
        return news

    def _fill(self, unroll: Unroll, news: News, goes_on: Callable[[], bool]) -> None:
        config, policy, transitions = self._config, self.policy, unroll.transitions
        n_envs = config.n_envs_per_actor
        if config.use_sde:
            policy.reset_noise(n_envs)
        act, _ = make_action_sampler(policy, n_envs, config.n_steps)
        for t in range(config.n_steps):
            if config.use_sde and config.sde_sample_freq > 0 and t % config.sde_sample_freq == 0:
                policy.reset_noise(n_envs)
            inputs = PolicyInputs(self._obs, self._see_masks(t))
            actions = act(inputs)
            self._obs, rewards, dones, infos = self.env.step(self._within_bounds(actions))
            transitions.add(inputs, actions, rewards, dones, infos)
            news.n_steps += 1
            for n, info in enumerate(infos):
                if info != USUAL_INFO:
                    news.infos[t, n] = _to_tell(info, bool(dones[n]))
            if not goes_on():
                return
        act.finish()
        check_transitions(transitions, PolicyInputs(self._obs))
        unroll.log_probs[...] = self._log_probs(transitions, act.evaluated)
        check_finite("log-probability", unroll.log_probs)
        for array, last in zip(arrays_of(unroll.last_observations), arrays_of(self._obs), strict=True):
            array[...] = last.reshape(array.shape)

    @th.no_grad()
    def _log_probs(self, transitions: Transitions, evaluated: Evaluated | None) -> np.ndarray:
        if evaluated is not None:
            return evaluated[1]
        inputs = transitions.inputs.map(flatten_steps)
        actions = action_array(flatten_steps(transitions.actions), self.policy.action_space)
        return self._backend.evaluate_policy(inputs, actions).log_probs.reshape(transitions.rewards.shape)

    def close(self) -> None:
        """Close the environments."""
        self.env.close()
        self._scope.close()


def _to_tell(info: Info, done: bool) -> Info:
    """What callbacks see of an info."""
    bad = done and "episode" in info and not np.isfinite(info["episode"]["r"])
    left_out = {"terminal_observation"} | ({"episode"} if bad else set())
    return {key: value for key, value in info.items() if key not in left_out}
