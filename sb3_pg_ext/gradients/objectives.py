"""The loss that algorithms with an actor and a critic descend."""

from dataclasses import dataclass

import numpy as np

from sb3_pg_ext.functional.arrays import mean
from sb3_pg_ext.functional.surrogates import (
    normalize,
    policy_gradient_loss,
    ratio_loss,
    ratio_statistics,
    value_loss,
)
from sb3_pg_ext.gradients.minibatches import Steps
from sb3_pg_ext.gradients.policy_backend import ActorCriticEvaluation

Losses = dict[str, float]
"""The terms of a loss, unweighted, and the loss itself, by their names in the log; and what else is logged of them."""

STATISTICS = ("approx_kl", "clip_fraction")
"""What is no term of the loss."""


@dataclass(frozen=True)
class Objective:
    """The loss of a minibatch,

        −mean(r·A) + kl_coef·mean(KL(old‖π)) − ent_coef·mean(H(π)) + vf_coef·mean((V − R)²)

    where r = π(a|s) / π_old(a|s); or, while π is still π_old, −mean(log π·A) in place of the first term, which has the
    same gradient. Where their coefficient is 0, penalty and bonus are left out, not multiplied: 0·∞ would be NaN.

    :param ent_coef: weight of the entropy bonus
    :param vf_coef: weight of the critic's loss
    :param normalize_advantage: whether to scale the advantages of a minibatch to mean 0 and standard deviation 1
    :param kl_coef: weight of the penalty
    :param clip_range: ε, to clip the ratio; ``None`` for no clipping
    :param clip_range_vf: ε of the critic's loss; ``None`` for no clipping
    :param with_ratio: whether the first term has the ratio
    """

    ent_coef: float
    vf_coef: float
    normalize_advantage: bool
    kl_coef: float = 0.0
    clip_range: float | None = None
    clip_range_vf: float | None = None
    with_ratio: bool = True

    def __call__(
        self, computed: ActorCriticEvaluation, steps: Steps, kls: np.ndarray | None = None
    ) -> tuple[Losses, dict[str, np.ndarray]]:
        """Its terms, and the derivatives of ``"loss"`` by the names of the numbers.

        With a clipped ratio there are ``"approx_kl"`` and ``"clip_fraction"``, too, by which SB3 tells how far the
        policy has moved.

        :param computed: what the policy gives for the minibatch
        :param steps: the minibatch
        :param kls: KL(old‖π), [B], where there is a penalty
        """
        advantages = normalize(steps.advantages) if self.normalize_advantage else steps.advantages
        if self.with_ratio:
            policy = ratio_loss(computed.log_probs, steps.log_probs, advantages, self.clip_range)
        else:
            policy = policy_gradient_loss(computed.log_probs, advantages, len(advantages))
        value = value_loss(computed.values, steps.returns, steps.values, self.clip_range_vf)
        derivatives = {"log_probs": policy.gradient, "values": self.vf_coef * value.gradient}
        if self.ent_coef:
            derivatives["entropies"] = np.full_like(computed.entropies, -self.ent_coef / len(advantages))
        kl, statistics = None, None
        if self.kl_coef:
            assert kls is not None, "a penalty on KL needs KL"
            kl = mean(kls)
            derivatives["kls"] = np.full_like(kls, self.kl_coef / len(kls))
        if self.has_statistics:
            assert self.clip_range is not None
            statistics = ratio_statistics(computed.log_probs, steps.log_probs, self.clip_range)
        return self.terms(policy.value, value.value, mean(computed.entropies), kl, statistics), derivatives

    @property
    def has_statistics(self) -> bool:
        """Whether it tells how far the policy has moved."""
        return self.with_ratio and self.clip_range is not None

    def terms(
        self, policy: float, value: float, entropy: float, kl: float | None, statistics: tuple[float, float] | None
    ) -> Losses:
        """Weigh the terms, and give them their names.

        :param policy: the first term
        :param value: the critic's loss
        :param entropy: the mean entropy
        :param kl: the mean of KL, where there is a penalty
        :param statistics: see :func:`~sb3_pg_ext.functional.surrogates.ratio_statistics`, where there are any
        """
        losses = {"policy_gradient_loss": policy, "value_loss": value, "entropy_loss": -entropy}
        loss = policy + self.vf_coef * value
        if self.ent_coef:
            loss -= self.ent_coef * entropy
        if self.kl_coef and kl is not None:
            losses["kl_loss"] = kl
            loss += self.kl_coef * kl
        losses["loss"] = loss
        if statistics is not None:
            losses |= zip(STATISTICS, statistics, strict=True)
        return losses
