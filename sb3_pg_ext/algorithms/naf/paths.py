"""Transitions of several steps from a replay buffer, with the states and actions on the way."""

from typing import NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize


class PathSamples(NamedTuple):
    """As SB3's ``ReplayBufferSamples`` of n steps, and what happened within them; the first six are SB3's.

    :param observations: s_0, [B, …]
    :param actions: a_0, [B, d]
    :param next_observations: the observation after the last step that counts, [B, …]
    :param dones: whether that one is terminal, [B, 1]
    :param rewards: Σ_k γᵏ·r_k, [B, 1]
    :param discounts: γ to the power of the number of steps that count, [B, 1]
    :param path_observations: s_1 to s_{n−1} of every sample, one after the other, [B·(n − 1), …]
    :param path_actions: a_1 to a_{n−1}, [B·(n − 1), d]
    :param path_discounts: γᵏ, [B, n − 1]; 0 after the end of the episode, or of what the buffer holds
    """

    observations: th.Tensor
    actions: th.Tensor
    next_observations: th.Tensor
    dones: th.Tensor
    rewards: th.Tensor
    discounts: th.Tensor
    path_observations: th.Tensor
    path_actions: th.Tensor
    path_discounts: th.Tensor


def sample_paths(buffer: NStepReplayBuffer, batch_size: int, env: VecNormalize | None = None) -> PathSamples:
    """Draw first steps as SB3 does, with what follows them.

    :param buffer: the transitions, with n and γ
    :param batch_size: B
    :param env: normalises what was stored as it came
    """
    first = np.random.randint(0, buffer.size(), size=batch_size)
    which = np.random.randint(0, buffer.n_envs, size=batch_size)
    return paths(buffer, first, which, env)


def paths(
    buffer: NStepReplayBuffer, first: np.ndarray, which: np.ndarray, env: VecNormalize | None = None
) -> PathSamples:
    """The steps that follow given ones, up to n, to the end of an episode, or to the latest step of the buffer.

    :param buffer: the transitions, with n and γ
    :param first: the places of the first steps, [B]
    :param which: their environments, [B]
    :param env: normalises what was stored as it came
    """
    n, batch = buffer.n_steps, np.arange(len(first))
    steps, envs = (first[:, None] + np.arange(n)) % buffer.buffer_size, which[:, None]
    latest = (buffer.pos - 1) % buffer.buffer_size
    ends = (buffer.dones[steps, envs] + buffer.timeouts[steps, envs] > 0) | (steps == latest)
    ends[:, -1] = True
    count = ends.argmax(axis=1) + 1
    discounts = np.where(np.arange(n) < count[:, None], np.float32(buffer.gamma) ** np.arange(n, dtype=np.float32), 0)
    rewards, last = buffer.rewards[steps, envs], steps[batch, count - 1]

    def observations(array: np.ndarray) -> th.Tensor:
        return buffer.to_torch(array if env is None else env.normalize_obs(array))  # type: ignore[arg-type]  # no Dict

    rewards = rewards if env is None else env.normalize_reward(rewards).astype(np.float32)
    inner, terminal = steps[:, 1:].ravel(), buffer.dones[last, which] * (1 - buffer.timeouts[last, which])
    return PathSamples(
        observations(buffer.observations[first, which]),
        buffer.to_torch(buffer.actions[first, which]),
        observations(buffer.next_observations[last, which]),
        buffer.to_torch(terminal[:, None]),
        buffer.to_torch((discounts * rewards).sum(axis=1, keepdims=True)),
        buffer.to_torch(np.float32(buffer.gamma) ** count[:, None].astype(np.float32)),
        observations(buffer.observations[inner, np.repeat(which, n - 1)]),
        buffer.to_torch(buffer.actions[inner, np.repeat(which, n - 1)]),
        buffer.to_torch(discounts[:, 1:]),
    )
