"""What happened during a rollout, told truthfully."""

import warnings
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim, get_obs_shape

from sb3_pg_ext.envs.step_infos import StepInfos
from sb3_pg_ext.policies.inputs import PolicyInputs, concatenate
from sb3_pg_ext.policies.observations import Observations

Infos = Sequence[dict[str, Any]]
"""SB3's infos, one dictionary for every environment."""


class Transitions:
    """The transitions of ``n_steps`` steps in ``n_envs`` environments, as time-major arrays [T, N, …].

    Unlike SB3's rollout buffer it keeps rewards as they came and termination apart from truncation. The actions are
    the policy's own, before they are clipped to the bounds of the space.

    :param observation_space: the environments' observation space
    :param action_space: the environments' action space
    :param n_envs: N
    :param n_steps: T
    """

    inputs: PolicyInputs
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space, n_envs: int, n_steps: int) -> None:
        self.size = 0
        # SB3's shapes: a Discrete observation is stored as [1], any action as a flat vector.
        shape: Any = get_obs_shape(observation_space)
        if isinstance(observation_space, spaces.Dict):
            dtypes = {key: space.dtype for key, space in observation_space.items()}
            observations: Any = {key: np.empty((n_steps, n_envs, *shape[key]), dtypes[key]) for key in shape}
        else:
            observations = np.empty((n_steps, n_envs, *shape), observation_space.dtype)
        self.inputs = PolicyInputs(observations)
        self.actions = np.empty((n_steps, n_envs, get_action_dim(action_space)), action_space.dtype)
        self.rewards = np.empty((n_steps, n_envs), np.float32)
        self.terminated = np.zeros((n_steps, n_envs), bool)
        self.truncated = np.zeros((n_steps, n_envs), bool)
        self.final_observations: dict[tuple[int, int], Any] = {}
        """(t, n) ↦ the observation after step t of environment n, wherever that step was truncated."""
        self.evaluated: tuple[np.ndarray | None, np.ndarray] | None = None
        """V(s_t), or None, and log π(a_t|s_t), [T, N] each, where choosing the actions has given them, too."""

    @property
    def observations(self) -> Observations:
        """The observations that the actions answer, [T, N, …]."""
        return self.inputs.observations

    @property
    def complete(self) -> bool:
        """Whether there is nothing more to collect."""
        return self.size == len(self.rewards)

    def add(
        self,
        inputs: PolicyInputs,
        actions: np.ndarray,
        rewards: np.ndarray,
        dones: np.ndarray,
        infos: Infos,
    ) -> None:
        """Append one step of every environment.

        :param inputs: what the policy saw when it chose the actions, [N, …]
        :param actions: the policy's actions, [N, …]
        :param rewards: [N]
        :param dones: [N], whether the episode ended, for whatever reason
        :param infos: SB3's infos: ``TimeLimit.truncated`` and ``terminal_observation`` tell truncation apart
        """
        t, (observations, masks) = self.size, self.inputs
        if isinstance(observations, dict):
            for key, stored in observations.items():
                stored[t] = inputs.observations[key].reshape(stored.shape[1:])
        else:
            observations[t] = inputs.observations.reshape(observations.shape[1:])  # type: ignore[union-attr]
        if inputs.action_masks is not None:
            if masks is None:
                masks = np.ones((*self.rewards.shape, *inputs.action_masks.shape[1:]), bool)
                self.inputs = PolicyInputs(observations, masks)
            masks[t] = inputs.action_masks
        self.actions[t] = actions.reshape(self.actions.shape[1:])
        self.rewards[t] = rewards
        self.terminated[t] = dones
        for n in dones.nonzero()[0].tolist():
            info = infos[n]
            final = info.get("terminal_observation")
            if final is not None and info.get("TimeLimit.truncated", False):
                self.terminated[t, n], self.truncated[t, n] = False, True
                self.final_observations[t, n] = final
        self.size += 1

    def counted(self, infos: Infos, dones: np.ndarray) -> tuple[list[dict[str, Any]], np.ndarray]:
        """The infos and dones of the coming step that belong to the rollout, where there may be news of an episode."""
        if not isinstance(infos, StepInfos):
            return infos, dones  # type: ignore[return-value]  # SB3's list
        rows = infos.news(dones)
        return [infos[n] for n in rows], dones[rows]

    @property
    def ends(self) -> np.ndarray:
        """Where an episode ended, for whatever reason, [T, N]."""
        return self.terminated | self.truncated

    def flat(self, array: np.ndarray) -> np.ndarray:
        """Lay an array of the rollout out environment by environment, each in the order of time: [T, N, …] → [B, …]."""
        return array.swapaxes(0, 1).reshape(-1, *array.shape[2:])


