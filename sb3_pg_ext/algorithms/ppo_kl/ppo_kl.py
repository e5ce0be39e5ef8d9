"""PPO with a fixed, an adaptive or no penalty on KL(old‖new)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_pg_ext.algorithms.base.actor_critic import ActorCriticBase
from sb3_pg_ext.algorithms.base.constructor import arguments_of
from sb3_pg_ext.arguments import check_count, check_flag, check_positive, check_range, check_schedule
from sb3_pg_ext.estimators import AdvantageEstimator
from sb3_pg_ext.functional.finite import check_number
from sb3_pg_ext.functional.importance import effective_sample_size, fraction_outside
from sb3_pg_ext.gradients.minibatches import Steps
from sb3_pg_ext.gradients.objectives import STATISTICS, Losses, Objective
from sb3_pg_ext.log import TABLE
from sb3_pg_ext.policies.plain_mlp import is_dear

TOLERANCE = 1.5
"""β stays as it is while KL is within this factor of its target."""

CLIP_RANGES = (0.1, 0.2, 0.3)
"""PPO's usual clip ranges. How many ratios lie outside of them is logged, for comparison."""


def adapt(kl_coef: float, kl: float, target_kl: float, kl_coef_range: Sequence[float]) -> float:
    """The next β: 2β where KL > 1.5·target, β/2 where KL < target/1.5, else β (Schulman et al., 2017, section 4).

    :param kl_coef: β
    :param kl: KL(old‖new) of the update made with it; infinity is above any target, NaN is neither above nor below
    :param target_kl: the target
    :param kl_coef_range: the smallest and the largest β
    """
    if kl > TOLERANCE * target_kl:
        kl_coef *= 2
    elif kl < target_kl / TOLERANCE:
        kl_coef /= 2
    smallest, largest = kl_coef_range
    return min(max(kl_coef, smallest), largest)


