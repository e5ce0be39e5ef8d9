"""The base of algorithms that learn at every step: set-up, counting and the log around a learner."""

from typing import Any, ClassVar, TypeVar

import numpy as np
from stable_baselines3.common.type_aliases import MaybeCallback, Schedule

from sb3_pg_ext.algorithms.ac.compiled import (
    CompiledLearner,
    CompiledSamples,
    CompiledSharedSamples,
    CompiledTraceLearner,
    CompiledTraceSamples,
)
from sb3_pg_ext.algorithms.ac.learner import Learner, Memory, Settings
from sb3_pg_ext.algorithms.ac.q_network import QNetwork
from sb3_pg_ext.algorithms.ac.samples import ArraySamples, AutogradSamples, Layout, SampleBackend, find_layouts
from sb3_pg_ext.algorithms.ac.shared import SharedSamples, shares_layers
from sb3_pg_ext.algorithms.base.on_policy import OnPolicyBase
from sb3_pg_ext.arguments import check_count, check_range
from sb3_pg_ext.gradients.choice import choose
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.rollouts.online import OnlineCollector, Transition

SelfOnline = TypeVar("SelfOnline", bound="OnlineBase")


class OnlineBase(OnlineCollector, OnPolicyBase):
    """Builds what learns at every step, keeps what it remembers with the model, and logs what it did.

    A subclass has ``_settings``, and sets ``actor_learning_rate``, ``critic_learning_rate`` and ``engine`` before
    ``_setup_model()``.
    """

    learner_class: ClassVar[type[Learner]] = Learner
    actor_learning_rate: float | Schedule | None = None
    critic_learning_rate: float | Schedule | None = None
    memory: Memory
    _learner: Learner
    _last_next_actions: np.ndarray | None = None

    transient = (*OnlineCollector.transient, "_learner")
    advice = "What may help: VecNormalize around the environment, or smaller learning rates"

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_count("n_steps", self.n_steps)
        for name in ("actor_learning_rate", "critic_learning_rate"):
            rate = getattr(self, name)
            if rate is not None:
                check_range(name, rate(1.0) if callable(rate) else rate, 0, allowed="None, or a number ≥ 0")
        for name in ("optimizer_class", "optimizer_kwargs"):
            if name in self.policy_kwargs:
                raise ValueError(
                    f"policy_kwargs has {name}={self.policy_kwargs[name]!r}; allowed: neither it nor another "
                    "optimiser of PyTorch's, which knows of no traces. Use optimizer"
                )

    def _make_rollout_buffer(self) -> None:
        """None: nothing is kept of a step."""
        self.rollout_buffer = None  # type: ignore[assignment]

    def _setup_model(self) -> None:
        self._check_arguments()
        engine, self.engine = self.engine, "auto"  # its check needs what is made here
        super()._setup_model()
        self.engine = engine
        self.memory = self._make_memory()
        self._check_engine()

    def _check_engine(self) -> None:
        if "memory" in vars(self):
            super()._check_engine()

    def learn(  # type: ignore[override]
        self: SelfOnline,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfOnline:
        """Train, see :meth:`sb3_pg_ext.algorithms.base.learning.Learning.learn`.

        :param total_timesteps: number of environment steps; it is kept to, up to the number of environments
        :param log_interval: log every so many times ``n_steps`` steps; ``None`` for never
        """
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def train(self) -> None:
        """Do nothing: every step has been learned from."""

    @property
    def _settings(self) -> Settings:
        """What is chosen."""
        raise NotImplementedError

    def _make_memory(self) -> Memory:
        q_net = QNetwork(self.policy).to(self.device) if self._settings.critic in ("q", "q_minus_v") else None
        return Memory(find_layouts(self.policy), q_net, self.n_envs, self._settings, self.device)

    def _make_learner(self, n_steps: int | None) -> tuple[Learner, str]:
        """What acts and learns, and in words what differentiates.

        :param n_steps: for so many steps
        """
        settings, q_net = self._settings, self.memory.q_net
        layouts = *find_layouts(self.policy), None if q_net is None else Layout(list(q_net.parameters()))
        arguments = self.policy, q_net, layouts
        if settings.critic_target == "sarsa":
            n_steps = None  # an action more where an episode begins: how many there will be is not known
        n_envs = self.n_envs
        shared = shares_layers(self.policy)
        arrays = SharedSamples if shared else ArraySamples

        def make_compiled() -> tuple[type[Learner], SampleBackend]:
            if settings.optimizer == "rmsprop":
                compiled = CompiledSharedSamples if shared else CompiledTraceSamples
                return CompiledTraceLearner, compiled(*arguments, n_envs, n_steps, settings=settings)
            return CompiledLearner, CompiledSamples(*arguments, n_envs, n_steps, settings=settings)

        (learner, backend), path = choose(
            self.engine,
            lambda: (self.learner_class, arrays(*arguments, n_envs, n_steps)),
            lambda: (self.learner_class, AutogradSamples(*arguments)),
            make_compiled,
        )
        return learner(self.memory, backend, settings, self._rates()), path

    def _choose_backend(self) -> Any:
        return self._make_learner(None)

    def _rates(self) -> tuple[float, float]:
        """The learning rates of actor and critic, as they are now."""

        def rate(name: str) -> float:
            own = getattr(self, name)
            return self._now("learning_rate", self.learning_rate) if own is None else self._now(name, own)

        return rate("actor_learning_rate"), rate("critic_learning_rate")

    def _begin_rollout(self, n_steps: int) -> None:
        self._learner, path = self._make_learner(n_steps)
        self._announce("Differentiating", path)

    def _act(self, inputs: PolicyInputs, starts: np.ndarray) -> np.ndarray:
        chosen = self._last_next_actions
        if chosen is None or starts.all():  # there may be another number of environments than before
            return self._learner.backend.act(inputs)
        if starts.any():
            actions = self._learner.backend.act(inputs)
            chosen = np.where(starts.reshape(-1, *[1] * (actions.ndim - 1)), actions, chosen)
        return chosen

    def _learn_from(self, transition: Transition) -> None:
        learner = self._learner
        next_actions = None
        if learner.needs_next_actions:
            self._last_next_actions = learner.backend.act(transition.next_inputs)
            next_actions = self._last_next_actions.reshape(len(transition.rewards), -1)
        with np.errstate(all="ignore"):  # non-finite values are looked for
            problems = learner.learn_from(transition, next_actions)
        if problems:
            for problem in problems:
                self._skip_update(problem)
        else:
            self._skipped_in_a_row = 0
        self._n_updates += len(transition.rewards) - len(problems)

    def _end_rollout(self, n_steps: int) -> None:
        learner = self._learner
        learner.finish()
        learner.backend.finish()
        if self._skipped_in_a_row == 0:
            self._keep_update()
        means, report = learner.report.means, learner.report
        record = self.logger.record
        record("train/learning_rate", self.lr_schedule(self._current_progress_remaining))
        record("train/n_updates", self._n_updates, exclude="tensorboard")
        self._log_exploration()
        if not report.n:
            return
        record("train/actor_learning_rate", learner.actor_rate)
        record("train/critic_learning_rate", learner.critic_rate)
        mean = means["delta"]
        record("train/td_error_mean", mean)
        record("train/td_error_std", max(0.0, means["squared_delta"] - mean * mean) ** 0.5)
        record("train/value_loss", means["squared_delta"])
        record("train/value_mean", means["value"])
        record("train/entropy_loss", -means["entropy"])
        for name in ("actor", "critic"):
            record(f"train/{name}_step_size", means[f"{name}_step_size"])
            record(f"train/{name}_step_norm", means[f"{name}_step"])

    def _log_exploration(self) -> None:
        if not getattr(self.policy, "state_dependent_std", False):
            super()._log_exploration()

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "memory"], []
