"""Training on collected rollouts, for stock algorithms and ours; the base of ours, with set-up and undone updates."""

import time
from typing import Any, ClassVar, TypeVar

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import explained_variance
from stable_baselines3.common.vec_env import VecEnv

from sb3_pg_ext.algorithms.base.learning import Learning
from sb3_pg_ext.algorithms.base.saving import SavesItsName
from sb3_pg_ext.algorithms.base.threads import limited_threads, thread_count
from sb3_pg_ext.arguments import check_max_grad_norm, check_range
from sb3_pg_ext.functional.finite import NonFiniteError
from sb3_pg_ext.functional.tensors.distributions import unvalidated_distributions
from sb3_pg_ext.gradients.choice import make_backend
from sb3_pg_ext.gradients.policy_backend import PolicyBackend
from sb3_pg_ext.gradients.torch_fast_paths import fused_step
from sb3_pg_ext.policies.building import policy_factory
from sb3_pg_ext.policies.exploration import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_pg_ext.policies.masking import why_unmaskable
from sb3_pg_ext.rollouts.action_masks import uses_masks
from sb3_pg_ext.rollouts.collector import RolloutCollector
from sb3_pg_ext.rollouts.episodes import steps_into_episode
from sb3_pg_ext.rollouts.transitions import Transitions

SUPPORTED_ACTION_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)

SelfOnPolicy = TypeVar("SelfOnPolicy", bound="OnPolicyBase")
SelfTraining = TypeVar("SelfTraining", bound="OnPolicyTraining")


