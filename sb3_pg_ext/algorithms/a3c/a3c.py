"""Asynchronous advantage actor-critic."""

import multiprocessing
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from sb3_pg_ext.algorithms.a3c.reports import Inbox, Problem, Report, Step
from sb3_pg_ext.algorithms.a3c.shared_optimizers import SharedAdam, SharedOptimizer, SharedRMSprop
from sb3_pg_ext.algorithms.a3c.shared_state import SharedState
from sb3_pg_ext.algorithms.a3c.worker import WorkerConfig, run_worker
from sb3_pg_ext.algorithms.base.actor_critic import ActorCriticBase
from sb3_pg_ext.algorithms.base.constructor import arguments_of
from sb3_pg_ext.arguments import check_choice, check_count, check_positive
from sb3_pg_ext.envs.fast_dummy import EnvFactory, FastDummyVecEnv
from sb3_pg_ext.envs.taking_apart import make_environments, split
from sb3_pg_ext.estimators import AdvantageEstimator
from sb3_pg_ext.functional.finite import NonFiniteError
from sb3_pg_ext.guards.normalization import named_statistics
from sb3_pg_ext.log import TABLE, record_count
from sb3_pg_ext.policies.building import policy_factory
from sb3_pg_ext.rollouts.action_masks import uses_masks
from sb3_pg_ext.workers.flat import flatten, frozen_elements, lay_out
from sb3_pg_ext.workers.pool import WorkerPool, pack
from sb3_pg_ext.workers.shared_statistics import allocate_slots, take_in

START_METHODS = ("forkserver", "spawn", "fork")


SelfA3C = TypeVar("SelfA3C", bound="A3C")


