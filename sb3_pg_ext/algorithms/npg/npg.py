"""NPG, the natural policy gradient."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_pg_ext.algorithms.base.actor_critic import ActorCriticBase
from sb3_pg_ext.algorithms.base.constructor import arguments_of, refuse_unused
from sb3_pg_ext.algorithms.base.critic import fit_critic
from sb3_pg_ext.algorithms.npg.compatible import fit_episodes, scores_of, solution_of
from sb3_pg_ext.algorithms.npg.surrogate import Outcome, Surrogate
from sb3_pg_ext.arguments import (
    check_choice,
    check_count,
    check_flag,
    check_positive,
    check_range,
    check_schedule,
)
from sb3_pg_ext.estimators import AdvantageEstimator
from sb3_pg_ext.functional.compatible import fit_compatible
from sb3_pg_ext.functional.finite import check_number
from sb3_pg_ext.functional.importance import effective_sample_size
from sb3_pg_ext.functional.surrogates import normalize
from sb3_pg_ext.functional.tensors.solvers import LineSearch, Solution, backtrack, conjugate_gradients
from sb3_pg_ext.functional.tensors.vectors import assign, flatten
from sb3_pg_ext.gradients.minibatches import Steps
from sb3_pg_ext.gradients.policy_backend import PolicyBackend
from sb3_pg_ext.log import TABLE, record_count

DETAILS = ("train/policy_objective", "train/natural_grad_norm", "train/cg_steps")
"""What is logged, but not printed."""


class NPG(ActorCriticBase):
    """The natural policy gradient (Kakade, 2001; Rajeswaran et al., 2017, https://arxiv.org/abs/1703.02660).

    One step of the policy's parameters θ for every rollout, without an optimiser:

        θ ← θ + α x,   (F + cg_damping·I) x = g,   g = ∇_θ mean(π_θ(a|s) / π_old(a|s) · A)

    where F is the Fisher information matrix of π_old, averaged over the states of the rollout, with an exact
    expectation over actions. F is never formed; conjugate gradients need only products with it. The step size is

    - ``step="normalized"``: α = √(2·target_kl / xᵀFx), for which the quadratic model of KL(old‖new) equals
      ``target_kl``. xᵀFx is taken to be at least ``min_curvature``·‖x‖², so that no step is longer than
      √(2·target_kl / min_curvature): where the distribution hardly depends on θ, the model holds only nearby. With
      ``line_search`` α shrinks until the true KL(old‖new) is at most ``target_kl`` and the surrogate improves, or there
      is no step: this is TRPO (Schulman et al., 2015, https://arxiv.org/abs/1502.05477).
    - ``step="fixed"``: α = ``step_size`` (Kakade, 2001).

    x itself comes by one of three ways:

    - ``direction="fisher"``: by conjugate gradients, as above;
    - ``direction="compatible"``: as the ω of a compatible critic, A ≈ ωᵀ∇log π(a|s) + v, by least squares over the
      steps of the rollout, whose normal equations are (F + cg_damping·I) ω = g, with F averaged over the actions that
      were taken;
    - ``direction="episodic"``: as the ω of the episodic natural actor-critic (Peters and Schaal, 2008),
      R ≈ ωᵀΣ_t γᵗ∇log π(a_t|s_t) + vᵀ[1, V(s_0)], by least squares over the episodes of the rollout, or their parts in
      it. R is the return that the estimator gives at the first step: with ``gae_lambda=1`` the discounted sum of
      rewards, with V after the last step of what was cut off.

    Both solve a system of as many equations as there are samples, or parameters if these are fewer, and hold the scores
    of all steps, [B, n].

    Then the critic is fitted by ``n_critic_updates`` passes of minibatch steps on mean((V(s) − R)²), where R is the
    return that the estimator gives. It has the policy's optimiser for itself. Parameters that the action distribution
    depends on, such as a shared features extractor, are left as they are. What these are is found by differentiation.

    Deviations from Rajeswaran et al.: the step size is computed with F, not with F + cg_damping·I; the critic is a
    network fitted with Adam. From sb3-contrib's TRPO: KL is KL(old‖new), summed over action dimensions; conjugate
    gradients start from 0; sub-sampling thins out F alone.

    :param learning_rate: learning rate of the critic; a number, or a function of the remaining progress (1 to 0)
    :param batch_size: the largest size of the critic's minibatches; the policy's step takes the whole rollout
    :param cg_max_steps: the most steps of conjugate gradients
    :param cg_damping: what is added to the diagonal of F for conjugate gradients
    :param line_search_shrinking_factor: what α is multiplied with while the line search refuses it
    :param line_search_max_iter: so many α are tried
    :param n_critic_updates: number of the critic's passes over a rollout
    :param normalize_advantage: whether to scale the advantages of a rollout to mean 0 and standard deviation 1
    :param target_kl: the KL(old‖new) of a normalized step, in nats, summed over action dimensions; a number, or a
        function of the remaining progress
    :param sub_sampling_factor: k, to average F over a random k-th part of the rollout, which saves time and memory;
        gradient and KL(old‖new) keep to the whole rollout
    :param min_curvature: the least curvature xᵀFx/‖x‖² that a normalized step reckons with; 0 for no bound
    :param direction: how the natural gradient is computed: ``"fisher"``, ``"compatible"`` or ``"episodic"``
    :param step: how long the step is, ``"normalized"`` or ``"fixed"``
    :param step_size: α of ``step="fixed"``, a number or a function of the remaining progress; ``None`` means 0.1
    :param line_search: whether a normalized step is shortened where it goes too far
    :raises ValueError: for arguments that contradict each other or lie outside of what is allowed
    """

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-3,
        n_steps: int = 2048,
        batch_size: int = 128,
        gamma: float = 0.99,
        cg_max_steps: int = 15,
        cg_damping: float = 0.1,
        line_search_shrinking_factor: float = 0.8,
        line_search_max_iter: int = 10,
        n_critic_updates: int = 10,
        gae_lambda: float = 0.95,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        normalize_advantage: bool = True,
        target_kl: float | Schedule = 0.01,
        sub_sampling_factor: int = 1,
        step: str = "normalized",
        step_size: float | Schedule | None = None,
        min_curvature: float = 1e-3,
        line_search: bool = False,
        direction: str = "fisher",
        advantage_estimator: str | AdvantageEstimator = "gae",
        advantage_estimator_kwargs: Mapping[str, Any] | None = None,
        discount_state_distribution: bool = False,
        engine: str = "auto",
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(**arguments_of(OnPolicyAlgorithm, locals()))
        self.batch_size = batch_size
        self.cg_max_steps = cg_max_steps
        self.cg_damping = cg_damping
        self.line_search_shrinking_factor = line_search_shrinking_factor
        self.line_search_max_iter = line_search_max_iter
        self.n_critic_updates = n_critic_updates
        self.normalize_advantage = normalize_advantage
        self.target_kl = target_kl
        self.sub_sampling_factor = sub_sampling_factor
        self.step = step
        self.step_size = step_size
        self.min_curvature = min_curvature
        self.line_search = line_search
        self.direction = direction
        self.advantage_estimator = advantage_estimator
        self.advantage_estimator_kwargs = advantage_estimator_kwargs
        self.discount_state_distribution = discount_state_distribution
        self.engine = engine
        if _init_setup_model:
            self._setup_model()

    def _check_arguments(self) -> None:
        super()._check_arguments()
        for name in ("n_steps", "batch_size", "cg_max_steps", "line_search_max_iter", "n_critic_updates"):
            check_count(name, getattr(self, name))
        for name in ("normalize_advantage", "line_search"):
            check_flag(name, getattr(self, name))
        check_range("cg_damping", self.cg_damping, 0)
        check_range("min_curvature", self.min_curvature, 0)
        check_schedule("target_kl", self.target_kl)
        check_positive("line_search_shrinking_factor", self.line_search_shrinking_factor)
        if self.line_search_shrinking_factor >= 1:
            raise ValueError(
                f"line_search_shrinking_factor={self.line_search_shrinking_factor!r}; allowed: a number between 0 and 1"
            )
        self._check_step()
        self._check_amount_of_data()

    def _check_step(self) -> None:
        check_choice("step", self.step, ("normalized", "fixed"))
        check_choice("direction", self.direction, ("fisher", "compatible", "episodic"))
        if self.direction != "fisher":
            refuse_unused(self, f"direction={self.direction!r}", "cg_max_steps", "sub_sampling_factor")
        if self.direction == "episodic":
            refuse_unused(self, "direction='episodic'", "discount_state_distribution")
        if self.step == "fixed":
            refuse_unused(self, "step='fixed'", "target_kl", "line_search", "min_curvature")
        else:
            refuse_unused(self, "step='normalized'", "step_size")
        if not self.line_search:
            refuse_unused(self, "line_search=False", "line_search_shrinking_factor", "line_search_max_iter")
        if self.step_size is not None:
            check_schedule("step_size", self.step_size)

    def _check_amount_of_data(self) -> None:
        check_count("sub_sampling_factor", self.sub_sampling_factor)
        available = self.n_steps * self.n_envs
        if self.sub_sampling_factor > available:
            raise ValueError(
                f"sub_sampling_factor={self.sub_sampling_factor!r} leaves no data of n_steps={self.n_steps} in "
                f"{self.n_envs} environment(s); allowed: at most {available}"
            )
        self._check_normalization(available, "n_steps", "n_envs")

    def _improve(self) -> None:
        self._update_learning_rate(self.policy.optimizer)
        steps = self._steps()
        self.policy.set_training_mode(False)  # as in the rollout
        engine = self._make_backend()
        engine.freeze(self._improve_actor(engine, steps))
        self.policy.set_training_mode(True)
        fit = fit_critic(engine, steps, self.n_critic_updates, self.batch_size)
        self.logger.record("train/value_loss", check_number("loss of the critic", fit.loss))
        self._log_rollout()

    def _improve_actor(self, engine: PolicyBackend, steps: Steps) -> Sequence[th.Tensor]:
        """Make the policy's step; gives the parameters that the action distribution depends on."""
        advantages = normalize(steps.advantages) if self.normalize_advantage else steps.advantages
        surrogate = Surrogate(engine, steps, advantages)
        grad_norm = check_number("norm of the policy's gradient", th.linalg.vector_norm(surrogate.gradient))
        product = surrogate.fisher_product(self.sub_sampling_factor)
        if self.direction == "fisher":
            solution = conjugate_gradients(product, surrogate.gradient, self.cg_max_steps, self.cg_damping)
        else:
            x = self._regress(surrogate, steps, advantages)
            solution = solution_of(product, surrogate.gradient, x, self.cg_damping)
        check_number("residual of conjugate gradients", solution.residual)
        step_size = self._step_size(solution)
        search = self._move(surrogate, step_size * solution.x)
        self.logger.record("train/grad_norm", grad_norm)
        self.logger.record("train/entropy_loss", -surrogate.entropy)
        self._log_step(surrogate, solution, step_size * search.scale, surrogate.outcome())
        if self.line_search:
            self.logger.record("train/line_search_steps", search.n_steps)
            self.logger.record("train/is_line_search_success", float(search.scale > 0))
        return surrogate.parameters

    def _regress(self, surrogate: Surrogate, steps: Steps, advantages: np.ndarray) -> th.Tensor:
        """The direction as the weights of a compatible critic."""
        scores = scores_of(self.policy, steps, surrogate.parameters)
        if self.direction == "compatible":
            weights, _ = fit_compatible(scores, advantages, np.ones((len(steps), 1)), self.cg_damping)
        else:
            weights = fit_episodes(self.rollout_buffer, scores, self.gamma, self.cg_damping)
        return th.as_tensor(weights, dtype=surrogate.gradient.dtype, device=surrogate.gradient.device)

    def _step_size(self, solution: Solution) -> float:
        """α; 0 where the gradient vanishes."""
        if self.step == "fixed":
            return self._now("step_size", 0.1 if self.step_size is None else self.step_size)
        curvature = max(float(solution.x @ solution.image), self.min_curvature * float(solution.x @ solution.x))
        return math.sqrt(2 * self._target_kl() / curvature) if curvature else 0.0

    def _target_kl(self) -> float:
        return self._now("target_kl", self.target_kl)

    def _move(self, surrogate: Surrogate, full_step: th.Tensor) -> LineSearch:
        """Go the full step, or with a line search as far as it allows."""
        start, target_kl = flatten(surrogate.parameters).detach(), self._target_kl()

        def accepts(scale: float) -> bool:
            assign(surrogate.parameters, start + scale * full_step)
            if not self.line_search:
                return True
            outcome = surrogate.outcome()
            return outcome.kl <= target_kl and outcome.gain > 0

        search = backtrack(accepts, self.line_search_shrinking_factor, self.line_search_max_iter)
        if not search.scale:
            assign(surrogate.parameters, start)
        return search

    def _log_step(self, surrogate: Surrogate, solution: Solution, step_size: float, outcome: Outcome) -> None:
        kl_predicted = 0.5 * step_size**2 * float(solution.x @ solution.image)
        numbers = {
            "train/kl": outcome.kl,
            "train/kl_predicted": kl_predicted,
            "train/policy_objective": outcome.objective,
            "train/surrogate_gain": outcome.gain,
            "train/surrogate_gain_predicted": step_size * float(solution.x @ surrogate.gradient),
            "train/step_size": step_size,
            "train/natural_grad_norm": float(th.linalg.vector_norm(solution.x)),
            "train/cg_residual": solution.residual,
            "train/cg_steps": solution.n_steps,
        }
        for key, number in numbers.items():
            self.logger.record(key, check_number(key, number), exclude=TABLE if key in DETAILS else ())
        record_count(self.logger, "train/cg_breakdown", int(solution.broke_down))
        self.logger.record("train/effective_sample_size", effective_sample_size(outcome.ratios))
