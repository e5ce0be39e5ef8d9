"""What a minibatch step of :class:`~sb3_pg_ext.AdaptiveKLPPO` minimises."""

from dataclasses import dataclass

import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.distributions import Distribution

from sb3_pg_ext.common.minibatches import Steps
from sb3_pg_ext.functional.divergences import kl
from sb3_pg_ext.functional.surrogates import normalize, ratio_loss, value_loss

Losses = dict[str, th.Tensor]
"""The terms of the loss, unweighted, and the loss itself, by their names in the log."""


@dataclass(frozen=True)
class Objective:
    """The loss of a minibatch,

        −mean(r·A) + β·mean(KL(old‖π)) − ent_coef·mean(H(π)) + vf_coef·mean((V − R)²)

    where r = π(a|s) / π_old(a|s). Penalty and bonus are left out, not multiplied by 0, where that is their coefficient:
    0·∞ would be NaN.

    :param kl_coef: β
    :param ent_coef: weight of the entropy bonus
    :param vf_coef: weight of the critic's loss
    :param clip_range: ε, to clip the ratio as well; ``None`` for no clipping
    :param clip_range_vf: ε of the critic's loss; ``None`` for no clipping
    :param normalize_advantage: whether to scale the advantages of a minibatch to mean 0 and deviation 1
    """

    kl_coef: float
    ent_coef: float
    vf_coef: float
    clip_range: float | None
    clip_range_vf: float | None
    normalize_advantage: bool

    def __call__(self, policy: ActorCriticPolicy, steps: Steps, old: list[Distribution]) -> Losses:
        """Its terms, ``"loss"`` being the one to differentiate.

        :param policy: the policy π, with its critic
        :param steps: the minibatch
        :param old: the action distributions of the policy that acted, at the same steps
        """
        values, log_probs, entropies = policy.evaluate_actions(steps.observations, steps.actions)
        if entropies is None:  # a squashed Gaussian's has no closed form: like SB3, take the sample's
            entropies = -log_probs
        advantages = normalize(steps.advantages) if self.normalize_advantage else steps.advantages
        ratios = th.exp(log_probs - steps.log_probs)
        losses = {
            "policy_gradient_loss": ratio_loss(ratios, advantages, self.clip_range),
            "value_loss": value_loss(values.flatten(), steps.returns, steps.values, self.clip_range_vf),
            "entropy_loss": -entropies.mean(),
        }
        loss = losses["policy_gradient_loss"] + self.vf_coef * losses["value_loss"]
        if self.ent_coef:
            loss = loss + self.ent_coef * losses["entropy_loss"]
        if self.kl_coef:
            # The policy keeps the distribution that it has just evaluated.
            losses["kl_loss"] = kl(old, policy.action_dist.distribution).mean()
            loss = loss + self.kl_coef * losses["kl_loss"]
        return losses | {"loss": loss}
