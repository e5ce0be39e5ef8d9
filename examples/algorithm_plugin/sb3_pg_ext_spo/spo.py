"""Simple Policy Optimization."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_pg_ext.algorithms.base import ActorCriticBase, arguments_of
from sb3_pg_ext.arguments import check_count, check_flag, check_positive
from sb3_pg_ext.estimators import AdvantageEstimator
from sb3_pg_ext.functional.finite import check_number
from sb3_pg_ext.functional.importance import fraction_outside
from sb3_pg_ext.functional.surrogates import normalize, value_loss
from sb3_pg_ext.gradients.minibatches import Steps
from sb3_pg_ext.gradients.objectives import Losses
from sb3_pg_ext.gradients.policy_backend import ActorCriticEvaluation
from sb3_pg_ext.gradients.protocol import Derivatives
from sb3_pg_ext_spo.surrogate import spo_loss


class SPO(ActorCriticBase):
    """Simple Policy Optimization (Xie et al., 2025, https://arxiv.org/abs/2401.16025).

    PPO with a quadratic penalty in place of the clipped ratio: several epochs of minibatch steps along the gradient of

        −mean(r·A − |A|·(r − 1)²/(2ε)) − ent_coef·mean(H(π)) + vf_coef·mean((V − R)²),  r = π(a|s) / π_old(a|s)

    where the estimator gives the advantage A and the return R. Everything else is as in SB3's PPO, except that the
    minibatches of an epoch are of nearly the same size. The arguments that are not listed here are those of every
    algorithm with a critic, by SB3's names; the base adds them to this text.

    :param epsilon: ε > 0, how far from 1 the ratio is meant to go
    :raises ValueError: for arguments outside of what is allowed
    """

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
        epsilon: float = 0.2,
        normalize_advantage: bool = True,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        advantage_estimator: str | AdvantageEstimator = "gae",
        advantage_estimator_kwargs: Mapping[str, Any] | None = None,
        engine: str = "auto",
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**arguments_of(OnPolicyAlgorithm, locals()), **kwargs)
        self.batch_size = batch_size
        self.n_epochs = n_epochs
        self.epsilon = epsilon
        self.normalize_advantage = normalize_advantage
        self.advantage_estimator = advantage_estimator
        self.advantage_estimator_kwargs = advantage_estimator_kwargs
        self.engine = engine
        if _init_setup_model:
            self._setup_model()

    def _check_arguments(self) -> None:
        super()._check_arguments()
        for name in ("n_steps", "batch_size", "n_epochs"):
            check_count(name, getattr(self, name))
        check_flag("normalize_advantage", self.normalize_advantage)
        check_positive("epsilon", self.epsilon)

    def _improve(self) -> None:
        self._update_learning_rate(self.policy.optimizer)
        backend, steps = self._make_backend(), Steps.of(self.rollout_buffer, self.action_space)
        history = []
        for _ in range(self.n_epochs):
            for batch in steps.minibatches(self.batch_size):
                losses, derivatives = self._loss(backend.evaluate_actions(batch.inputs, batch.actions), batch)
                history.append(losses | {"grad_norm": backend.descend(derivatives, self.max_grad_norm)})
        for name in history[0]:
            key = f"train/{name}"
            self.logger.record(key, check_number(key, np.mean([losses[name] for losses in history])))
        self._log_rollout()

    def _loss(self, evaluation: ActorCriticEvaluation, batch: Steps) -> tuple[Losses, Derivatives]:
        """What is logged of a minibatch, and the derivatives of its loss with respect to what the policy says."""
        values, log_probs, entropies = evaluation
        advantages = normalize(batch.advantages) if self.normalize_advantage else batch.advantages
        policy = spo_loss(log_probs, batch.log_probs, advantages, self.epsilon)
        value = value_loss(values, batch.returns)
        entropy = float(entropies.mean())
        losses = {
            "policy_gradient_loss": policy.value,
            "value_loss": value.value,
            "entropy_loss": -entropy,
            "loss": policy.value - self.ent_coef * entropy + self.vf_coef * value.value,
            "clip_fraction": fraction_outside(np.exp(log_probs - batch.log_probs), self.epsilon),  # as PPO logs it
        }
        return losses, {
            "log_probs": policy.gradient,
            "entropies": np.full_like(entropies, -self.ent_coef / len(entropies)),
            "values": self.vf_coef * value.gradient,
        }
