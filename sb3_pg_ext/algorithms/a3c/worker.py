"""A worker: a process with its own environment and its own copy of the network.

It repeats: take the shared parameters; make ``n_steps`` steps; compute the gradient; apply it to the shared parameters.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from sb3_pg_ext.algorithms.a3c.reports import Outbox, Problem, Update
from sb3_pg_ext.algorithms.a3c.shared_state import SharedState
from sb3_pg_ext.algorithms.base.threads import limited_threads
from sb3_pg_ext.arguments import read_schedule
from sb3_pg_ext.estimators import AdvantageEstimator
from sb3_pg_ext.functional import mlp
from sb3_pg_ext.functional.finite import NonFiniteError, check_number
from sb3_pg_ext.functional.tensors.distributions import unvalidated_distributions
from sb3_pg_ext.gradients.choice import make_backend
from sb3_pg_ext.gradients.minibatches import Steps
from sb3_pg_ext.gradients.objectives import Objective
from sb3_pg_ext.guards.counting import PATIENCE
from sb3_pg_ext.policies.evaluation import action_array, predict_values
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.plain_mlp import UnsupportedPolicyError, actor_layers, critic_layers, network_input
from sb3_pg_ext.rollouts.action_masks import make_mask_reader
from sb3_pg_ext.rollouts.action_sampling import (
    ActionSampler,
    MLPActionSampler,
    PolicyActionSampler,
    make_bounds,
)
from sb3_pg_ext.rollouts.assessment import assess, check_transitions
from sb3_pg_ext.rollouts.episodes import steps_of_episodes
from sb3_pg_ext.rollouts.transitions import Transitions
from sb3_pg_ext.workers.flat import flatten
from sb3_pg_ext.workers.monitor_files import continued_monitor_files
from sb3_pg_ext.workers.process import WorkerContext
from sb3_pg_ext.workers.shared_statistics import share_statistics


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker has to know. The names are those of A3C's arguments.

    :param make_env: builds its environment, a VecEnv of one
    :param make_policy: builds a policy; its parameters are replaced at once
    :param trainable: which of them are trained, in their order
    :param estimator: turns rollouts into advantages
    :param lr_schedule: from the remaining progress to a learning rate
    :param first_step: the global number of steps before this training
    :param total_timesteps: the global number of steps to reach
    """

    make_env: Callable[[], VecEnv]
    make_policy: Callable[[], ActorCriticPolicy]
    trainable: list[bool]
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
    discount_state_distribution: bool
    engine: str
    use_masking: bool


@dataclass(frozen=True)
class MLPLayers:
    """The layers of a policy's networks, which follow its parameters."""

    actor: list[mlp.Layer]
    critic: list[mlp.Layer]

    @classmethod
    def of(cls, policy: ActorCriticPolicy) -> "MLPLayers | None":
        """Of a plain MLP its layers; of another policy None."""
        try:
            actor, critic = actor_layers(policy), critic_layers(policy)
        except UnsupportedPolicyError:
            return None
        return cls(actor, critic)


def run_worker(context: WorkerContext) -> None:
    """Work until all steps are made, or the parent wants to stop. The target of A3C's workers.

    :param context: the worker's, with a :class:`WorkerConfig` and A3C's
        :class:`~sb3_pg_ext.algorithms.a3c.shared_state.SharedState`
    """
    with limited_threads(1), unvalidated_distributions(), np.errstate(all="ignore"):  # non-finite values are looked for
        Worker(context).run()


