"""ACKTR, actor-critic with Kronecker-factored natural gradients."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_pg_ext.algorithms.acktr.curvature import Layer, Plain, Step, curvature_bound, gradient_of
from sb3_pg_ext.algorithms.base.actor_critic import ActorCriticBase
from sb3_pg_ext.algorithms.base.constructor import arguments_of
from sb3_pg_ext.arguments import check_choice, check_count, check_flag, check_positive, check_range
from sb3_pg_ext.estimators import AdvantageEstimator
from sb3_pg_ext.functional.finite import check_number
from sb3_pg_ext.functional.importance import effective_sample_size
from sb3_pg_ext.functional.kronecker import condition_number, trust_region
from sb3_pg_ext.functional.surrogates import value_loss
from sb3_pg_ext.gradients.layers import unknown_parameters
from sb3_pg_ext.gradients.minibatches import Steps
from sb3_pg_ext.gradients.objectives import Losses, Objective
from sb3_pg_ext.gradients.policy_backend import LayerFactors, PolicyBackend
from sb3_pg_ext.log import TABLE, record_count

INFORMATION_OF_LOG_STD = 2.0
"""That of log σ of a Gaussian, whatever the state."""

KL_RANGE, KL_FACTOR = 2.0, 1.5
"""With ``adaptive_kl`` steps change by the second factor where KL is off its target by more than the first."""

MIN_FACTOR, MAX_FACTOR = 1e-4, 1e4
"""How far it may go in all."""


Parts = list[Layer | Plain]


def adapt(factor: float, kl: float, target_kl: float) -> float:
    """The next factor of the step: less where KL > 2·target, more where KL < target/2 (Wu et al., 2017, section 4).

    :param factor: the present one
    :param kl: KL(old‖new) of the update made with it; infinity is above any target, NaN is neither above nor below
    :param target_kl: the target
    """
    if kl > KL_RANGE * target_kl:
        factor /= KL_FACTOR
    elif kl < target_kl / KL_RANGE:
        factor *= KL_FACTOR
    return min(max(factor, MIN_FACTOR), MAX_FACTOR)


class ACKTR(ActorCriticBase):
    """Actor-critic by Kronecker-factored trust regions (Wu et al., 2017, https://arxiv.org/abs/1708.05144).

    For every rollout one step along a natural gradient whose Fisher matrix is approximated layer by layer. The loss is

        L = −mean(log π(a|s)·A) − ent_coef·mean(H(π)) + vf_coef·mean((V − R)²),

    and for a layer with inputs a, extended by a 1 for the bias, and derivatives g of log π with respect to W a

        A ← running mean of E[a aᵀ],  G ← running mean of E[g gᵀ],  Δ = (A ⊗ G + kfac_damping·I)⁻¹ ∇W,

    by the eigenvectors of A and G. Convolutions are treated likewise (KFC), and log σ of a Gaussian has its exact
    Fisher information, 2. The curvature of V is the Gauss–Newton matrix of ½(V − R)², from g of V itself; so with
    ``vf_coef=0.5`` the critic's Δ is a Gauss–Newton step. Layers that actor and critic share have the sum of both.

    The parameters that π depends on make the step −η·ν·Δ,

        ν = min(1, √(kfac_clip / (η²·max(Σ Δ·∇W, C)))),  C = n Σ ΔᵀFΔ,

    where the first sum is that of the paper, and C is what the factors of this very rollout say that ΔᵀFΔ is at most,
    given that of each of the n layers: so KL(old‖new) is predicted to be at most kfac_clip / 2, also where running
    means lag behind, and layers act together. Those of the critic alone have a ν of their own, with which they go at
    most to where the loss is predicted to be least in their direction. Steps are averaged with ``momentum`` m, at a
    rate of η(1 − m), by PyTorch's SGD. Then the critic makes ``n_critic_updates`` − 1 steps more, each with new
    factors.

    Deviations from the paper: C; the critic's own ν; an exact expectation over actions in G by default; no factor of 4
    in G of the critic; running means are unbiased from the first rollout on, so that there need be no cold start.
    Factors that are not finite, or cannot be decomposed, are left out and counted.

    :param learning_rate: η, a number or a function of the remaining progress (1 to 0)
    :param max_grad_norm: cold steps alone: their gradient is scaled down to this norm; ``None`` for no clipping
    :param n_critic_updates: number of the critic's steps on a rollout, the first of which is also the actor's
    :param kfac_clip: δ of the trust region; KL(old‖new) in nats is to be at most half of it
    :param kfac_damping: ε, what is added to the curvature in every direction
    :param kfac_decay: the weight of the former mean in the running mean of factors, once there were many
    :param eigen_interval: running means are decomposed after each of their first so many batches, and then after one
        in so many
    :param momentum: m, in [0, 1)
    :param cold_start_steps: so many updates at the beginning follow the plain gradient while factors are gathered
    :param adaptive_kl: KL(old‖new) of an update to aim at, in nats: a factor of the actor's step −η·ν·Δ is divided by
        1.5 where it was more than double, and multiplied by 1.5 where it was less than half; ``None`` for no factor
    :param fisher: how G comes by its expectation over actions: ``"exact"``, by as many backward passes as there are
        actions or action dimensions; ``"sampled"``, by one action in every state
    :param unsupported_layers: what happens to parameters whose curvature is unknown, such as recurrent ones:
        ``"error"``, or ``"sgd"``, to step along their plain gradient within the same trust region
    :raises ValueError: for arguments that contradict each other or lie outside of what is allowed, and for layers whose
        curvature is unknown
    """

    max_grad_norm: float | None  # type: ignore[assignment]

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 0.25,
        n_steps: int = 20,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float | None = 0.5,
        n_critic_updates: int = 1,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        normalize_advantage: bool = True,
        kfac_clip: float = 0.001,
        kfac_damping: float = 0.1,
        kfac_decay: float = 0.99,
        eigen_interval: int = 10,
        momentum: float = 0.9,
        cold_start_steps: int = 0,
        adaptive_kl: float | None = None,
        fisher: str = "exact",
        unsupported_layers: str = "error",
        advantage_estimator: str | AdvantageEstimator = "gae",
        advantage_estimator_kwargs: Mapping[str, Any] | None = None,
        engine: str = "auto",
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(use_sde=False, sde_sample_freq=-1, **arguments_of(OnPolicyAlgorithm, locals()))
        self.n_critic_updates = n_critic_updates
        self.normalize_advantage = normalize_advantage
        self.kfac_clip = kfac_clip
        self.kfac_damping = kfac_damping
        self.kfac_decay = kfac_decay
        self.eigen_interval = eigen_interval
        self.momentum = momentum
        self.cold_start_steps = cold_start_steps
        self.adaptive_kl = adaptive_kl
        self.fisher = fisher
        self.unsupported_layers = unsupported_layers
        self.advantage_estimator = advantage_estimator
        self.advantage_estimator_kwargs = advantage_estimator_kwargs
        self.engine = engine
        self.kl_factor = 1.0
        self.n_skipped_factors = 0
        self.policy_kwargs = {"optimizer_class": th.optim.SGD, **self.policy_kwargs}
        if _init_setup_model:
            self._setup_model()

    def _check_arguments(self) -> None:
        super()._check_arguments()
        for name in ("n_steps", "n_critic_updates", "eigen_interval"):
            check_count(name, getattr(self, name))
        check_count("cold_start_steps", self.cold_start_steps, 0)
        check_flag("normalize_advantage", self.normalize_advantage)
        for name in ("kfac_clip", "kfac_damping"):
            check_positive(name, getattr(self, name))
        for name in ("kfac_decay", "momentum"):
            check_range(name, getattr(self, name), 0, np.nextafter(1, 0), "a number in [0, 1)")
        if self.adaptive_kl is not None:
            check_positive("adaptive_kl", self.adaptive_kl)
        check_choice("fisher", self.fisher, ("exact", "sampled"))
        check_choice("unsupported_layers", self.unsupported_layers, ("error", "sgd"))
        if not self.cold_start_steps and self.max_grad_norm != signature(ACKTR).parameters["max_grad_norm"].default:
            raise ValueError(
                f"max_grad_norm={self.max_grad_norm!r} together with cold_start_steps=0, where it is unused; allowed: "
                "0.5, or cold_start_steps of at least 1"
            )
        if self.policy_kwargs["optimizer_class"] is not th.optim.SGD:
            raise ValueError(
                f"policy_kwargs with optimizer_class={self.policy_kwargs['optimizer_class']!r}; allowed: none, since "
                "ACKTR makes its steps with SGD and the argument momentum"
            )
        self._check_normalization(self.n_steps * self.n_envs, "n_steps", "n_envs")

    def _setup_model(self) -> None:
        super()._setup_model()
        self._unknown = [name for name in unknown_parameters(self.policy) if name != "log_std" or not self._is_gaussian]
        if self._unknown and self.unsupported_layers == "error":
            name = self._unknown[0]
            owner = name.rpartition(".")[0]
            kind = type(self.policy.get_submodule(owner)).__name__
            raise ValueError(
                f"unsupported_layers='error', but the policy has the parameter {name!r} of a {kind}, whose curvature "
                "is not known; allowed: nn.Linear and nn.Conv2d (without groups, padded by zeros), none of them "
                "sharing weights, or unsupported_layers='sgd'"
            )

    @property
    def _is_gaussian(self) -> bool:
        """Whether there is a parameter log σ whose curvature is known."""
        return isinstance(self.policy.action_dist, DiagGaussianDistribution)

    def _improve(self) -> None:
        self._set_rate()
        self.policy.set_training_mode(False)  # as in the rollout
        steps, engine = Steps.of(self.rollout_buffer, self.action_space), self._make_backend()
        actor, critic, old, losses = self._differentiate(engine, steps)
        grad_norm = engine.clip_gradient(self.max_grad_norm if self._is_cold else None)
        with self._timed("step"):
            self._make_step(engine, actor, critic)
            self._measure(engine, steps, old, actor)
        with self._timed("critic"):
            losses["value_loss"] = self._fit_critic(engine, steps, actor, critic, losses["value_loss"])
        for name, number in (losses | {"grad_norm": grad_norm}).items():
            self.logger.record(f"train/{name}", check_number(name, number))
        self._log_rollout()

    def _set_rate(self) -> None:
        self._update_learning_rate(self.policy.optimizer)
        self._rate = self._now("learning_rate", self.lr_schedule)
        for group in self.policy.optimizer.param_groups:
            group["lr"], group["momentum"] = self._rate * (1 - self.momentum), self.momentum

    @property
    def _is_cold(self) -> bool:
        """Whether the coming update follows the plain gradient."""
        return self._n_updates < self.cold_start_steps

    def _differentiate(self, engine: PolicyBackend, steps: Steps) -> tuple[Parts, Parts, Any, Losses]:
        """Find gradients and curvature; gives what π depends on, the rest, π itself and the terms of the loss."""
        with engine.recorded_layers():
            computed = engine.evaluate_actions(steps.inputs, steps.actions)
            with self._timed("factors"):
                factors = engine.kronecker_factors(self.fisher)
        unknown = [self.policy.get_parameter(name) for name in self._unknown]
        of_actor = set(engine.actor_parameters()) if unknown else set()
        old = engine.latest_distributions()
        objective = Objective(self.ent_coef, self.vf_coef, self.normalize_advantage, with_ratio=False)
        losses, derivatives = objective(computed, steps)
        engine.zero_gradient()
        engine.backward(derivatives)
        with self._timed("eigen"):
            layers = self._update_curvature(factors)
        parts: list[tuple[Layer | Plain, bool]] = [
            (layer, each.of_actor) for layer, each in zip(layers, factors, strict=True)
        ]
        parts += [(Plain(p, None), p in of_actor) for p in unknown]
        if self._is_gaussian:
            parts.append((Plain(self.policy.log_std, INFORMATION_OF_LOG_STD), True))
        trained = [(part, is_actors) for part, is_actors in parts if any(p.grad is not None for p in part.parameters)]
        actor, critic = ([part for part, is_actors in trained if is_actors is which] for which in (True, False))
        return actor, critic, old, losses

    def _update_curvature(self, factors: list[LayerFactors]) -> list[Layer]:
        """Let a batch's factors into the running ones, and decompose these when it is time to."""
        layers = [Layer(each, self.policy.optimizer.state[each.weight]) for each in factors]
        for layer in layers:
            self.n_skipped_factors += not layer.average(self.kfac_decay)
            if layer.is_due(self.eigen_interval):
                self.n_skipped_factors += not layer.decompose()
        return layers

    def _make_step(self, engine: PolicyBackend, actor: Parts, critic: Parts) -> None:
        if not self._is_cold:
            step = Step.of(actor, self.kfac_damping)
            scale = trust_region(max(step.decrease, step.curvature), self._rate, self.kfac_clip)
            step.write(scale * self.kl_factor)
            self.logger.record("train/trust_region_scale", scale)
            self.logger.record("train/natural_grad_norm", step.norm, exclude=TABLE)
            self.logger.record("train/critic_scale", self._scale_critic(critic), exclude=TABLE)
            blocks = [part.block for part in (*actor, *critic) if isinstance(part, Layer)]
            condition = max((condition_number(block, self.kfac_damping) for block in blocks), default=1.0)
            self.logger.record("train/curvature_condition", condition, exclude=TABLE)
        record_count(self.logger, "train/n_skipped_factors", self.n_skipped_factors)
        engine.step()

    def _scale_critic(self, critic: Parts) -> float:
        """Precondition the critic's gradients; gives their ν."""
        step = Step.of(critic, self.kfac_damping)
        curvature = 2 * self.vf_coef * self._rate * step.curvature
        scale = min(1.0, max(step.decrease, 0.0) / curvature) if curvature > 0 else 0.0
        step.write(check_number("scale of the critic's step", scale))
        return scale

    @th.no_grad()
    def _measure(self, engine: PolicyBackend, steps: Steps, old: Any, actor: Parts) -> None:
        """Log what the step did to the policy, and let the next one follow."""
        log_probs, _ = engine.evaluate_policy(steps.inputs, steps.actions)
        kl = float(engine.kl(old).mean())
        if self.adaptive_kl is not None:
            self.kl_factor = adapt(self.kl_factor, kl, self.adaptive_kl)
            self.logger.record("train/kl_factor", self.kl_factor)
        rate, state = self._rate * (1 - self.momentum), self.policy.optimizer.state

        def step_of(parameter: th.Tensor) -> th.Tensor:
            return rate * (state[parameter]["momentum_buffer"] if self.momentum else gradient_of(parameter))

        numbers = {
            "train/kl": kl,
            "train/kl_predicted": 0.5 * curvature_bound(actor, [part.matrix(step_of) for part in actor]),
            "train/step_size": self._rate,
            "train/effective_sample_size": effective_sample_size(np.exp(log_probs - steps.log_probs)),
        }
        for key, number in numbers.items():
            self.logger.record(key, check_number(key, number))

    def _fit_critic(self, engine: PolicyBackend, steps: Steps, actor: Parts, critic: Parts, error: float) -> float:
        """Make the critic's further steps; gives its error, averaged over all of them."""
        engine.freeze([parameter for part in actor for parameter in part.parameters])
        plain = [part for part in critic if isinstance(part, Plain)]
        errors = [error]
        for _ in range(self.n_critic_updates - 1):
            with engine.recorded_layers():
                values = engine.predict_values(steps.inputs)
                layers = self._update_curvature(engine.kronecker_factors(None))
            loss = value_loss(values, steps.returns)
            engine.zero_gradient()
            engine.backward({"values": self.vf_coef * loss.gradient})
            if self._is_cold:
                engine.clip_gradient(self.max_grad_norm)
            else:
                self._scale_critic([*layers, *plain])
            engine.step()
            errors.append(loss.value)
        return float(np.mean(errors))

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.logger.record(f"time/{part}_seconds", time.perf_counter() - start, exclude=TABLE)