class A3C(ActorCriticBase):
    """Asynchronous advantage actor-critic (Mnih et al., 2016, https://arxiv.org/abs/1602.01783).

    Every worker is a process with its own environment and its own copy of the network. It takes the shared parameters,
    makes ``n_steps`` steps, computes the gradient of

        −mean(log π(a_t|s_t)·A_t) + vf_coef·mean((V(s_t) − R_t)²) + ent_coef·mean(−H(π(·|s_t)))

    with A and R from the advantage estimator, and applies it to the shared parameters without any lock. Callbacks,
    logger and evaluation run in the parent, whose ``policy`` is a snapshot of the shared parameters, taken whenever
    workers report, and fixed while callbacks run.

    With one worker training is deterministic; with several, it depends on who comes first.

    Callbacks are called for every ``n_workers`` steps, a little after these were made, and training goes on meanwhile:
    so callbacks that stop it do so within a second. In their ``locals``, ``workers``, ``rewards``, ``dones`` and
    ``infos`` are those of ``n_workers`` steps in the order in which they were reported; observations stay with the
    workers.

    Deviations from the paper, which are SB3's A2C: means over steps instead of sums, so that ε of RMSProp and
    ``max_grad_norm`` mean the same for every ``n_steps``; a rollout goes on across the ends of episodes; where an
    episode is truncated, V of its last observation stands for the rest.

    :param env: the environment: its id, a function that makes it, a list of such functions, an environment, or a VecEnv
        with one environment for every worker
    :param learning_rate: learning rate η; a number, or a function of the remaining progress (1 to 0) of all workers
        together
    :param n_steps: number of steps for one update of one worker
    :param gae_lambda: λ of estimators that have one; 1 gives the paper's n-step returns
    :param max_grad_norm: a worker's gradient is scaled down to this norm; ``None`` for no clipping
    :param rms_prop_eps: ε of RMSProp, inside the root:
        see :class:`~sb3_pg_ext.algorithms.a3c.shared_optimizers.SharedRMSprop`
    :param use_rms_prop: whether to use the shared RMSProp, with α = 0.99; otherwise the shared Adam, with ε = 1e-5
    :param normalize_advantage: whether to scale the advantages of an update to mean 0 and standard deviation 1. Those
        of a few steps of one episode lose with their mean much of what they say
    :param n_workers: number of workers; ``None`` for the number of environments, or 2 where ``env`` is an id or a
        function
    :param start_method: how processes are started: ``"forkserver"`` (``"spawn"`` where that does not exist),
        ``"spawn"`` or ``"fork"``
    :param worker_timeout: a worker that makes neither a step nor an update for so many seconds has failed
    :param on_worker_failure: ``"raise"`` an error, or ``"restart"``: replace the worker and go on
    :param max_restarts: how many workers are replaced in one training before a failure is an error
    :param seed: seed of all random generators; every worker's own is made from it
    :param device: ``"cpu"``, which is also what ``"auto"`` means
    :raises ValueError: for arguments that contradict each other or lie outside of what is allowed
    :raises WorkerError: while training, if a worker fails
    """

    vec_env_class: ClassVar[type[VecEnv]] = FastDummyVecEnv
    """The VecEnv that RL Zoo is to make: one that workers can build again."""
    steps_in_workers: ClassVar[bool] = True
    """Checkpoints know by it that where environments stand is out of reach."""

    vec_env_types: ClassVar[tuple[str, ...]] = ("gymnasium", "envpool")
    """The simulators that RL Zoo may make instead: each worker builds one of the same kind for itself."""

    max_grad_norm: float | None  # type: ignore[assignment]

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str | EnvFactory | list[EnvFactory] | None,
        learning_rate: float | Schedule = 7e-4,
        n_steps: int = 5,
        gamma: float = 0.99,
        gae_lambda: float = 1.0,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float | None = 0.5,
        rms_prop_eps: float = 1e-5,
        use_rms_prop: bool = True,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        normalize_advantage: bool = False,
        advantage_estimator: str | AdvantageEstimator = "gae",
        advantage_estimator_kwargs: dict[str, Any] | None = None,
        discount_state_distribution: bool = False,
        n_workers: int | None = None,
        start_method: str = "forkserver",
        worker_timeout: float = 300.0,
        on_worker_failure: str = "raise",
        max_restarts: int = 3,
        engine: str = "auto",
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        if n_workers is not None:
            check_count("n_workers", n_workers)
        env, device = make_environments(env, n_workers), _cpu(device)
        super().__init__(**arguments_of(OnPolicyAlgorithm, locals()))
        self.rms_prop_eps = rms_prop_eps
        self.use_rms_prop = use_rms_prop
        self.normalize_advantage = normalize_advantage
        self.advantage_estimator = advantage_estimator
        self.advantage_estimator_kwargs = advantage_estimator_kwargs
        self.discount_state_distribution = discount_state_distribution
        self.start_method = start_method
        self.worker_timeout = worker_timeout
        self.on_worker_failure = on_worker_failure
        self.max_restarts = max_restarts
        self._pool: WorkerPool | None = None
        self.engine = engine
        if _init_setup_model:
            self._setup_model()

    @property
    def n_workers(self) -> int:
        """The number of workers: one for every environment."""
        return self.n_envs

    def _check_arguments(self) -> None:
        super()._check_arguments()
        if vars(self).pop("n_workers", self.n_envs) not in (None, self.n_envs):  # load() sets what it is given
            raise ValueError(f"n_workers with {self.n_envs} environments; allowed: {self.n_envs}, or another env")
        check_count("n_steps", self.n_steps)
        check_positive("rms_prop_eps", self.rms_prop_eps)
        check_choice("start_method", self.start_method, START_METHODS)
        check_positive("worker_timeout", self.worker_timeout)
        check_choice("on_worker_failure", self.on_worker_failure, ("raise", "restart"))
        check_count("max_restarts", self.max_restarts, 0)
        self._check_normalization(self.n_steps, "n_steps")
        for name in ("optimizer_class", "optimizer_kwargs"):
            if name in self.policy_kwargs:
                raise ValueError(
                    f"policy_kwargs has {name}={self.policy_kwargs[name]!r}; allowed: neither it nor another "
                    "optimiser, since workers share its state. Use use_rms_prop and rms_prop_eps"
                )

    def _setup_model(self) -> None:
        super()._setup_model()
        flat = flatten(self.policy)
        if self.use_rms_prop:
            self.policy.optimizer = SharedRMSprop(flat, eps=self.rms_prop_eps)
        else:
            self.policy.optimizer = SharedAdam(flat)
        if self.env is not None:
            for config in self._make_configs(self.env):
                pack(config, self._start_method)  # so that what cannot be sent to workers is an error now

    def _make_rollout_buffer(self) -> None:
        """None: rollouts stay with the workers."""
        self.rollout_buffer = None  # type: ignore[assignment]

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_pool", "_inbox", "_statistics_before"]

    def learn(
        self: SelfA3C,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 100,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
        use_masking: bool | None = None,
    ) -> SelfA3C:
        """Train, see :meth:`sb3_pg_ext.algorithms.base.on_policy.OnPolicyBase.learn`.

        :param log_interval: log every so many times ``n_steps · n_workers`` steps; ``None`` for never
        """
        return super().learn(
            total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar, use_masking
        )

    def _end_training(self) -> None:
        self._stop_workers()

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
        use_masking: bool | None = None,
    ) -> bool:
        """Take in ``n_rollout_steps`` steps a worker, whose updates are made already. SB3's signature.

        :param env: the training environments
        :param callback: called for every ``n_workers`` steps
        :param rollout_buffer: unused
        :param n_rollout_steps: how many times to call it, or more where the training ends
        :param use_masking: whether workers that start now use action masks; ``None`` for what ``learn()`` was told
        :return: whether training goes on; False if the callback stopped it
        :raises WorkerError: if a worker fails and is not replaced
        """
        if self._pool is None:
            self._start_workers(env, self._use_masking if use_masking is None else use_masking)
        callback.on_rollout_start()
        n_workers, n_calls = self.n_workers, 0
        while n_calls < n_rollout_steps or self.num_timesteps >= self._total_timesteps:
            steps = self._next_steps(n_workers)
            self.num_timesteps += len(steps)
            workers, reward, done, infos = map(list, zip(*steps, strict=True)) if steps else ([], [], [], [])
            if True in done:  # no episode ended, no news of one
                self._update_info_buffer(infos, np.array(done))
            if len(steps) < n_workers:  # all workers have finished
                self._stop_workers()
                break
            rewards, dones = np.array(reward, np.float32), np.array(done)
            callback.update_locals(locals())
            if not callback.on_step():
                self._stop_workers()
                return False
            n_calls += 1
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def train(self) -> None:
        """Do nothing: the workers have trained."""

    def dump_logs(self, iteration: int = 0) -> None:
        """Write the log.

        :param iteration: number of iterations, SB3's: of ``n_steps`` calls of the callbacks
        """
        progress_remaining = max(0.0, 1.0 - self.num_timesteps / max(1, self._total_timesteps))
        self.logger.record("train/learning_rate", self.lr_schedule(progress_remaining))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        record_count(self.logger, "train/n_skipped", self.n_skipped_updates)
        record_count(self.logger, "rollout/n_dropped", self.n_dropped_rollouts)
        record_count(self.logger, "workers/restarts", self._n_restarts)
        for key, number in self._inbox.pop_statistics().items():
            if np.isfinite(number):
                self.logger.record(key, number, exclude=TABLE if key.startswith("workers/fps_") else ())
        super().dump_logs(iteration)

    def _start_workers(self, env: VecEnv, use_masking: bool | None) -> None:
        """Start the workers."""
        use_masking = uses_masks(env, self.policy, use_masking)
        lay_out(self.policy, self._optimizer.parameter)  # a copied or moved policy has its parameters elsewhere
        self._optimizer.hold(frozen_elements(self.policy))
        self._make_backend()  # says how they differentiate
        self._inbox = Inbox(self.n_workers)
        self._n_restarts = 0
        self._first_step, self._first_update = self.num_timesteps, self._n_updates
        self._dropped_in_a_row = self._skipped_in_a_row = 0
        normalizer = unwrap_vec_normalize(env)
        slots = allocate_slots(normalizer, self.n_workers)
        self._statistics_before = {name: rms.copy() for name, rms in named_statistics(normalizer).items()}
        shared = SharedState.of(self._optimizer, self.n_workers, slots)
        steps, updates, n_reported = shared.steps.array, shared.updates.array, self._inbox.n_reported

        def make_again(index: int) -> None:
            """Steps that a worker did not live to report are made again by the one that replaces it."""
            steps[index] = n_reported[index]

        self._pool = WorkerPool(
            run_worker,
            self._make_configs(env, use_masking),
            shared,
            progress=lambda index: (steps[index], updates[index]),
            on_restart=make_again,
            name="A3C worker",
            no_progress="neither a step nor an update",
            # NumPy's generator, since SB3 leaves it unseeded where no seed is given.
            entropy=int(np.random.randint(2**31)),
            start_method=self._start_method,
            worker_timeout=self.worker_timeout,
            max_restarts=self.max_restarts if self.on_worker_failure == "restart" else 0,
        )
        self._pool.start()

    @property
    def _optimizer(self) -> SharedOptimizer:
        assert isinstance(self.policy.optimizer, SharedOptimizer)
        return self.policy.optimizer

    @property
    def _start_method(self) -> str:
        available = multiprocessing.get_all_start_methods()
        return "spawn" if self.start_method == "forkserver" and "forkserver" not in available else self.start_method

    def _make_configs(self, env: VecEnv, use_masking: bool = False) -> list[WorkerConfig]:
        """What every worker has to know.

        :param env: the environments
        :param use_masking: whether they are asked which actions they allow
        :raises ValueError: if the environments cannot be taken apart
        """
        make_policy = policy_factory(self)
        return [
            WorkerConfig(
                make_env=make_env,
                make_policy=make_policy,
                trainable=[parameter.requires_grad for parameter in self.policy.parameters()],
                estimator=self._estimator,
                lr_schedule=self.lr_schedule,
                first_step=self.num_timesteps,
                total_timesteps=self._total_timesteps,
                n_steps=self.n_steps,
                gamma=self.gamma,
                ent_coef=self.ent_coef,
                vf_coef=self.vf_coef,
                max_grad_norm=self.max_grad_norm,
                use_sde=self.use_sde,
                sde_sample_freq=self.sde_sample_freq,
                normalize_advantage=self.normalize_advantage,
                discount_state_distribution=self.discount_state_distribution,
                engine=self.engine,
                use_masking=use_masking,
            )
            for make_env in split(env)
        ]

    def _next_steps(self, n: int) -> list[Step]:
        """The next ``n`` steps; fewer when all workers have finished."""
        assert self._pool is not None
        inbox = self._inbox.steps
        while len(inbox) < n and not self._pool.finished:
            self._take_in(self._pool.receive())
        return [inbox.popleft() for _ in range(min(n, len(inbox)))]

    def _take_in(self, reports: list[tuple[int, Report]]) -> None:
        """Take reports and the parameters of this moment.

        :raises ValueError: if non-finite values have spoilt three rollouts or updates of a worker in a row
        """
        self._take_snapshot()
        for worker, report in reports:
            self._inbox.take(worker, report)
            for problem in report.problems:
                self._count_problem(problem)

    def _take_snapshot(self) -> None:
        """Copy parameters, the optimiser's state and running statistics from shared memory."""
        assert self._pool is not None
        shared: SharedState = self._pool.shared
        self._n_restarts = self._pool.n_restarts
        self._n_updates = self._first_update + int(shared.updates.array.sum())
        self._optimizer.parameter.data.copy_(shared.optimizer.parameter.data)
        self._optimizer.take_state(shared.optimizer)
        take_in(self._vec_normalize_env, self._statistics_before, shared.slots)

    def _count_problem(self, problem: Problem) -> None:
        error = NonFiniteError(problem.message)
        if problem.dropped:
            self._dropped_in_a_row = problem.in_a_row - 1
            self._drop_rollout(error)
        else:
            self._skipped_in_a_row = problem.in_a_row - 1
            self._skip_update(error)

    def _stop_workers(self) -> None:
        """End the workers, and keep what they have reached."""
        pool = self._pool
        if pool is None:
            return
        try:
            pool.stop()
        finally:
            self._take_snapshot()
            self.num_timesteps = self._first_step + int(pool.shared.steps.array.sum())
            self._pool = None


def _cpu(device: th.device | str) -> str:
    if device != "auto" and th.device(device).type != "cpu":
        raise ValueError(
            f"device={str(device)!r}; allowed: 'cpu' or 'auto', since processes share the parameters in main memory"
        )
    return "cpu"
