"""A worker: a process with its own environment and its own copy of the network.

It repeats: take the shared parameters; make ``n_steps`` steps; compute the gradient; apply it to the shared parameters.
"""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import cloudpickle
import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import obs_as_tensor, set_random_seed
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from torch.nn import functional as F

from sb3_pg_ext.a3c.flat import flatten
from sb3_pg_ext.a3c.networks import make_network
from sb3_pg_ext.a3c.reports import Failure, Finished, Outbox, Problem, Ready, Update
from sb3_pg_ext.a3c.shared_state import Counters, SharedState
from sb3_pg_ext.a3c.shared_statistics import share_statistics
from sb3_pg_ext.common.acting import make_bounds
from sb3_pg_ext.common.engine import check_transitions, put_final_values
from sb3_pg_ext.common.lean import unvalidated_distributions
from sb3_pg_ext.common.numerics import PATIENCE, NonFiniteError, check_finite, check_number
from sb3_pg_ext.common.observations import Observations, map_arrays
from sb3_pg_ext.common.policies import action_tensor
from sb3_pg_ext.common.threads import limited_threads
from sb3_pg_ext.common.transitions import Transitions
from sb3_pg_ext.estimators import AdvantageEstimate, AdvantageEstimator, Rollout, estimate_advantages
from sb3_pg_ext.functional.distributions import snapshot
from sb3_pg_ext.functional.divergences import kl
from sb3_pg_ext.functional.surrogates import normalize, policy_gradient_loss

CPU = th.device("cpu")

ORPHAN_SECONDS = 1.0
"""So often a worker looks whether its parent still lives."""


@dataclass(frozen=True)
class Task:
    """What a worker has to know. The names are those of A3C's arguments.

    :param make_env: builds its environment, a VecEnv of one
    :param make_policy: builds a policy; its parameters are replaced at once
    :param estimator: turns rollouts into advantages
    :param lr_schedule: from the remaining progress to a learning rate
    :param first_step: the global number of steps before this training
    :param total_timesteps: the global number of steps to reach
    """

    make_env: Callable[[], VecEnv]
    make_policy: Callable[[], ActorCriticPolicy]
    estimator: AdvantageEstimator
    lr_schedule: Schedule
    first_step: int
    total_timesteps: int
    n_steps: int
    gamma: float
    ent_coef: float
    vf_coef: float
    max_grad_norm: float | None
    use_sde: bool
    sde_sample_freq: int
    normalize_advantage: bool


def run_worker(index: int, seed: int, task: Task | bytes, shared: SharedState, connection: Connection) -> None:
    """Work until all steps are made, or the parent wants to stop. The target of the worker's process.

    :param index: index of the worker
    :param seed: its own seed
    :param task: what it has to know; pickled by cloudpickle where the process does not inherit it
    :param shared: what it shares with the others
    :param connection: to the parent
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes: the parent decides what follows
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with limited_threads(1), unvalidated_distributions():
            worker = Worker(index, seed, cloudpickle.loads(task) if isinstance(task, bytes) else task, shared)
            connection.send(Ready())
            worker.run(Outbox(index, connection.send))
            connection.send(Finished())
    except BrokenPipeError:
        pass  # the parent is gone, or has given up waiting
    except Exception:
        connection.send(Failure(traceback.format_exc()))
    finally:
        connection.close()


def _end_with_parent() -> None:
    """An environment that blocks would keep the process alive for ever.

    A forked worker holds both ends of the sentinel's pipe itself, but becomes another process's child; one of a fork
    server, which lives as long as its children, sees the pipe's end.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    started_by = os.getppid()
    while not wait([parent.sentinel], ORPHAN_SECONDS) and os.getppid() == started_by:
        pass
    os._exit(1)


