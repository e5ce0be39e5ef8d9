"""The steps of a rollout as tensors, and minibatches of them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.utils import obs_as_tensor

from sb3_pg_ext.common.observations import Observations, map_arrays
from sb3_pg_ext.common.policies import action_tensor


def flatten(array: np.ndarray) -> np.ndarray:
    """Lay an array of a rollout out step by step, [T, N, …] → [B, …], without copying."""
    return array.reshape(-1, *array.shape[2:])


def flat_observations(buffer: RolloutBuffer) -> Observations:
    """The observations of all steps, [B, …]."""
    observations: Any = buffer.observations
    return map_arrays(flatten, observations)


@dataclass(frozen=True)
class Steps:
    """The B steps of a rollout, or some of them. On the CPU these tensors are views of the rollout buffer's arrays.

    :param observations: [B, …], or a dictionary of such
    :param actions: as the action distribution takes them, [B] or [B, action_dim]
    :param log_probs: log π_old(a|s) of the policy that acted, [B]
    :param values: V(s) at that time, [B]
    :param advantages: A, [B]
    :param returns: what V is to approach, [B]
    """

    observations: Any
    actions: th.Tensor
    log_probs: th.Tensor
    values: th.Tensor
    advantages: th.Tensor
    returns: th.Tensor

    @classmethod
    def of(cls, buffer: RolloutBuffer, action_space: spaces.Space) -> "Steps":
        """All steps of a full buffer.

        :param buffer: as the rollout engine fills it, with arrays [T, N, …]
        :param action_space: the environments' action space
        """
        return cls(
            observations=obs_as_tensor(flat_observations(buffer), buffer.device),
            actions=action_tensor(flatten(buffer.actions), action_space, buffer.device),
            **_tensors(buffer, "log_probs", "values", "advantages", "returns"),
        )

    def with_estimate_of(self, buffer: RolloutBuffer) -> "Steps":
        """The same steps with the buffer's present advantages and returns."""
        return replace(self, **_tensors(buffer, "advantages", "returns"))

    def __len__(self) -> int:
        return len(self.log_probs)

    def __getitem__(self, rows: th.Tensor) -> "Steps":
        """Some of the steps, by their indices."""
        return Steps(*(_rows(getattr(self, field.name), rows) for field in fields(self)))


def _tensors(buffer: RolloutBuffer, *names: str) -> dict[str, th.Tensor]:
    return {name: th.as_tensor(flatten(getattr(buffer, name)), device=buffer.device) for name in names}


def _rows(tensors: Any, rows: th.Tensor) -> Any:
    if isinstance(tensors, dict):
        return {key: tensor[rows] for key, tensor in tensors.items()}
    return tensors[rows]


def random_rows(n_steps: int, batch_size: int, device: th.device) -> Iterator[th.Tensor]:
    """One epoch: every step once, in random order, in minibatches of nearly the same size.

    Sizes differ by one at most, where SB3 leaves a small rest whose few steps count as much as a whole minibatch.

    :param n_steps: B
    :param batch_size: the largest size of a minibatch
    :param device: where the indices are needed
    :return: the indices of one minibatch after the other
    """
    order = th.randperm(n_steps).to(device)  # drawn on the CPU, so that the seed gives the same order everywhere
    yield from order.tensor_split(math.ceil(n_steps / batch_size))
