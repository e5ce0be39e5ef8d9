"""The objective that an update of the policy improves, around the policy that acted."""

from typing import NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_pg_ext.common.minibatches import Steps
from sb3_pg_ext.functional.curvature import Product, fisher_product
from sb3_pg_ext.functional.distributions import snapshot
from sb3_pg_ext.functional.divergences import kl
from sb3_pg_ext.functional.surrogates import policy_gradient_loss
from sb3_pg_ext.functional.vectors import flatten


class Outcome(NamedTuple):
    """What a change of the policy did, over the steps of a rollout.

    :param objective: mean(r·A)
    :param gain: mean((r − 1)·A), by how much the objective grew
    :param kl: mean KL(π_old‖π), in nats
    :param ratios: r = π(a|s) / π_old(a|s), [B]
    """

    objective: float
    gain: float
    kl: float
    ratios: np.ndarray


class Surrogate:
    """L(π) = mean(π(a|s) / π_old(a|s) · A), whose gradient at π_old is the policy gradient.

    :param policy: π; as it is now it is π_old
    :param steps: the B steps of a rollout
    :param advantages: A, [B]
    """

    def __init__(self, policy: ActorCriticPolicy, steps: Steps, advantages: th.Tensor) -> None:
        self._policy, self._steps, self._advantages = policy, steps, advantages
        # The policy reuses its own distribution object at every evaluation, but not the torch distributions in it.
        evaluated = policy.get_distribution(steps.observations)
        self._distribution = evaluated.distribution
        log_probs = evaluated.log_prob(steps.actions)
        entropies = evaluated.entropy()
        self._old, self._old_log_probs = snapshot(self._distribution), log_probs.detach()
        # A squashed Gaussian's has no closed form: like SB3, take the sample's.
        self.entropy = float((-log_probs if entropies is None else entropies).detach().mean())
        """Mean entropy of π_old, in nats."""
        loss = policy_gradient_loss(log_probs, advantages, len(steps))
        candidates = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        gradients = th.autograd.grad(loss, candidates, retain_graph=True, allow_unused=True)
        pairs = [(parameter, g) for parameter, g in zip(candidates, gradients, strict=True) if g is not None]
        self.parameters = [parameter for parameter, _ in pairs]
        """The parameters θ that π depends on: what the gradient reaches, whatever their names."""
        self.gradient = -flatten(g for _, g in pairs)
        """∇_θ L at θ_old, [n]."""

    def fisher_product(self, sub_sampling_factor: int) -> Product:
        """Products with the Fisher information matrix at θ_old.

        :param sub_sampling_factor: k; the matrix is averaged over B/k steps, drawn at random
        """
        if sub_sampling_factor == 1:
            return fisher_product(self._distribution, self.parameters)
        n_steps = len(self._steps)
        rows = th.randperm(n_steps)[: n_steps // sub_sampling_factor].to(self._policy.device)
        sample = self._policy.get_distribution(self._steps[rows].observations)
        return fisher_product(sample.distribution, self.parameters)

    @th.no_grad()
    def outcome(self) -> Outcome:
        """Compare the policy as it is now with π_old."""
        evaluated = self._policy.get_distribution(self._steps.observations)
        log_ratios = evaluated.log_prob(self._steps.actions) - self._old_log_probs
        ratios = log_ratios.exp()
        return Outcome(
            objective=float((ratios * self._advantages).mean()),
            gain=float((log_ratios.expm1() * self._advantages).mean()),
            kl=float(kl(self._old, evaluated.distribution).mean()),
            ratios=ratios.cpu().numpy(),
        )
