"""The steps of a rollout, and minibatches of them."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

from sb3_pg_ext.policies.evaluation import action_array
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.observations import arrays_of

LAID_OUT_BYTES = 2**24
"""Observations of a rollout that take no more than this are copied into the order of an epoch."""


def flatten(array: np.ndarray) -> np.ndarray:
    """Lay an array of a rollout out step by step, [T, N, …] → [B, …], without copying."""
    return array.reshape(-1, *array.shape[2:])


@dataclass(frozen=True)
class Steps:
    """The B steps of a rollout, or some of them. Where nothing needs converting they are views of the rollout buffer.

    :param inputs: what the policy saw, [B, …]; double precision has become single
    :param actions: [B, action_dim], integers where they are choices
    :param log_probs: log π_old(a|s) of the policy that acted, [B]
    :param values: V(s) at that time, [B]
    :param advantages: A, [B]
    :param returns: what V is to approach, [B]
    :param old: the action distributions of the policy that acted, where an update needs them
    """

    inputs: PolicyInputs
    actions: np.ndarray
    log_probs: np.ndarray
    values: np.ndarray
    advantages: np.ndarray
    returns: np.ndarray
    old: Any = None

    @classmethod
    def of(cls, buffer: RolloutBuffer, action_space: spaces.Space) -> "Steps":
        """All steps of a full buffer.

        :param buffer: as the rollout collector fills it, with arrays [T, N, …]
        :param action_space: the environments' action space
        """
        inputs: Any = PolicyInputs(buffer.observations, getattr(buffer, "action_masks", None))
        return cls(
            inputs=inputs.map(flatten).map(single_precision),
            actions=action_array(flatten(buffer.actions), action_space),
            **_flat(buffer, "log_probs", "values", "advantages", "returns"),
        )

    def with_estimate_of(self, buffer: RolloutBuffer) -> "Steps":
        """The same steps with the buffer's present advantages and returns."""
        return replace(self, **_flat(buffer, "advantages", "returns"))

    def __len__(self) -> int:
        return len(self.log_probs)

    def __getitem__(self, rows: np.ndarray | slice) -> "Steps":
        """Some of the steps."""
        return Steps(
            self.inputs.rows(rows),
            self.actions[rows],
            self.log_probs[rows],
            self.values[rows],
            self.advantages[rows],
            self.returns[rows],
            None if self.old is None else self.old[rows],
        )

    def cut(self, order: np.ndarray, starts: Iterable[int]) -> Iterator["Steps"]:
        """All steps in another order, in minibatches.

        Small rollouts are laid out in that order at once, since to pick a minibatch takes longer than to cut it off;
        large ones would take up memory.

        :param order: indices, [B]
        :param starts: where minibatches begin in it
        """
        bounds = [*starts, len(order)]
        parts = [slice(*part) for part in pairwise(bounds)]
        if sum(array.nbytes for array in arrays_of(self.inputs.observations)) <= LAID_OUT_BYTES:
            steps = self[order]
            return (steps[part] for part in parts)
        return (self[order[part]] for part in parts)

    def minibatches(self, batch_size: int) -> Iterator["Steps"]:
        """One epoch: every step once, in random order, in minibatches of nearly the same size.

        Sizes differ by one at most, where SB3 leaves a small rest whose few steps count as much as a whole minibatch.

        :param batch_size: the largest size of a minibatch
        """
        n_batches = math.ceil(len(self) / batch_size)
        size, n_larger = divmod(len(self), n_batches)
        starts = (i * size + min(i, n_larger) for i in range(n_batches))
        return self.cut(th.randperm(len(self)).numpy(), starts)


def single_precision(array: np.ndarray) -> np.ndarray:
    """Double precision as single; anything else as it is."""
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _flat(buffer: RolloutBuffer, *names: str) -> dict[str, Any]:
    return {name: flatten(getattr(buffer, name)) for name in names}
