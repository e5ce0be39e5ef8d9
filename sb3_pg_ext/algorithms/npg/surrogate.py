"""The objective that an update of the policy improves, around the policy that acted."""

from typing import NamedTuple

import numpy as np
import torch as th

from sb3_pg_ext.functional.tensors.curvature import Product
from sb3_pg_ext.gradients.minibatches import Steps
from sb3_pg_ext.gradients.policy_backend import PolicyBackend


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

    :param engine: differentiates π; as it is now it is π_old
    :param steps: the B steps of a rollout
    :param advantages: A, [B]
    """

    def __init__(self, engine: PolicyBackend, steps: Steps, advantages: np.ndarray) -> None:
        self._engine, self._steps, self._advantages = engine, steps, advantages
        self._old = engine.snapshot(steps.inputs)
        self._old_log_probs, entropies = engine.evaluate_policy(steps.inputs, steps.actions)
        self.entropy = float(entropies.mean())
        """Mean entropy of π_old, in nats."""
        self.parameters, self.gradient = engine.policy_gradient(advantages / len(steps))
        """The parameters θ that π depends on, and ∇_θ L at θ_old, [n]."""

    def fisher_product(self, sub_sampling_factor: int) -> Product:
        """Products with the Fisher information matrix at θ_old.

        :param sub_sampling_factor: k; the matrix is averaged over B/k steps, drawn at random
        """
        if sub_sampling_factor > 1:
            n_steps = len(self._steps)
            sample = self._steps[th.randperm(n_steps)[: n_steps // sub_sampling_factor].numpy()]
            self._engine.evaluate_policy(sample.inputs, sample.actions)
        return self._engine.fisher_product()

    @th.no_grad()
    def outcome(self) -> Outcome:
        """Compare the policy as it is now with π_old."""
        log_probs, _ = self._engine.evaluate_policy(self._steps.inputs, self._steps.actions)
        kls = self._engine.kl(self._old)
        log_ratios = log_probs - self._old_log_probs
        ratios = np.exp(log_ratios)
        return Outcome(
            objective=float((ratios * self._advantages).mean()),
            gain=float((np.expm1(log_ratios) * self._advantages).mean()),
            kl=float(kls.mean()),
            ratios=ratios,
        )
