"""Score functions, ∇_θ log π(a|s), of whole rollouts."""

from functools import cached_property

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_pg_ext.functional.tensors.gradients import influential, per_sample_gradients
from sb3_pg_ext.policies.evaluation import action_tensor
from sb3_pg_ext.policies.inputs import PolicyInputs

BLOCK = 64
"""So many samples at most are differentiated together: fewer pay for bookkeeping, more for zeros."""


class ScoreFunctions:
    """∇_θ log π(a_j|s_j) of a batch: an array of shape [B, n] whose rows are computed when they are read, by a slice.

    θ are the parameters that log π depends on; a critic with a network of its own has no part in them. Rows belong to
    the parameters that the policy has when they are read: read them before an update.

    :param policy: π
    :param inputs: what the policy sees of the states s, [B, …]
    :param actions: a, [B, action_dim]
    """

    def __init__(self, policy: ActorCriticPolicy, inputs: PolicyInputs, actions: np.ndarray) -> None:
        self._policy = policy
        self._inputs = inputs
        self._actions = actions

    @cached_property
    def parameters(self) -> list[th.Tensor]:
        """θ, in the order of the policy's parameters; the columns are their elements, flattened and joined."""
        return influential(self._log_probs(slice(1)), list(self._policy.parameters()))

    @property
    def shape(self) -> tuple[int, int]:
        """[B, n]."""
        return len(self._actions), sum(parameter.numel() for parameter in self.parameters)

    def __getitem__(self, part: slice) -> np.ndarray:
        """The rows of a slice without a step, float32."""
        start, stop, _ = part.indices(len(self._actions))
        rows = np.empty((stop - start, self.shape[1]), np.float32)
        for first in range(start, stop, BLOCK):
            block = slice(first, min(first + BLOCK, stop))
            gradients = per_sample_gradients(self._log_probs(block), self.parameters)
            rows[block.start - start : block.stop - start] = gradients.cpu().numpy()
        return rows

    def _log_probs(self, part: slice) -> th.Tensor:
        """Log π(a|s) of a slice, with its graph."""
        policy, (obs, more) = self._policy, self._inputs.rows(part).tensors(self._policy.device)
        actions = action_tensor(self._actions[part], policy.action_space, policy.device)
        with th.enable_grad():
            return policy.get_distribution(obs, **more).log_prob(actions)
