"""Importance weighted actor-learner architecture."""

import multiprocessing
import re
import time
from collections import deque
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import repeat
from typing import Any, ClassVar, TypeVar

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import TensorBoardOutputFormat
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import explained_variance
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from torch.nn.utils import parameters_to_vector

from sb3_pg_ext.algorithms.base.actor_critic import ActorCriticBase
from sb3_pg_ext.algorithms.base.constructor import arguments_of
from sb3_pg_ext.algorithms.impala.actor import ActorConfig
from sb3_pg_ext.algorithms.impala.batches import Batch, Learned
from sb3_pg_ext.algorithms.impala.statistics import Statistics
from sb3_pg_ext.algorithms.impala.unrolls import USUAL_INFO, Info, News, Unroll, UnrollLayout
from sb3_pg_ext.arguments import check_choice, check_count, check_flag, check_positive, check_range
from sb3_pg_ext.envs.fast_dummy import EnvFactory, FastDummyVecEnv
from sb3_pg_ext.envs.taking_apart import DEFAULT_WORKERS, make_environments, split
from sb3_pg_ext.estimators import AdvantageEstimator
from sb3_pg_ext.functional.finite import NonFiniteError, check_number
from sb3_pg_ext.functional.importance import effective_sample_size
from sb3_pg_ext.functional.surrogates import normalize
from sb3_pg_ext.gradients.minibatches import Steps, flatten
from sb3_pg_ext.gradients.objectives import Objective
from sb3_pg_ext.gradients.policy_backend import PolicyBackend
from sb3_pg_ext.guards.normalization import named_statistics
from sb3_pg_ext.log import TABLE, record_count
from sb3_pg_ext.plugins import EstimatorSpec, registry
from sb3_pg_ext.policies.building import policy_factory
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.rollouts.action_masks import uses_masks
from sb3_pg_ext.rollouts.assessment import assess
from sb3_pg_ext.workers.actors import Actors, Delivery
from sb3_pg_ext.workers.flat import flatten as flatten_parameters
from sb3_pg_ext.workers.on_processes import ProcessActors
from sb3_pg_ext.workers.pool import POLL_SECONDS, pack
from sb3_pg_ext.workers.shared_statistics import allocate_slots, take_in

START_METHODS = ("forkserver", "spawn", "fork")

ADDRESS = re.compile(r"auto|local|[^/]+:\d+")
"""Of a Ray cluster."""

Step = tuple[int, float, bool, Info]
"""A step as callbacks see it: index of the actor, reward, whether the episode ended, and SB3's info."""

SelfIMPALA = TypeVar("SelfIMPALA", bound="IMPALA")


