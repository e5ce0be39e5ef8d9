"""What actors send: a few steps of their environments, laid out in arrays of a fixed size, and news of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.masking import MaskLayout
from sb3_pg_ext.policies.observations import Observations, arrays_of, map_arrays
from sb3_pg_ext.rollouts.transitions import Transitions
from sb3_pg_ext.workers.actors import Layout

Info = dict[str, Any]

USUAL_INFO: Info = {"TimeLimit.truncated": False}
"""SB3's info of a step of which there is nothing to tell."""


@dataclass
class News:
    """What does not fit into arrays.

    :param n_steps: so many steps were made; fewer than those of an unroll where it was given up
    :param infos: SB3's infos, without final observations, by step and environment, but for the usual ones
    :param final_observations: of truncated episodes, by step and environment
    :param problem: a non-finite value that has spoilt the unroll, in words
    :param in_a_row: how many times in a row this has happened to the actor
    """

    n_steps: int = 0
    infos: dict[tuple[int, int], Info] = field(default_factory=dict)
    final_observations: dict[tuple[int, int], Any] = field(default_factory=dict)
    problem: str | None = None
    in_a_row: int = 0


@dataclass
class Unroll:
    """T steps of an actor's N environments.

    :param transitions: the steps
    :param log_probs: log μ(a_t|s_t) of the policy that acted, [T, N]
    :param last_observations: those after the last step, [N, …]
    :param actor: index of the actor
    :param version: of the parameters that have acted
    """

    transitions: Transitions
    log_probs: np.ndarray
    last_observations: Observations
    actor: int = 0
    version: int = 0


class UnrollLayout:
    """How unrolls are laid out in arrays.

    :param observation_space: the environments' observation space
    :param action_space: the environments' action space
    :param n_steps: T
    :param n_envs: N
    :param use_masking: whether there are action masks
    """

    def __init__(
        self, observation_space: spaces.Space, action_space: spaces.Space, n_steps: int, n_envs: int, use_masking: bool
    ) -> None:
        self._spaces, self._shape = (observation_space, action_space), (n_steps, n_envs)
        self._template = self._make()
        if use_masking:
            masks = np.ones((n_steps, n_envs, MaskLayout(action_space).width), bool)
            self._template.inputs = PolicyInputs(self._template.observations, masks)
        example = Unroll(
            self._template,
            np.empty((n_steps, n_envs), np.float32),
            map_arrays(lambda array: array[0], self._template.observations),
        )
        self.arrays: Layout = [(array.shape, array.dtype) for array in _arrays(example)]
        """Shapes and types of the arrays."""

    def _make(self) -> Transitions:
        n_steps, n_envs = self._shape
        return Transitions(*self._spaces, n_envs, n_steps)

    def view(self, arrays: list[np.ndarray], actor: int = 0, version: int = 0) -> Unroll:
        """Arrays as the unroll that stands in them, or is to be put there; its final observations are not among them.

        :param arrays: as :attr:`arrays` says
        :param actor: index of the actor
        :param version: of the parameters that have acted
        """
        rest = iter(arrays)
        transitions = self._make()
        transitions.inputs = self._template.inputs.map(lambda array: next(rest))
        transitions.actions, transitions.rewards, log_probs = next(rest), next(rest), next(rest)
        transitions.terminated, transitions.truncated = next(rest), next(rest)
        last_observations = map_arrays(lambda array: next(rest), self._template.observations)
        return Unroll(transitions, log_probs, last_observations, actor, version)


def _arrays(unroll: Unroll) -> Iterator[np.ndarray]:
    transitions = unroll.transitions
    yield from arrays_of(transitions.observations)
    if transitions.inputs.action_masks is not None:
        yield transitions.inputs.action_masks
    yield from (transitions.actions, transitions.rewards, unroll.log_probs)
    yield from (transitions.terminated, transitions.truncated)
    yield from arrays_of(unroll.last_observations)