class Worker:
    """What a worker does.

    :param context: what it is given, see :func:`run_worker`
    """

    def __init__(self, context: WorkerContext) -> None:
        set_random_seed(context.seed)
        self.index, self._seed, self._send = context.index, context.seed, context.send
        self.config: WorkerConfig = context.config
        self.shared: SharedState = context.shared
        self._steps, self._updates = self.shared.steps.array, self.shared.updates.array
        self._stopping = context.stopping.array
        self.policy = self.config.make_policy()
        for parameter, trainable in zip(self.policy.parameters(), self.config.trainable, strict=True):
            parameter.requires_grad_(trainable)
        self.flat = flatten(self.policy)
        optimizer = self.shared.optimizer
        self._own_parameters, self._shared_parameters = (
            parameter.detach().numpy() for parameter in (self.flat, optimizer.parameter)
        )
        optimizer.parameter.grad = self.flat.grad  # the gradients stay this process's own
        assert self.flat.grad is not None
        self.engine, _ = make_backend(self.policy, self.config.engine, self.flat.grad.numpy())
        self._mlp = MLPLayers.of(self.policy)
        self.within_bounds = make_bounds(self.policy, 1)
        self.dropped_in_a_row = self.skipped_in_a_row = 0

    def run(self) -> None:
        """Build the environment, work, and report."""
        self.open()
        try:
            while self._goes_on and max(self.dropped_in_a_row, self.skipped_in_a_row) < PATIENCE:
                self.work()
        finally:
            self._report()
            self.env.close()

    def open(self) -> None:
        """Build and reset the environment."""
        self.outbox = Outbox(self._send)
        with continued_monitor_files():
            self.env = self.config.make_env()
        self.env.seed(self._seed)
        self._see_masks = make_mask_reader(self.env, self.policy, self.config.use_masking, self.index)
        self.statistics = share_statistics(unwrap_vec_normalize(self.env), self.shared.slots, self.index)
        self.obs: Any = self.env.reset()
        self._steps_into_episode = 0

    @property
    def _goes_on(self) -> bool:
        return not self._stopping[0] and self._global_step < self.config.total_timesteps

    @property
    def _global_step(self) -> int:
        return self.config.first_step + int(self._steps.sum())

    def work(self) -> None:
        """One rollout and one update."""
        self.take_parameters()
        try:
            transitions = self._collect()
        except NonFiniteError as problem:
            self.dropped_in_a_row += 1
            self._report_problem(problem, self.dropped_in_a_row, dropped=True)
            for statistics in self.statistics:
                statistics.recover()
            self.obs = self.env.reset()
            self._steps_into_episode = 0
            return
        if transitions is None:
            return
        self.dropped_in_a_row = 0
        try:
            self._update(transitions)
        except NonFiniteError as problem:
            self.skipped_in_a_row += 1
            self._report_problem(problem, self.skipped_in_a_row, dropped=False)
        else:
            self.skipped_in_a_row = 0

    def take_parameters(self) -> None:
        """Copy the shared parameters into the policy."""
        self._updates_before = int(self._updates.sum())
        np.copyto(self._own_parameters, self._shared_parameters)

    def _collect(self) -> Transitions | None:
        """Make ``n_steps`` steps; None if the parent stops it.

        :raises NonFiniteError: if there is a non-finite value in the rollout
        """
        config, policy = self.config, self.policy
        transitions = Transitions(policy.observation_space, policy.action_space, 1, config.n_steps)
        if config.use_sde:
            policy.reset_noise(1)
        act = self._make_action_sampler()
        while not transitions.complete:
            if self._stopping[0]:
                return None
            if config.use_sde and config.sde_sample_freq > 0 and transitions.size % config.sde_sample_freq == 0:
                policy.reset_noise(1)
            inputs = PolicyInputs(self.obs, self._see_masks(transitions.size))
            actions = act(inputs)
            new_obs, rewards, dones, infos = self.env.step(self.within_bounds(actions))
            self._steps[self.index] += 1
            transitions.add(inputs, actions, rewards, dones, infos)
            self.outbox.add_step(float(rewards[0]), bool(dones[0]), infos[0])
            self.obs = new_obs
            if self.outbox.is_due:
                self._report()
        if self._mlp is None:
            transitions.evaluated = act.evaluated  # of a plain MLP the engine gives it with what the gradient needs
        check_transitions(transitions, PolicyInputs(self.obs))
        return transitions

    def _make_action_sampler(self) -> ActionSampler:
        """What samples actions with the present parameters."""
        if self._mlp is None:
            return PolicyActionSampler(self.policy)
        return MLPActionSampler(self.policy, self._mlp.actor, 1, self.config.n_steps)

    def _update(self, transitions: Transitions) -> None:
        """Compute the gradient, and apply it to the shared parameters.

        :raises NonFiniteError: if a value, a log-probability, a loss, the gradient or the step is not finite; then
            nothing is applied
        """
        start = time.perf_counter()
        config, inputs = self.config, transitions.inputs.map(_only_env)
        state_weights = self._weigh_states(transitions)
        actions = action_array(_only_env(transitions.actions), self.policy.action_space)
        computed = self.engine.evaluate_actions(inputs, actions)
        if transitions.evaluated is None:
            transitions.evaluated = computed.values[:, None], computed.log_probs[:, None]
        evaluation, estimate = assess(
            self.policy,
            transitions,
            PolicyInputs(self.obs),
            config.estimator,
            config.gamma,
            predict=self._predict_values,
        )
        weighted = estimate.advantages * state_weights
        values, log_probs, advantages, returns = map(
            _only_env, (evaluation.values, evaluation.log_probs, weighted, estimate.returns)
        )
        steps = Steps(inputs, actions, log_probs, values, advantages, returns)
        objective = Objective(config.ent_coef, config.vf_coef, config.normalize_advantage, with_ratio=False)
        losses, derivatives = objective(computed, steps)
        self.engine.zero_gradient()
        self.engine.backward(derivatives)
        norm = self.engine.clip_gradient(config.max_grad_norm)
        lag = self._diagnosed(self._apply_gradient, inputs)
        td_errors = transitions.rewards + np.float32(config.gamma) * evaluation.next_values - evaluation.values
        self.outbox.add_update(
            Update(
                _only_env(transitions.rewards),
                advantages,
                returns,
                values,
                _only_env(td_errors),
                (losses["policy_gradient_loss"], losses["value_loss"], losses["entropy_loss"], norm),
                lag,
                time.perf_counter() - start,
            )
        )

    def _weigh_states(self, transitions: Transitions) -> np.ndarray:
        """γᵗ, [T, 1], with ``discount_state_distribution``; else 1."""
        if not self.config.discount_state_distribution:
            return np.ones((), np.float32)
        t = steps_of_episodes(transitions, np.array([self._steps_into_episode]))
        self._steps_into_episode = 0 if transitions.ends[-1, 0] else int(t[-1, 0]) + 1
        return (self.config.gamma**t).astype(np.float32)

    def _predict_values(self, inputs: PolicyInputs) -> np.ndarray:
        if self._mlp is None:
            return predict_values(self.policy, inputs)
        return mlp.forward(self._mlp.critic, network_input(inputs.observations))[:, 0]

    def _apply_gradient(self) -> int:
        """Make a step of the shared optimiser; how many updates others have made since the parameters were taken."""
        progress_remaining = max(0.0, 1.0 - self._global_step / self.config.total_timesteps)
        learning_rate = read_schedule("learning_rate", self.config.lr_schedule, progress_remaining)
        check_number("learning rate", learning_rate)
        lag = int(self._updates.sum()) - self._updates_before
        self.shared.optimizer.apply(learning_rate)
        self._updates[self.index] += 1
        return lag

    def _diagnosed(self, apply_gradient: Callable[[], int], inputs: PolicyInputs) -> int:
        """Apply the gradient and, once in a report, measure how the parameters and the policy change meanwhile."""
        if self.outbox.report.latest:
            return apply_gradient()
        before, old = self._own_parameters.copy(), self.engine.snapshot(inputs)
        lag = apply_gradient()
        np.copyto(self._own_parameters, self._shared_parameters)
        latest: dict[str, Any] = {
            "train/kl": self.engine.mean_kl(old, inputs),
            "train/step_norm": np.linalg.norm(self._own_parameters - before),
        }
        if hasattr(self.policy, "log_std"):
            latest["train/std"] = self.policy.log_std.detach().exp().mean()
        self.outbox.report.latest = {key: float(number) for key, number in latest.items()}
        return lag

    def _report_problem(self, problem: NonFiniteError, in_a_row: int, *, dropped: bool) -> None:
        self.outbox.add_problem(Problem(f"{problem} of worker {self.index}", in_a_row, dropped))
        self._report()

    def _report(self) -> None:
        for statistics in self.statistics:
            statistics.exchange()
        self.outbox.flush()


def _only_env(array: np.ndarray) -> np.ndarray:
    """Of an array [T, 1, …], the one column."""
    return array[:, 0]