class IMPALA(ActorCriticBase):
    """Importance weighted actor-learner architecture (Espeholt et al., 2018, https://arxiv.org/abs/1802.01561).

    Actors, each a process with its own environments and its own copy of the network, make unrolls of ``n_steps`` steps
    with the parameters that are the latest when they begin. The learner, in the process that calls ``learn()``, takes
    ``batch_size`` unrolls at a time and descends

        −mean(ρ_t·log π(a_t|s_t)·A_t) + vf_coef·mean((V(s_t) − v_t)²) + ent_coef·mean(−H(π(·|s_t)))

    with A and v from the advantage estimator, V-trace by default, which corrects for the age of the parameters that
    acted, and ρ_t = min(ρ̄, π(a_t|s_t) / μ(a_t|s_t)), a constant to the gradient, where μ is the policy that acted and
    ρ̄ is V-trace's. With ``surrogate="clipped"`` the first term is PPO's, −mean(min(r·A, clip(r, 1 − ε, 1 + ε)·A)) with
    r = π(a_t|s_t) / μ(a_t|s_t), as in APPO, here without a target network.

    An unroll's lag is the number of updates between the parameters that made it and those that learn from it. An actor
    is asked for two unrolls at a time, a single actor for one, so that its lag is known: 1 with ``batch_size=1``. With
    ``max_lag=0`` actors wait for the update, as those of a synchronous A2C.

    With one actor training is deterministic; with several, it depends on who comes first, but for ``max_lag=0`` with
    ``batch_size`` a multiple of the number of actors, which asks for all unrolls of a batch at once.

    Callbacks are called for every ``n_envs`` steps, when the learner takes the unrolls with them. In their ``locals``,
    ``workers``, ``rewards``, ``dones`` and ``infos`` are those of ``n_envs`` steps in that order; observations stay
    with the unrolls.

    Deviations from the paper: means over steps instead of sums, as in SB3's A2C, so that ε of RMSProp and
    ``max_grad_norm`` mean the same for every batch; where an episode is truncated, V of its last observation stands for
    the rest.

    :param env: the environment: its id, a function that makes it, a list of such functions, an environment, or a VecEnv
        with ``n_envs_per_actor`` environments for every actor
    :param learning_rate: learning rate η; a number, or a function of the remaining progress (1 to 0)
    :param n_steps: length of an unroll
    :param batch_size: number of new unrolls for one update
    :param n_epochs: number of gradient steps with every batch, each with values, ratios and advantages computed anew
    :param gae_lambda: λ of estimators that have one; V-trace has its own, ``lambda_``
    :param max_grad_norm: the gradient is scaled down to this norm; ``None`` for no clipping
    :param surrogate: ``"policy_gradient"`` or ``"clipped"``
    :param clip_range: ε of the clipped surrogate; a number, or a function of the remaining progress
    :param max_lag: an unroll with a greater lag is dropped and counted, and of so many batches at most, beside the
        present one, unrolls are requested in advance; ``None`` for no limit
    :param replay_size: so many recent unrolls are kept for replay; 0 for none
    :param replay_ratio: so many replayed unrolls come with every new one, drawn without replacement
    :param rms_prop_eps: ε of RMSProp, outside of the root
    :param use_rms_prop: whether to use RMSProp, with α = 0.99; otherwise the policy's optimiser, Adam with ε = 1e-5
    :param normalize_advantage: whether to scale the advantages of a batch to mean 0 and standard deviation 1
    :param advantage_estimator: the name of a registered estimator, or an instance; one that does not require
        log-probabilities of the policy to evaluate corrects nothing, and then ρ_t = 1
    :param advantage_estimator_kwargs: the estimator's own parameters, such as V-trace's ``rho_bar`` and ``c_bar``
    :param n_actors: number of actors; ``None`` for as many as there are environments for, or 2 where ``env`` is an id
        or a function
    :param n_envs_per_actor: number of environments of every actor
    :param backend: ``"processes"`` of this machine, or ``"ray"``: actors of a Ray cluster
    :param ray_address: of the Ray cluster: ``None`` for the one that this process is connected to, or that
        ``RAY_ADDRESS`` tells, or else a new one on this machine; ``"auto"``, or HOST:PORT
    :param ray_actor_options: what Ray is to give to every actor, such as ``{"num_cpus": 1, "resources": {"sim": 1}}``,
        and where: ``"scheduling_strategy"``; by default one CPU
    :param start_method: how processes are started: ``"forkserver"`` (``"spawn"`` where that does not exist),
        ``"spawn"`` or ``"fork"``
    :param worker_timeout: an actor that goes without a step for so many seconds, while an unroll is expected of it, has
        failed
    :param on_worker_failure: ``"raise"`` an error, or ``"restart"``: replace the actor and go on
    :param max_restarts: how many actors are replaced in one training before a failure is an error
    :param seed: seed of all random generators; every actor's own is made from it
    :param device: where the learner computes; actors use the CPU
    :raises ValueError: for arguments that contradict each other or lie outside of what is allowed
    :raises WorkerError: while training, if an actor fails and is not replaced
    """

    vec_env_class: ClassVar[type[VecEnv]] = FastDummyVecEnv
    """The VecEnv that RL Zoo is to make: one that actors can build again."""
    steps_in_workers: ClassVar[bool] = True
    """Checkpoints know by it that where environments stand is out of reach."""
    vec_env_types: ClassVar[tuple[str, ...]] = ("gymnasium", "envpool")
    """The simulators that RL Zoo may make instead: each actor builds one of the same kind for itself."""
    transient: ClassVar[tuple[str, ...]] = (
        *ActorCriticBase.transient,
        *("_actors", "_backend", "_fresh", "_latest", "_layout", "_looked", "_n_restarts", "_queue", "_replay"),
        *("_rng", "_statistics", "_statistics_before", "_told", "_version"),
    )

    max_grad_norm: float | None  # type: ignore[assignment]
    _actors: Actors | None = None
    _latest: Learned | None = None
    _n_restarts = 0

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str | EnvFactory | list[EnvFactory] | None,
        learning_rate: float | Schedule = 7e-4,
        n_steps: int = 20,
        batch_size: int = 4,
        n_epochs: int = 1,
        gamma: float = 0.99,
        gae_lambda: float = 1.0,
        surrogate: str = "policy_gradient",
        clip_range: float | Schedule = 0.2,
        max_lag: int | None = None,
        replay_size: int = 0,
        replay_ratio: int = 1,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float | None = 0.5,
        rms_prop_eps: float = 1e-5,
        use_rms_prop: bool = True,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        normalize_advantage: bool = False,
        advantage_estimator: str | AdvantageEstimator = "vtrace",
        advantage_estimator_kwargs: Mapping[str, Any] | None = None,
        n_actors: int | None = None,
        n_envs_per_actor: int = 1,
        backend: str = "processes",
        ray_address: str | None = None,
        ray_actor_options: Mapping[str, Any] | None = None,
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
        env = _make_environments(env, n_actors, n_envs_per_actor)
        super().__init__(**arguments_of(OnPolicyAlgorithm, locals()))
        self.batch_size = batch_size
        self.n_epochs = n_epochs
        self.surrogate = surrogate
        self.clip_range = clip_range
        self.max_lag = max_lag
        self.replay_size = replay_size
        self.replay_ratio = replay_ratio
        self.rms_prop_eps = rms_prop_eps
        self.use_rms_prop = use_rms_prop
        self.normalize_advantage = normalize_advantage
        self.advantage_estimator = advantage_estimator
        self.advantage_estimator_kwargs = advantage_estimator_kwargs
        self.n_envs_per_actor = n_envs_per_actor
        self.backend = backend
        self.ray_address = ray_address
        self.ray_actor_options = ray_actor_options
        self.start_method = start_method
        self.worker_timeout = worker_timeout
        self.on_worker_failure = on_worker_failure
        self.max_restarts = max_restarts
        self.engine = engine
        if _init_setup_model:
            self._setup_model()

    @property
    def n_actors(self) -> int:
        """The number of actors."""
        return self.n_envs // self.n_envs_per_actor

    def _check_arguments(self) -> None:
        super()._check_arguments()
        for name in ("n_steps", "batch_size", "n_epochs", "n_envs_per_actor", "replay_ratio"):
            check_count(name, getattr(self, name))
        if self.n_envs % self.n_envs_per_actor:
            raise ValueError(
                f"n_envs_per_actor={self.n_envs_per_actor} with {self.n_envs} environments; allowed: a divisor of "
                f"{self.n_envs}, or another env"
            )
        n_actors = vars(self).pop("n_actors", None)  # load() sets what it is given
        if n_actors not in (None, self.n_actors):
            raise ValueError(
                f"n_actors={n_actors!r} with {self.n_envs} environments and "
                f"n_envs_per_actor={self.n_envs_per_actor}; allowed: {self.n_actors}, or another env"
            )
        check_choice("surrogate", self.surrogate, ("policy_gradient", "clipped"))
        if callable(self.clip_range):
            check_range("clip_range", self.clip_range(1.0), 0)  # 0: loaded by RL Zoo to act
        else:
            check_positive("clip_range", self.clip_range)
        if self.max_lag is not None:
            check_count("max_lag", self.max_lag, 0, "None, or an integer ≥ 0")
        check_count("replay_size", self.replay_size, 0)
        if 0 < self.replay_size < self.batch_size * self.replay_ratio:
            raise ValueError(
                f"replay_size={self.replay_size} with batch_size={self.batch_size} and "
                f"replay_ratio={self.replay_ratio}; allowed: 0, or at least their product, since unrolls are drawn "
                "without replacement"
            )
        check_positive("rms_prop_eps", self.rms_prop_eps)
        for name in ("use_rms_prop", "normalize_advantage"):
            check_flag(name, getattr(self, name))
        check_choice("backend", self.backend, ("processes", "ray"))
        self._check_ray()
        check_choice("start_method", self.start_method, START_METHODS)
        check_positive("worker_timeout", self.worker_timeout)
        check_choice("on_worker_failure", self.on_worker_failure, ("raise", "restart"))
        check_count("max_restarts", self.max_restarts, 0)
        n_samples = self.n_steps * self.n_envs_per_actor * self.batch_size
        self._check_normalization(n_samples, "n_steps", "n_envs_per_actor", "batch_size")
        if self.use_rms_prop and {"optimizer_class", "optimizer_kwargs"} & self.policy_kwargs.keys():
            raise ValueError(
                "use_rms_prop=True, and policy_kwargs has an optimiser of its own; allowed: one of both, such as "
                "use_rms_prop=False"
            )

    def _check_ray(self) -> None:
        if self.backend == "ray":
            if find_spec("ray") is None:
                raise ValueError("backend='ray' without Ray; allowed: 'processes', or pip install 'sb3_pg_ext[ray]'")
            if self.ray_address is not None and not ADDRESS.fullmatch(str(self.ray_address)):
                raise ValueError(
                    f"ray_address={self.ray_address!r}; allowed: None, 'auto' on a machine of the cluster, or "
                    "HOST:PORT; a learner that is a client of Ray would send every unroll twice"
                )
            return
        for name in ("ray_address", "ray_actor_options"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name}={getattr(self, name)!r} with backend='processes'; allowed: backend='ray'")

    def _setup_model(self) -> None:
        super()._setup_model()
        flatten_parameters(policy_factory(self)())  # refuses what actors cannot be given
        if self.use_rms_prop:
            self.policy.optimizer = th.optim.RMSprop(
                self.policy.parameters(), lr=self.lr_schedule(1.0), alpha=0.99, eps=self.rms_prop_eps
            )
        if self.env is not None:
            for config in self._make_configs(self.env, use_masking=False):
                pack(config, self._start_method)  # so that what cannot be sent to actors is an error now

    def _make_rollout_buffer(self) -> None:
        """None: unrolls of several actors are learned from together, once."""
        self.rollout_buffer = None  # type: ignore[assignment]

    @property
    def _start_method(self) -> str:
        available = multiprocessing.get_all_start_methods()
        if self.backend == "ray":
            return "spawn"
        return "spawn" if self.start_method == "forkserver" and "forkserver" not in available else self.start_method

    @property
    def _corrects(self) -> bool:
        """Whether the estimator corrects for the policy that acted."""
        spec = registry().find_by_factory(EstimatorSpec, type(self._estimator))
        return spec is None or "target_log_probs" in spec.requires

    def learn(
        self: SelfIMPALA,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 100,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
        use_masking: bool | None = None,
    ) -> SelfIMPALA:
        """Train, see :meth:`sb3_pg_ext.algorithms.base.on_policy.OnPolicyBase.learn`.

        :param log_interval: log every so many updates; ``None`` for never
        """
        return super().learn(
            total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar, use_masking
        )

    def _end_training(self) -> None:
        actors = self._actors
        if actors is None:
            return
        self._actors = None
        try:
            actors.stop()
        finally:
            take_in(self._vec_normalize_env, self._statistics_before, actors.slots)
            self.num_timesteps += len(self._told)  # learned from, though too few for a call of the callbacks
            self._told.clear()

    def _start_actors(self, env: VecEnv, use_masking: bool | None) -> None:
        use_masking = uses_masks(env, self.policy, use_masking)
        self._backend: PolicyBackend = self._make_backend()
        self._queue: deque[Delivery] = deque()
        self._fresh: list[Unroll] = []
        self._looked = time.perf_counter()
        self._told: deque[Step] = deque()
        self._replay: deque[Unroll] = deque(maxlen=self.replay_size)
        self._statistics = Statistics(self.n_actors)
        self._version, self._n_restarts, self._latest = 0, 0, None
        self._dropped_in_a_row = self._skipped_in_a_row = 0
        # NumPy's generator, since SB3 leaves it unseeded where no seed is given.
        entropy = int(np.random.randint(2**31))
        self._rng = np.random.default_rng(entropy)
        statistics = named_statistics(unwrap_vec_normalize(env))
        self._statistics_before = {name: rms.copy() for name, rms in statistics.items()}
        self._layout = UnrollLayout(
            self.observation_space, self.action_space, self.n_steps, self.n_envs_per_actor, use_masking
        )
        self._actors = self._make_actors(env, use_masking, entropy)
        self._actors.start()
        self._request()

    def _make_actors(self, env: VecEnv, use_masking: bool, entropy: int) -> Actors:
        slots = allocate_slots(unwrap_vec_normalize(env), self.n_actors)
        arguments = self._make_configs(env, use_masking), self._layout.arrays, slots, self._parameters()
        limits: dict[str, Any] = {
            "entropy": entropy,
            "worker_timeout": self.worker_timeout,
            "max_restarts": self.max_restarts if self.on_worker_failure == "restart" else 0,
        }
        if self.backend == "ray":
            from sb3_pg_ext.workers.on_ray import RayActors  # Ray need not be installed

            return RayActors(*arguments, address=self.ray_address, options=self.ray_actor_options or {}, **limits)
        return ProcessActors(
            *arguments, name="IMPALA actor", no_progress="no step", start_method=self._start_method, **limits
        )

    def _make_configs(self, env: VecEnv, use_masking: bool) -> list[ActorConfig]:
        """What every actor has to know.

        :raises ValueError: if the environments cannot be taken apart
        """
        make_policy = policy_factory(self)
        return [
            ActorConfig(
                make_env=make_env,
                make_policy=make_policy,
                n_steps=self.n_steps,
                n_envs_per_actor=self.n_envs_per_actor,
                use_sde=self.use_sde,
                sde_sample_freq=self.sde_sample_freq,
                use_masking=use_masking,
            )
            for make_env in split(env, self.n_envs_per_actor)
        ]

    @th.no_grad()
    def _parameters(self) -> np.ndarray:
        return parameters_to_vector(self.policy.parameters()).cpu().numpy()

    def _request(self) -> None:
        """Request what may be requested, first of those who have nothing to do."""
        assert self._actors is not None
        busy = self._actors.n_requested.copy()
        for delivery in self._queue:
            busy[delivery.actor] += 1
        room = 10**9 if self.max_lag is None else (self.max_lag + 1) * self.batch_size
        room -= sum(busy) + len(self._fresh)
        for n_before in range(1 if self.n_actors == 1 else 2):
            for actor in [i for i, n in enumerate(busy) if n == n_before][: max(0, room)]:
                self._actors.request(actor)
                busy[actor] += 1
                room -= 1

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
        use_masking: bool | None = None,
    ) -> bool:
        """Take ``batch_size`` unrolls of the actors. SB3's signature.

        :param env: the training environments
        :param callback: called for every ``n_envs`` steps
        :param rollout_buffer: unused
        :param n_rollout_steps: unused
        :param use_masking: whether actors that start now use action masks; ``None`` for what ``learn()`` was told
        :return: whether training goes on; False if the callback stopped it
        :raises WorkerError: if an actor fails and is not replaced
        """
        if self._actors is None:
            self._start_actors(env, self._use_masking if use_masking is None else use_masking)
        assert self._actors is not None
        take_in(self._vec_normalize_env, self._statistics_before, self._actors.slots)  # for evaluations on the way
        self._rollout_is_good = False
        callback.on_rollout_start()
        self._fresh.clear()
        self._statistics.begin_batch(len(self._queue))
        while len(self._fresh) < self.batch_size:
            self._request()
            self._take(self._next_delivery())
            while len(self._told) >= self.n_envs:
                steps = [self._told.popleft() for _ in range(self.n_envs)]
                self.num_timesteps += self.n_envs
                workers, reward, done, infos = map(list, zip(*steps, strict=True))
                if True in done:  # no episode ended, no news of one
                    self._update_info_buffer(infos, np.array(done))
                rewards, dones = np.array(reward, np.float32), np.array(done)
                callback.update_locals(locals())
                if not callback.on_step():
                    return False
        self._request()  # so that actors work during the update
        callback.update_locals(locals())
        callback.on_rollout_end()
        self._keep_rollout()
        self._rollout_is_good = True
        return True

    def _next_delivery(self) -> Delivery:
        assert self._actors is not None
        begin = time.perf_counter()
        if begin - self._looked > POLL_SECONDS:  # also at those of whom nothing is needed yet
            self._receive(0)
        while not self._queue:
            self._receive(POLL_SECONDS)
        self._statistics.wait(time.perf_counter() - begin)
        return self._queue.popleft()

    def _receive(self, timeout: float) -> None:
        assert self._actors is not None
        self._queue.extend(self._actors.receive(timeout))
        self._n_restarts = self._actors.n_restarts
        self._looked = time.perf_counter()

    def _take(self, delivery: Delivery) -> None:
        """Take in an unroll; one that non-finite values have spoilt, or that is too old, is not learned from.

        :raises ValueError: if non-finite values have spoilt three unrolls of an actor in a row
        """
        news: News = delivery.news
        unroll = self._layout.view(delivery.arrays, delivery.actor, delivery.version)
        transitions = unroll.transitions
        transitions.final_observations = news.final_observations
        infos = [dict(USUAL_INFO) for _ in range(news.n_steps * self.n_envs_per_actor)]
        for (t, n), info in news.infos.items():
            infos[t * self.n_envs_per_actor + n] = info
        rewards, dones = (array[: news.n_steps].ravel().tolist() for array in (transitions.rewards, transitions.ends))
        self._told.extend(zip(repeat(delivery.actor), rewards, dones, infos, strict=False))
        self._statistics.take(delivery, len(infos))
        if news.problem is not None:
            self._dropped_in_a_row = news.in_a_row - 1
            self._drop_rollout(NonFiniteError(f"{news.problem} of actor {delivery.actor}"))
        elif self.max_lag is not None and self._version - unroll.version > self.max_lag:
            self._statistics.n_stale += 1
        else:
            self._fresh.append(unroll)

    def _draw_replay(self) -> list[Unroll]:
        """Some of the unrolls that were learned from before."""
        replay = self._replay
        while self.max_lag is not None and replay and self._version - replay[0].version > self.max_lag:
            replay.popleft()
        n = min(len(replay), self.batch_size * self.replay_ratio)
        return [replay[i] for i in self._rng.permutation(len(replay))[:n]] if n else []

    def _improve(self) -> None:
        self._update_learning_rate(self.policy.optimizer)
        fresh = sorted(self._fresh, key=lambda unroll: unroll.actor)  # not by who came first
        batch = Batch.of(fresh + self._draw_replay(), self._version)
        self._replay.extend(fresh)
        inputs, actions = batch.steps(self.action_space)
        old = self._backend.snapshot(inputs) if self._latest is None else None  # once for an entry of the log
        learned = [self._descend(batch, inputs, actions) for _ in range(self.n_epochs)]
        self._latest = learned[-1]
        for name in self._latest.losses:
            self.logger.record(f"train/{name}", float(np.mean([each.losses[name] for each in learned])))
        if old is not None:
            kl = check_number("KL(old‖new)", self._backend.mean_kl(old, inputs))
            self.logger.record("train/kl", kl)
        self._statistics.end_batch(batch.lags)

    def _descend(self, batch: Batch, inputs: PolicyInputs, actions: np.ndarray) -> Learned:
        """A gradient step.

        :raises NonFiniteError: if a value, a log-probability, a loss or the gradient is not finite
        """
        backend, transitions = self._backend, batch.transitions
        computed = backend.evaluate_actions(inputs, actions)
        shape = transitions.rewards.shape
        transitions.evaluated = computed.values.reshape(shape), computed.log_probs.reshape(shape)
        evaluation, estimate = assess(
            self.policy,
            transitions,
            batch.last_inputs,
            self._estimator,
            self.gamma,
            behaviour_log_probs=batch.log_probs,
        )
        ratios = np.exp(evaluation.log_probs - batch.log_probs)
        clipped = self.surrogate == "clipped"
        advantages = flatten(estimate.advantages)
        if self.normalize_advantage:
            advantages = normalize(advantages)
        if self._corrects and not clipped:
            rho_bar = getattr(self._estimator, "rho_bar", 1.0)
            advantages = np.minimum(flatten(ratios), np.float32(rho_bar)) * advantages
        old = flatten(batch.log_probs), flatten(evaluation.values)
        steps = Steps(inputs, actions, *old, advantages, flatten(estimate.returns))
        losses, derivatives = self._objective(clipped)(computed, steps)
        losses["grad_norm"] = backend.descend(derivatives, self.max_grad_norm)
        self._statistics.learn(len(steps))
        return Learned(transitions.rewards, evaluation, estimate, ratios, losses)

    def _objective(self, clipped: bool) -> Objective:
        return Objective(
            ent_coef=self.ent_coef,
            vf_coef=self.vf_coef,
            normalize_advantage=False,
            clip_range=self._now("clip_range", self.clip_range) if clipped else None,
            with_ratio=clipped,
        )

    def _keep_update(self) -> None:
        super()._keep_update()
        if self._actors is not None:
            self._version += 1
            self._actors.publish(self._version, self._parameters())
            self._fresh.clear()
            self._request()

    def dump_logs(self, iteration: int = 0) -> None:
        """Write the log.

        :param iteration: number of iterations, SB3's: of batches
        """
        record = self.logger.record
        numbers, lags = self._statistics.pop()
        for key, number in numbers.items():
            record(key, number, exclude=TABLE if key.startswith("workers/fps_") else ())
        if len(lags) and any(isinstance(each, TensorBoardOutputFormat) for each in self.logger.output_formats):
            record("train/policy_lag_histogram", th.from_numpy(lags), exclude=("stdout", "log", "json", "csv"))
        record("train/n_updates", self._n_updates, exclude="tensorboard")
        record_count(self.logger, "workers/n_stale", self._statistics.n_stale)
        record_count(self.logger, "workers/restarts", self._n_restarts)
        if self._latest is not None:
            self._log_latest(self._latest)
            self._latest = None
        super().dump_logs(iteration)

    def _log_latest(self, learned: Learned) -> None:
        """Log what the latest gradient step says of critic, advantages, ratios and exploration."""
        self._assessed = learned.rewards, learned.evaluation
        numbers = {
            "rollout/reward_mean": learned.rewards.mean(),
            "train/advantage_mean": learned.estimate.advantages.mean(),
            "train/advantage_std": learned.estimate.advantages.std(),
            "train/explained_variance": explained_variance(
                learned.evaluation.values.ravel(), learned.estimate.returns.ravel()
            ),
            "train/ratio_mean": learned.ratios.mean(),
            "train/ratio_max": learned.ratios.max(),
            "train/effective_sample_size": effective_sample_size(learned.ratios),
        }
        for key, number in numbers.items():
            if np.isfinite(number):
                self.logger.record(key, float(number))
        self._log_exploration()


def _make_environments(env: Any, n_actors: int | None, n_envs_per_actor: int) -> Any:
    """Something that SB3 takes, with ``n_envs_per_actor`` environments for every actor."""
    check_count("n_envs_per_actor", n_envs_per_actor)
    if n_actors is not None:
        check_count("n_actors", n_actors)
    if env is None:
        return None
    n_envs = None
    if isinstance(env, gym.Env | VecEnv):
        n_envs = getattr(env, "num_envs", 1)
    elif isinstance(env, list | tuple):
        n_envs = len(env)
    if n_envs is None:
        return make_environments(env, (n_actors or DEFAULT_WORKERS) * n_envs_per_actor)
    if n_actors not in (None, n_envs / n_envs_per_actor):
        raise ValueError(
            f"n_actors={n_actors!r} with {n_envs} environments and n_envs_per_actor={n_envs_per_actor!r}; allowed: "
            "n_envs_per_actor environments for every actor. Give no n_actors, or, as env, an id or a function that "
            "makes an environment"
        )
    return make_environments(env, n_envs)
