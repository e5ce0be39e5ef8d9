"""What one update learns from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from sb3_pg_ext.algorithms.impala.unrolls import Unroll
from sb3_pg_ext.estimators import AdvantageEstimate
from sb3_pg_ext.gradients.minibatches import flatten, single_precision
from sb3_pg_ext.gradients.objectives import Losses
from sb3_pg_ext.policies.evaluation import action_array
from sb3_pg_ext.policies.inputs import PolicyInputs, concatenate
from sb3_pg_ext.rollouts.assessment import Evaluation
from sb3_pg_ext.rollouts.transitions import Transitions, side_by_side


@dataclass(frozen=True)
class Batch:
    """Unrolls side by side, N environments in all.

    :param transitions: [T, N, …]
    :param log_probs: log μ(a_t|s_t) of the policies that acted, [T, N]
    :param last_inputs: what the policy sees after the last step, [N, …]
    :param lags: of every unroll, how many updates lie between the parameters that acted and those that learn
    """

    transitions: Transitions
    log_probs: np.ndarray
    last_inputs: PolicyInputs
    lags: np.ndarray

    @classmethod
    def of(cls, unrolls: Sequence[Unroll], version: int) -> "Batch":
        """Put unrolls together.

        :param unrolls: at least one
        :param version: of the parameters that learn
        """
        return cls(
            side_by_side([unroll.transitions for unroll in unrolls]),
            np.concatenate([unroll.log_probs for unroll in unrolls], axis=1),
            concatenate([PolicyInputs(unroll.last_observations) for unroll in unrolls]),
            np.array([version - unroll.version for unroll in unrolls]),
        )

    def steps(self, action_space: spaces.Space) -> tuple[PolicyInputs, np.ndarray]:
        """What the policy sees of all steps, and its actions there, [T·N, …], step by step."""
        inputs = self.transitions.inputs.map(flatten).map(single_precision)
        return inputs, action_array(flatten(self.transitions.actions), action_space)


class Learned(NamedTuple):
    """What a gradient step has made of a batch.

    :param rewards: [T, N]
    :param evaluation: values and log-probabilities
    :param estimate: advantages and returns
    :param ratios: π(a_t|s_t) / μ(a_t|s_t), [T, N]
    :param losses: the loss, its terms, and the norm of the gradient
    """

    rewards: np.ndarray
    evaluation: Evaluation
    estimate: AdvantageEstimate
    ratios: np.ndarray
    losses: Losses