class Worker:
    """What a worker does.

    :param index: its index
    :param seed: its own seed
    :param task: what it has to know
    :param shared: what it shares with the others
    """

    def __init__(self, index: int, seed: int, task: Task, shared: SharedState) -> None:
        set_random_seed(seed)
        self.index, self.task, self.shared = index, task, shared
        self.counters = Counters(shared)
        self.policy = task.make_policy()
        self.flat = flatten(self.policy)
        shared.optimizer.parameter.grad = self.flat.grad  # the gradients stay this process's own
        self.network = make_network(self.policy)
        self.within_bounds = make_bounds(self.policy, 1)
        self._seed = seed
        self._n_bad = {True: 0, False: 0}

    def run(self, outbox: Outbox) -> None:
        """Build the environment, work, and report."""
        self.open(outbox)
        try:
            while self._goes_on and max(self._n_bad.values()) < PATIENCE:
                self.work()
        finally:
            self._report()
            self.env.close()

    def open(self, outbox: Outbox) -> None:
        """Build and reset the environment."""
        self.outbox = outbox
        self.env = self.task.make_env()
        self.env.seed(self._seed)
        self.statistics = share_statistics(unwrap_vec_normalize(self.env), self.shared.slots, self.index)
        self.obs: Any = self.env.reset()

    @property
    def _goes_on(self) -> bool:
        return not self.counters.stopping[0] and self._global_step < self.task.total_timesteps

    @property
    def _global_step(self) -> int:
        return self.task.first_step + int(self.counters.steps.sum())

    def work(self) -> None:
        """One rollout and one update."""
        self.take_parameters()
        try:
            transitions = self._collect()
        except NonFiniteError as problem:
            self._note_problem(problem, dropped=True)
            self.obs = self.env.reset()
            return
        if transitions is None:
            return
        self._n_bad[True] = 0
        try:
            self._update(transitions)
        except NonFiniteError as problem:
            self._note_problem(problem, dropped=False)
        else:
            self._n_bad[False] = 0

    def take_parameters(self) -> None:
        """Copy the shared parameters into the policy."""
        self._updates_before = int(self.counters.updates.sum())
        self.flat.data.copy_(self.shared.optimizer.parameter.data)

    def _collect(self) -> Transitions | None:
        """Make ``n_steps`` steps; None if the parent stops it.

        :raises NonFiniteError: if there is a bad number in the rollout
        """
        task, policy = self.task, self.policy
        transitions = Transitions(policy.observation_space, policy.action_space, 1, task.n_steps)
        if task.use_sde:
            policy.reset_noise(1)
        act = self.network.make_actor(task.n_steps)
        while not transitions.complete:
            if self.counters.stopping[0]:
                return None
            if task.use_sde and task.sde_sample_freq > 0 and transitions.size % task.sde_sample_freq == 0:
                policy.reset_noise(1)
            actions = act(self.obs)
            new_obs, rewards, dones, infos = self.env.step(self.within_bounds(actions))
            self.counters.steps[self.index] += 1
            transitions.add(self.obs, actions, rewards, dones, infos)
            self.outbox.add_step(float(rewards[0]), bool(dones[0]), infos[0])
            self.obs = new_obs
            if self.outbox.is_due:
                self._report()
        check_transitions(transitions, self.obs)
        return transitions

    def _update(self, transitions: Transitions) -> None:
        """Compute the gradient, and apply it to the shared parameters.

        :raises NonFiniteError: if a value, a log-probability, a loss or the gradient is not finite; then nothing is
            applied
        """
        start = time.perf_counter()
        observations = map_arrays(_only_env, transitions.observations)
        actions = action_tensor(_only_env(transitions.actions), self.policy.action_space, CPU)
        values, log_probs, entropies = self.network.evaluate(observations, actions)
        estimate, old_values = self._estimate(transitions, values, log_probs)
        advantages, returns = (th.from_numpy(_only_env(a)) for a in (estimate.advantages, estimate.returns))
        if self.task.normalize_advantage:
            advantages = normalize(advantages)
        policy_loss = policy_gradient_loss(log_probs, advantages, len(log_probs))
        value_loss = F.mse_loss(values, returns)
        # A squashed Gaussian's entropy has no closed form: like SB3, take the sample's.
        entropy_loss = log_probs.mean() if entropies is None else -entropies.mean()
        assert self.flat.grad is not None
        self.flat.grad.zero_()
        self.network.backward(policy_loss + self.task.vf_coef * value_loss + self.task.ent_coef * entropy_loss)
        norm = self._clip_gradient(self.flat.grad)
        lag = self._diagnosed(self._apply_gradient, observations)
        losses = th.stack([policy_loss.detach(), value_loss.detach(), entropy_loss.detach(), norm])
        seconds = time.perf_counter() - start
        self.outbox.add_update(
            Update(
                _only_env(transitions.rewards),
                _only_env(estimate.advantages),
                _only_env(estimate.returns),
                _only_env(old_values),
                losses,
                lag,
                seconds,
            )
        )

    def _estimate(
        self, transitions: Transitions, values: th.Tensor, log_probs: th.Tensor
    ) -> tuple[AdvantageEstimate, np.ndarray]:
        """The estimate, and V(s_t), [T, 1]."""
        values_now, log_probs_now = (tensor.detach().numpy()[:, None] for tensor in (values, log_probs))
        next_values = np.empty_like(values_now)
        next_values[:-1] = values_now[1:]
        next_values[-1] = self.network.predict_values(self.obs)
        next_values[transitions.terminated] = 0.0
        put_final_values(self.policy, transitions, next_values)
        for name, array in [("value", values_now), ("next value", next_values), ("log-probability", log_probs_now)]:
            check_finite(name, array)
        rollout = Rollout(
            rewards=transitions.rewards,
            values=values_now,
            next_values=next_values,
            terminated=transitions.terminated,
            truncated=transitions.truncated,
            gamma=self.task.gamma,
            behaviour_log_probs=log_probs_now,
            target_log_probs=log_probs_now,
        )
        return estimate_advantages(self.task.estimator, rollout), values_now

    def _clip_gradient(self, gradient: th.Tensor) -> th.Tensor:
        norm = th.linalg.vector_norm(gradient)
        number = check_number("norm of the gradient", norm)
        limit = self.task.max_grad_norm
        if limit is not None and number > limit:
            gradient.mul_(limit / (number + 1e-6))
        return norm

    def _apply_gradient(self) -> int:
        """Make a step of the shared optimiser; how many updates others have made since the parameters were taken."""
        progress_remaining = max(0.0, 1.0 - self._global_step / self.task.total_timesteps)
        learning_rate = check_number("learning rate", self.task.lr_schedule(progress_remaining))
        lag = int(self.counters.updates.sum()) - self._updates_before
        self.shared.optimizer.apply(learning_rate)
        self.counters.updates[self.index] += 1
        return lag

    def _diagnosed(self, apply_gradient: Callable[[], int], observations: Observations) -> int:
        """Apply the gradient and, once in a report, measure how the parameters and the policy change meanwhile."""
        if self.outbox.report.latest:
            return apply_gradient()
        before = self.flat.detach().clone()
        with th.no_grad():
            obs = obs_as_tensor(observations, CPU)
            old = snapshot(self.policy.get_distribution(obs).distribution)
            lag = apply_gradient()
            self.flat.data.copy_(self.shared.optimizer.parameter.data)
            divergence = kl(old, self.policy.get_distribution(obs).distribution).mean()
        latest = {"train/kl": divergence, "train/step_norm": th.linalg.vector_norm(self.flat.detach() - before)}
        if hasattr(self.policy, "log_std"):
            latest["train/std"] = self.policy.log_std.detach().exp().mean()
        self.outbox.report.latest = {key: float(number) for key, number in latest.items()}
        return lag

    def _note_problem(self, problem: NonFiniteError, *, dropped: bool) -> None:
        self._n_bad[dropped] += 1
        self.outbox.add_problem(Problem(f"{problem} of worker {self.index}", self._n_bad[dropped], dropped))
        self._report()

    def _report(self) -> None:
        for statistics in self.statistics:
            statistics.exchange()
        self.outbox.flush()


def _only_env(array: np.ndarray) -> np.ndarray:
    """Of an array [T, 1, …], the one column."""
    return array[:, 0]
