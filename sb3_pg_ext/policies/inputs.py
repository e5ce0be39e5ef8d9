"""What a policy sees of the states of a batch."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.utils import obs_as_tensor

from sb3_pg_ext.policies.observations import Observations, map_arrays


class PolicyInputs(NamedTuple):
    """What a policy sees of the states of a batch, from the environments through the rollout to the update.

    Arrays are [B, …]; within a rollout they are [T, N, …]. Whatever else a policy may ask for is a field more here.

    :param observations: an array, or a dictionary of arrays
    :param action_masks: which actions are allowed, as sb3-contrib's maskable policies take them, Booleans; ``None``
        where all are
    """

    observations: Observations
    action_masks: np.ndarray | None = None

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> "PolicyInputs":
        """Apply a function to every array."""
        masks = self.action_masks
        return PolicyInputs(map_arrays(function, self.observations), None if masks is None else function(masks))

    def rows(self, part: Any) -> "PolicyInputs":
        """Those of some of the states.

        :param part: indices, or a slice
        """
        return self.map(lambda array: array[part])

    def tensors(self, device: th.device) -> tuple[Any, dict[str, Any]]:
        """What the methods of SB3's policies take.

        :param device: where the tensors go
        :return: observations, a tensor or a dictionary of tensors, and further arguments by their names
        """
        masks = {} if self.action_masks is None else {"action_masks": self.action_masks}
        return obs_as_tensor(self.observations, device), masks


def concatenate(inputs: Sequence[PolicyInputs], axis: int = 0) -> PolicyInputs:
    """Inputs of several batches as those of one.

    :param inputs: all with action masks, or all without
    :param axis: along which they are put together
    """
    first, *_ = inputs
    observations: Any
    if isinstance(first.observations, dict):
        observations = {
            key: np.concatenate([each.observations[key] for each in inputs], axis) for key in first.observations
        }
    else:
        observations = np.concatenate([each.observations for each in inputs], axis)
    masks: Any = [each.action_masks for each in inputs]
    return PolicyInputs(observations, None if masks[0] is None else np.concatenate(masks, axis))
