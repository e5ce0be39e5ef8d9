"""A deterministic actor-critic that learns on its own policy, at every step."""

import math
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_pg_ext.algorithms.ac.learner import Learner, OneStep, Settings
from sb3_pg_ext.algorithms.ac.online import OnlineBase
from sb3_pg_ext.algorithms.base.constructor import arguments_of
from sb3_pg_ext.arguments import check_choice, check_positive, check_range
from sb3_pg_ext.functional.finite import check_number


class DeterministicLearner(Learner):
    """Moves μ(s) along ∇_a Q(s, a) at a = μ(s)."""

    def _q(self, step: OneStep) -> None:
        """Any Q: δ = r + γQ(s', a') − Q(s, a), then θ += α ∇μ ∇_aQ."""
        backend = self.backend
        q_value, gradient = backend.q_gradient(step.inputs, step.actions)
        delta = check_number("TD error", step.reward + self.settings.gamma * self._next_q(step) - q_value)
        self._remember("q", step.i, gradient)
        critic = self._step("q", self.traces["q"][step.i], delta, self.critic_rate)
        self._make({"q": critic})
        mean = backend.means(step.inputs)
        direction = backend.mean_gradient(step.inputs, backend.action_gradient(step.inputs, mean))
        self._move_actor(step, direction, delta, q_value, critic)

    def _compatible(self, step: OneStep) -> None:
        """Q = V(s) + (a − μ)ᵀ∇μᵀw; θ += α ∇μ ∇μᵀw."""
        assert self.weights is not None
        backend = self.backend
        value, gradient = backend.value_gradient(step.inputs)
        mean = backend.means(step.inputs)
        features = backend.mean_gradient(step.inputs, (step.actions - mean)[0])
        features = features.copy() if isinstance(features, np.ndarray) else features
        advantage = float((self.weights * features).sum())
        next_value = 0.0 if step.terminated else float(backend.values(step.next_inputs)[0])
        delta = check_number("TD error", step.reward + self.settings.gamma * next_value - value - advantage)
        self._remember("critic", step.i, gradient)
        self._remember("weights", step.i, features)
        critic = self._step("critic", self.traces["critic"][step.i], delta, self.critic_rate)
        self._make(
            {
                "critic": critic,
                "weights": self._step("weights", self.traces["weights"][step.i], delta, self.critic_rate),
            }
        )
        n_actions = mean.shape[1]
        of_action = np.array(
            [
                float((backend.mean_gradient(step.inputs, row) * self.weights).sum())
                for row in np.eye(n_actions, dtype=np.float32)
            ],
            np.float32,
        )
        self._move_actor(step, backend.mean_gradient(step.inputs, of_action), delta, value + advantage, critic)

    def _move_actor(self, step: OneStep, direction: Any, delta: float, value: float, critic: Any) -> None:
        actor = self._step("actor", direction, 1.0, self.actor_rate)
        self._make({"actor": actor})
        log_prob, entropy, _ = self.backend.actor_gradient(step.inputs, step.actions, 0.0)
        self._count(delta, value, log_prob, entropy, {"actor": actor, "critic": critic})


class DAC(OnlineBase):
    """Deterministic actor-critics on their own policy (Silver et al., 2014, "Deterministic Policy Gradient
    Algorithms").

    It acts by a ~ N(μ(s), σ²), and improves μ. At every step

    - ``critic="q"``: δ = r + γQ(s', a') − Q(s, a), w ← w + βδ∇Q(s, a), θ ← θ + α∇μ(s)·∇_aQ(s, a) at a = μ(s), where a'
      is the action that is taken next;
    - ``critic="compatible"``: Q(s, a) = V(s) + (a − μ(s))ᵀ∇μ(s)ᵀw, δ = r + γV(s') − Q(s, a), θ ← θ + α∇μ(s)∇μ(s)ᵀw
      (COPDAC). With such a critic the gradient is exact.

    Actions are the policy's own, before they are clipped to the bounds of the space. Truncation bootstraps.
    ``predict(…, deterministic=True)`` gives μ(s).

    :param learning_rate: learning rate of actor and critic, unless they have their own; a number, or a function of the
        remaining progress (1 to 0)
    :param n_steps: number of steps in every environment between two entries of the log, after which schedules are
        looked at; updates come at every step
    :param critic: ``"q"`` or ``"compatible"``
    :param trace_lambda: λ of the critic's traces
    :param exploration_std: σ, in units of the actions
    :param actor_learning_rate: of the actor alone; ``None`` for ``learning_rate``
    :param critic_learning_rate: of the critic alone; ``None`` for ``learning_rate``
    :raises ValueError: for arguments that contradict each other or lie outside of what is allowed
    """

    learner_class = DeterministicLearner

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-3,
        n_steps: int = 1000,
        gamma: float = 0.99,
        critic: str = "q",
        trace_lambda: float = 0.0,
        exploration_std: float = 0.3,
        actor_learning_rate: float | Schedule | None = None,
        critic_learning_rate: float | Schedule | None = None,
        engine: str = "auto",
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(
            **{
                **arguments_of(OnPolicyAlgorithm, locals()),
                "use_sde": False,
                "sde_sample_freq": -1,
                "supported_action_spaces": (spaces.Box,),
            }
        )
        self.critic = critic
        self.trace_lambda = trace_lambda
        self.exploration_std = exploration_std
        self.actor_learning_rate = actor_learning_rate
        self.critic_learning_rate = critic_learning_rate
        self.engine = engine
        if _init_setup_model:
            self._setup_model()

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_choice("critic", self.critic, ("q", "compatible"))
        check_range("trace_lambda", self.trace_lambda, 0, 1)
        check_positive("exploration_std", self.exploration_std)
        for name in ("log_std_init", "state_dependent_std"):
            if name in self.policy_kwargs:
                raise ValueError(
                    f"policy_kwargs has {name}={self.policy_kwargs[name]!r}; allowed: not to have it. Use "
                    "exploration_std"
                )

    def _setup_model(self) -> None:
        super()._setup_model()
        with th.no_grad():
            self.policy.log_std.fill_(math.log(self.exploration_std))

    @property
    def _settings(self) -> Settings:
        target = "sarsa" if self.critic == "q" else None
        rates = float(self.gamma), float(self.trace_lambda)
        return Settings(self.critic, target, "sgd", *rates, 0.0, 1.0, 1.0, 0.999, 1e-8, False, False)