def side_by_side(rollouts: Sequence[Transitions]) -> Transitions:
    """Rollouts of equally many steps as one of all their environments; a single one is itself.

    :param rollouts: each [T, N_i, …]; with action masks, or all without
    """
    first, *others = rollouts
    if not others:
        return first
    joined = copy(first)
    for name in ("actions", "rewards", "terminated", "truncated"):
        setattr(joined, name, np.concatenate([getattr(each, name) for each in rollouts], axis=1))
    joined.inputs = concatenate([each.inputs for each in rollouts], axis=1)
    offsets = np.cumsum([0, *(each.rewards.shape[1] for each in rollouts)]).tolist()
    joined.final_observations = {
        (t, n + offset): observation
        for each, offset in zip(rollouts, offsets, strict=False)
        for (t, n), observation in each.final_observations.items()
    }
    joined.evaluated = None
    return joined


class EpisodeTransitions(Transitions):
    """The transitions of complete episodes: of every environment the first ``episodes_per_env``, nothing after them.

    All environments go on stepping until the last has given its share. What the others do meanwhile is not counted:
    filling up with whatever ends first would over-represent short episodes.

    :param observation_space: the environments' observation space
    :param action_space: the environments' action space
    :param n_envs: N
    :param episodes_per_env: how many episodes every environment gives
    :param expect_an_end_within: warn where no episode has ended after so many steps of all environments together;
        ``None`` for no such expectation
    """

    INITIAL_CAPACITY = 1024

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        n_envs: int,
        episodes_per_env: int,
        expect_an_end_within: int | None = None,
    ) -> None:
        super().__init__(observation_space, action_space, n_envs, self.INITIAL_CAPACITY)
        self._missing = np.full(n_envs, episodes_per_env)
        self._expect_an_end_within = expect_an_end_within
        self.active = np.zeros((self.INITIAL_CAPACITY, n_envs), bool)

    @property
    def complete(self) -> bool:
        """Whether every environment has given its share."""
        return not self._missing.any()

    def counted(self, infos: Infos, dones: np.ndarray) -> tuple[list[dict[str, Any]], np.ndarray]:
        """The infos and dones of the coming step that belong to the rollout, where there may be news of an episode."""
        news = infos.news(dones) if isinstance(infos, StepInfos) else range(len(infos))
        rows = [n for n in news if self._missing[n]]
        return [infos[n] for n in rows], dones[rows]

    def add(
        self,
        inputs: PolicyInputs,
        actions: np.ndarray,
        rewards: np.ndarray,
        dones: np.ndarray,
        infos: Infos,
    ) -> None:
        """Append one step of every environment; only what is still missing counts."""
        if self.size == len(self.rewards):
            self._look_for_an_end()
            self._reallocate(lambda array: np.concatenate([array, np.zeros_like(array)]))
        active = self._missing > 0
        self.active[self.size] = active
        counted_dones = dones & active
        self._missing -= counted_dones
        super().add(inputs, actions, rewards, counted_dones, infos)
        if self.complete:
            self._reallocate(lambda array: array[: self.size])

    def flat(self, array: np.ndarray) -> np.ndarray:
        """Lay an array of the rollout out episode by episode, without the steps that do not count."""
        return array.swapaxes(0, 1)[self.active.T]

    def _look_for_an_end(self) -> None:
        """An environment without any end would be collected from for ever."""
        limit, n_steps = self._expect_an_end_within, self.rewards.size
        if limit is not None and n_steps > limit and not self.ends.any():
            self._expect_an_end_within = None  # once is enough
            warnings.warn(
                f"no episode has ended in {n_steps} steps, with total_timesteps={limit}: complete episodes are waited "
                "for. Where there are none, give n_steps=, or put a gymnasium.wrappers.TimeLimit around the "
                "environment",
                RuntimeWarning,
                stacklevel=2,
            )

    def _reallocate(self, function: Callable[[np.ndarray], np.ndarray]) -> None:
        self.inputs = self.inputs.map(function)
        for name in ("actions", "rewards", "terminated", "truncated", "active"):
            setattr(self, name, function(getattr(self, name)))


def episodes_side_by_side(rollouts: Sequence[EpisodeTransitions]) -> EpisodeTransitions:
    """Complete episodes of several rollouts as those of one of all their environments, in that order.

    :param rollouts: all complete; with action masks, or all without
    """
    n_steps = max(len(each.rewards) for each in rollouts)
    padded = []
    for each in rollouts:
        missing = n_steps - len(each.rewards)
        longer = copy(each)
        longer._reallocate(lambda array, missing=missing: np.pad(array, [(0, missing), *[(0, 0)] * (array.ndim - 1)]))  # type: ignore[misc]
        padded.append(longer)
    joined = side_by_side(padded)
    assert isinstance(joined, EpisodeTransitions)
    joined.active = np.concatenate([each.active for each in padded], axis=1)
    joined._missing = np.zeros(joined.active.shape[1], int)
    joined.evaluated = None
    return joined