class OnPolicyTraining(SavesItsName, RolloutCollector):
    """A collector that also trains: it chooses what differentiates the policy, and runs updates without ballast."""

    transient: ClassVar[tuple[str, ...]] = (*RolloutCollector.transient, "_last_choice", "_last_backend")

    engine = "auto"
    compiles: ClassVar[bool] = False
    """Whether its updates consist of :meth:`~sb3_pg_ext.gradients.policy_backend.PolicyBackend.differentiate`."""

    _last_choice: Any = None
    _last_backend: PolicyBackend

    def learn(self: SelfTraining, *args: Any, **kwargs: Any) -> SelfTraining:
        """Train, as SB3's ``learn`` and with its arguments, on as many threads as :func:`thread_count` says."""
        if self.compiles and self._last_choice is None:
            self._choose_backend()  # compiles, lest the first update does; SciPy's BLAS, too, has threads to be limited
        with limited_threads(thread_count(self.policy)):
            return super().learn(*args, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        self._check_engine()

    def describe_engine(self) -> str:
        """What differentiates the policy as it is now, and why.

        ``"compiled arrays"``, ``"arrays"``, or ``"autograd, because …"``.
        """
        return self._choose_backend()[1]

    def _check_engine(self) -> None:
        """Refuse an unknown engine, or one that cannot do what is asked of it."""
        if self.engine != "auto":
            self._choose_backend()

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

    def _log_critic(self) -> None:
        """Log how much of the returns the critic explained."""
        buffer = self.rollout_buffer
        explained = explained_variance(buffer.values.flatten(), buffer.returns.flatten())
        self.logger.record("train/explained_variance", explained)

    def _log_exploration(self) -> None:
        """Log the standard deviation of actions, where a parameter says it."""
        if hasattr(self.policy, "log_std"):
            self.logger.record("train/std", self.policy.log_std.detach().exp().mean().item())

    def _make_backend(self) -> PolicyBackend:
        """What differentiates the policy in the coming update: what did so in the last one, if nothing has changed."""
        choice = self.policy, self.engine, type(self.rollout_buffer)
        if self._last_choice != choice or not self._last_backend.renew():
            self._last_backend, path = self._choose_backend()
            self._last_choice = choice
            self._announce("Differentiating", path)
        return self._last_backend

    def _choose_backend(self) -> tuple[PolicyBackend, str]:
        """The engine and, in words, which it is and why.

        :raises ValueError: if it cannot do what is asked of it
        """
        return make_backend(self.policy, self.engine, compiles=self.compiles)


class OnPolicyBase(Learning, OnPolicyTraining):
    """The base of this package's on-policy algorithms. Each adds its arguments and its update.

    A subclass spells out its constructor. It passes the arguments that are SB3's on with
    ``super().__init__(**arguments_of(OnPolicyAlgorithm, locals()))``, keeps its own, and ends with
    ``if _init_setup_model: self._setup_model()``. Its docstring need not tell of arguments that stand in
    :data:`~sb3_pg_ext.algorithms.base.constructor.DOCUMENTATION`: they are added to it.

    :param policy: the policy, by its name or its class
    :param env: the environment
    :param learning_rate: learning rate
    :param gae_lambda: λ, for algorithms with an advantage estimator
    :param ent_coef: weight of the entropy bonus, for algorithms with one
    :param vf_coef: weight of the critic's loss, for algorithms that add it to the policy's
    :param max_grad_norm: the norm that gradients are scaled down to, for algorithms that do so
    :param sb3: further arguments of SB3's ``OnPolicyAlgorithm``
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    normalize_advantage = False
    discount_state_distribution = False
    _steps_into_episode: np.ndarray | int = 0
    _use_masking: bool | None = None

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule,
        gae_lambda: float = 1.0,
        ent_coef: float = 0.0,
        vf_coef: float = 0.0,
        max_grad_norm: float | None = None,
        **sb3: Any,
    ) -> None:
        super().__init__(
            policy,
            env,  # type: ignore[arg-type]
            learning_rate=learning_rate,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,  # type: ignore[arg-type]
            **{"supported_action_spaces": SUPPORTED_ACTION_SPACES, **sb3, "_init_setup_model": False},
        )

    def learn(
        self: SelfOnPolicy,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
        use_masking: bool | None = None,
    ) -> SelfOnPolicy:
        """Train, see :meth:`sb3_pg_ext.algorithms.base.learning.Learning.learn`.

        :param use_masking: whether to ask the environments which actions are allowed; ``None``: where they have
            ``action_masks()``
        :raises ValueError: with ``use_masking=True``, if they have no masks; if a mask allows no action
        """
        self._use_masking = use_masking if self.env is None else uses_masks(self.env, self.policy, use_masking)
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
        use_masking: bool | None = None,
    ) -> bool:
        """Collect one rollout, see :meth:`sb3_pg_ext.rollouts.collector.RolloutCollector.collect_rollouts`.

        :param use_masking: as there; ``None`` for what ``learn()`` was told
        """
        use_masking = self._use_masking if use_masking is None else use_masking
        return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps, use_masking)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Act, as every SB3 algorithm does.

        :param observation: one observation, or several
        :param state: unused: there is no recurrence
        :param episode_start: likewise
        :param deterministic: whether to take the most probable actions
        :param action_masks: which actions are allowed, as sb3-contrib's ``get_action_masks`` gives them; ``None`` for
            all
        :return: actions, and ``state``
        :raises ValueError: if a mask allows no action, or has another shape or other values; if the policy takes none
        """
        if action_masks is None:
            return super().predict(observation, state, episode_start, deterministic)
        policy: Any = self.policy
        if (obstacle := why_unmaskable(policy)) is not None:
            raise ValueError(f"action_masks were given, but {obstacle}; allowed: None")
        return policy.predict(observation, state, episode_start, deterministic, action_masks=action_masks)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_use_masking"]

    def _check_normalization(self, n_samples: int, *names: str) -> None:
        """Refuse to scale the advantages of single steps.

        :param n_samples: how many advantages are scaled together, at least
        :param names: the arguments that decide on that, for the message
        """
        if self.normalize_advantage and n_samples == 1:
            decided = ", ".join(f"{name}={getattr(self, name)}" for name in names)
            raise ValueError(
                f"normalize_advantage=True with a single step for each update ({decided}); allowed: at least 2 steps, "
                "since a single number has no standard deviation"
            )

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_range("ent_coef", self.ent_coef)
        check_range("vf_coef", self.vf_coef, 0)
        check_max_grad_norm(self.max_grad_norm)

    def _setup_model(self) -> None:
        """SB3's, with checks of the arguments, and without what these algorithms do not need."""
        self._check_arguments()
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self._make_rollout_buffer()
        self.policy = policy_factory(self)().to(self.device)
        self._check_engine()
        self._maybe_recommend_cpu()

    def _steps_before(self, first_starts: np.ndarray) -> np.ndarray:
        """How many steps of its first episode each environment made before the rollout, [N].

        :param first_starts: [N], whether the rollout's first steps begin an episode
        """
        # After a reset there may be another number of environments than before.
        return np.where(first_starts, 0, 0 if first_starts.all() else self._steps_into_episode)

    def _leave_rollout(self, transitions: Transitions, first_starts: np.ndarray) -> None:
        steps_before, ended = self._steps_before(first_starts), self._last_episode_starts
        assert ended is not None
        self._steps_into_episode = steps_into_episode(transitions, steps_before, transitions.size, ended)

    def _make_rollout_buffer(self) -> None:
        """Make ``rollout_buffer``, of SB3's class for the observations unless there is another."""
        if self.rollout_buffer_class is None:
            is_dict = isinstance(self.observation_space, spaces.Dict)
            self.rollout_buffer_class = DictRolloutBuffer if is_dict else RolloutBuffer
        self.rollout_buffer = self.rollout_buffer_class(
            self.n_steps or 0,
            self.observation_space,
            self.action_space,
            device=self.device,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
            n_envs=self.n_envs,
            **self.rollout_buffer_kwargs,
        )

    def _update(self) -> None:
        self.policy.set_training_mode(True)
        undo = self._keep_for_undo([self.policy.optimizer])
        try:
            with np.errstate(all="ignore"):  # non-finite values are looked for
                self._improve()
            undo.check()
            self.logger.record("train/step_norm", undo.distance())
        except NonFiniteError as problem:
            undo.restore()
            self._skip_update(problem)
        else:
            self._n_updates += 1
            self._keep_update()

    def _improve(self) -> None:
        """One update of the policy with the rollout: what makes an algorithm.

        :raises NonFiniteError: if a loss, a gradient or KL(old‖new) is not finite; then everything is put back
        """
        raise NotImplementedError