class AdaptiveKLPPO(ActorCriticBase):
    """PPO with a KL penalty (Schulman et al., 2017, https://arxiv.org/abs/1707.06347, section 4).

    Several epochs of minibatch steps on every rollout, along the gradient of

        −mean(r·A) + β·mean(KL(old‖π)) − ent_coef·mean(H(π)) + vf_coef·mean((V − R)²)

    where r = π(a|s) / π_old(a|s), and the estimator gives the advantage A and the return R. KL is the analytic one of
    the whole distributions, not a sample of it, summed over action dimensions; old is the policy that acted. Once for
    every rollout, after the last epoch, KL(old‖new) is measured over all of it, and

        β ← 2β where KL > 1.5·target_kl,  β ← β/2 where KL < target_kl/1.5.

    With ``adaptive_kl=False`` β stays fixed, and ``kl_coef=0.0`` then gives the surrogate without a penalty. An update
    whose KL is infinite is undone, and β doubled all the same.

    Deviations from the paper are those of SB3's PPO: advantages scaled within each minibatch, clipped gradients, Adam
    with ε = 10⁻⁵, an entropy bonus if asked for. Unlike SB3's, the minibatches of an epoch are of nearly the same size,
    ``batch_size`` or a little less where it does not divide the rollout. A rollout is one update: ``train/n_updates``
    counts rollouts, not epochs.

    :param clip_range: ε, to clip the ratio to [1 − ε, 1 + ε] on top of the penalty, a number or a function as above;
        ``None`` for no clipping
    :param clip_range_vf: ε of the critic's loss, likewise; it depends on the scale of the returns
    :param target_kl: the KL(old‖new) per rollout that β is adapted to, in nats, a number or a function as above; only
        logged where β is fixed
    :param kl_coef: the initial β
    :param adaptive_kl: whether β is adapted
    :param kl_coef_range: the smallest and the largest β that adaptation may give
    :param early_stop_kl: no further epoch once KL(old‖new) has reached this after one; ``None`` for all epochs
    :param recompute_advantages: whether advantages and returns are estimated anew before every epoch but the first
    :raises ValueError: for arguments that contradict each other or lie outside of what is allowed
    """

    compiles = True
    max_grad_norm: float | None  # type: ignore[assignment]

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 2048,
        batch_size: int = 64,
        n_epochs: int = 10,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule | None = None,
        clip_range_vf: float | Schedule | None = None,
        normalize_advantage: bool = True,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float | None = 0.5,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        target_kl: float | Schedule = 0.01,
        kl_coef: float = 1.0,
        adaptive_kl: bool = True,
        kl_coef_range: tuple[float, float] = (1e-4, 1e4),
        early_stop_kl: float | None = None,
        advantage_estimator: str | AdvantageEstimator = "gae",
        advantage_estimator_kwargs: Mapping[str, Any] | None = None,
        recompute_advantages: bool = False,
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
        self.n_epochs = n_epochs
        self.clip_range = clip_range
        self.clip_range_vf = clip_range_vf
        self.normalize_advantage = normalize_advantage
        self.target_kl = target_kl
        self.kl_coef = kl_coef
        self.adaptive_kl = adaptive_kl
        self.kl_coef_range = kl_coef_range
        self.early_stop_kl = early_stop_kl
        self.advantage_estimator = advantage_estimator
        self.advantage_estimator_kwargs = advantage_estimator_kwargs
        self.recompute_advantages = recompute_advantages
        self.current_kl_coef = kl_coef
        self.discount_state_distribution = discount_state_distribution
        self.engine = engine
        if _init_setup_model:
            self._setup_model()

    def _check_arguments(self) -> None:
        super()._check_arguments()
        for name in ("n_steps", "batch_size", "n_epochs"):
            check_count(name, getattr(self, name))
        for name in ("normalize_advantage", "adaptive_kl", "recompute_advantages"):
            check_flag(name, getattr(self, name))
        check_schedule("target_kl", self.target_kl)
        if self.early_stop_kl is not None:
            check_positive("early_stop_kl", self.early_stop_kl)
        for name in ("clip_range", "clip_range_vf"):
            value = getattr(self, name)
            if callable(value):
                check_range(name, value(1.0), 0)  # 0: loaded by RL Zoo to act
            elif value is not None:
                check_positive(name, value)
        self._check_kl_coef()
        self._check_normalization(min(self.batch_size, self.n_steps * self.n_envs), "batch_size", "n_steps", "n_envs")

    def _check_kl_coef(self) -> None:
        check_range("kl_coef", self.kl_coef, 0, np.finfo(np.float32).max)
        try:
            smallest, largest = self.kl_coef_range
            valid = 0 < smallest <= largest < float("inf")
        except (TypeError, ValueError):
            valid = False
        if not valid:
            raise ValueError(f"kl_coef_range={self.kl_coef_range!r}; allowed: two numbers, 0 < smallest ≤ largest")
        if self.adaptive_kl and not smallest <= self.kl_coef <= largest:
            raise ValueError(
                f"kl_coef={self.kl_coef!r} together with adaptive_kl=True; allowed: kl_coef_range="
                f"[{smallest:g}, {largest:g}], or adaptive_kl=False, with which kl_coef=0.0 means no penalty"
            )

    def _improve(self) -> None:
        self._update_learning_rate(self.policy.optimizer)
        self.policy.set_training_mode(False)  # as in the rollout
        objective, engine, history = self._objective(), self._make_backend(), []
        steps = self._steps()
        steps = replace(steps, old=engine.snapshot(steps.inputs))
        for epoch in range(1, self.n_epochs + 1):
            if epoch > 1 and self.recompute_advantages:
                self._recompute_advantages()
                steps = steps.with_estimate_of(self.rollout_buffer)
            self.policy.set_training_mode(True)
            for batch in steps.minibatches(self.batch_size):
                losses = engine.differentiate(objective, batch)
                grad_norm = engine.step_along_gradient(self.max_grad_norm)
                history.append(losses | {"grad_norm": grad_norm})
            self.policy.set_training_mode(False)
            if epoch < self.n_epochs and (self.early_stop_kl is not None or not is_dear(self.policy)):
                kl = engine.mean_kl(steps.old, steps.inputs)
                self.logger.record(f"kl/epoch_{epoch}", kl, exclude=TABLE)
                if not kl < (self.early_stop_kl or float("inf")):  # NaN ends it, too
                    break
        log_probs, kls = engine.compare(steps.old, steps.inputs, steps.actions)
        kl = float(kls.mean())
        self.logger.record(f"kl/epoch_{epoch}", kl, exclude=TABLE)
        target_kl = self._now("target_kl", self.target_kl)
        if self.adaptive_kl:
            self.current_kl_coef = adapt(objective.kl_coef, kl, target_kl, self.kl_coef_range)
        self.logger.record("train/kl", check_number("KL(old‖new)", kl))
        self._log_losses(history)
        self._log_ratios(log_probs, steps)
        self._log_settings(objective, target_kl)
        self._log_rollout()

    def _objective(self) -> Objective:
        return Objective(
            ent_coef=self.ent_coef,
            vf_coef=self.vf_coef,
            normalize_advantage=self.normalize_advantage,
            kl_coef=self.current_kl_coef,
            clip_range=None if self.clip_range is None else self._now("clip_range", self.clip_range),
            clip_range_vf=None if self.clip_range_vf is None else self._now("clip_range_vf", self.clip_range_vf),
        )

    def _log_losses(self, history: list[Losses]) -> None:
        for name in history[0].keys() - STATISTICS:
            key = f"train/{name}"
            self.logger.record(key, check_number(key, np.mean([losses[name] for losses in history])))

    def _log_ratios(self, log_probs: np.ndarray, steps: Steps) -> None:
        """Statistics of π(a|s) / π_old(a|s) over the whole rollout, after the last epoch."""
        with np.errstate(over="ignore"):  # it is caught by its mean
            ratios = np.exp(log_probs.astype(np.float64) - steps.log_probs)
        ratio_mean = check_number("mean of π(a|s) / π_old(a|s)", ratios.mean())
        self.logger.record("train/ratio_mean", ratio_mean, exclude=TABLE)
        self.logger.record("train/ratio_std", ratios.std(), exclude=TABLE)
        self.logger.record("train/ratio_min", ratios.min(), exclude=TABLE)
        self.logger.record("train/ratio_max", ratios.max(), exclude=TABLE)
        self.logger.record("train/effective_sample_size", effective_sample_size(ratios))
        for clip_range in CLIP_RANGES:
            fraction = fraction_outside(ratios, clip_range)
            self.logger.record(f"train/clip_fraction_{clip_range}", fraction, exclude=TABLE)

    def _log_settings(self, objective: Objective, target_kl: float) -> None:
        self.logger.record("train/kl_coef", objective.kl_coef)
        self.logger.record("train/target_kl", target_kl)
        for name in ("clip_range", "clip_range_vf"):
            if getattr(objective, name) is not None:
                self.logger.record(f"train/{name}", getattr(objective, name))
