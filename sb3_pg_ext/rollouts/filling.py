"""Laying a whole rollout into SB3's rollout buffer."""

from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

import numpy as np
import torch as th
from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer, MaskableRolloutBuffer
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer

from sb3_pg_ext.functional.finite import check_finite
from sb3_pg_ext.functional.returns import gae, td_errors
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.observations import arrays_of, map_arrays
from sb3_pg_ext.rollouts.assessment import Evaluation
from sb3_pg_ext.rollouts.transitions import Transitions

MASKABLE_BUFFERS = (MaskableRolloutBuffer, MaskableDictRolloutBuffer)
"""Those of sb3-contrib that store action masks."""

STOCK_BUFFERS = (RolloutBuffer, DictRolloutBuffer, *MASKABLE_BUFFERS)
"""The classes of SB3 and sb3-contrib whose methods are known."""


def flattened_names(buffer: RolloutBuffer) -> list[str]:
    """The arrays that a stock buffer flattens beside the observations when minibatches are first drawn, by name."""
    masks = ["action_masks"] if isinstance(buffer, MASKABLE_BUFFERS) else []
    return ["actions", "values", "log_probs", "advantages", "returns", *masks]


def rollout_inputs(buffer: RolloutBuffer) -> PolicyInputs:
    """What the policy saw of the states of a full buffer, [B, …], whether or not it is flattened yet.

    :param buffer: without action masks
    """
    observations: Any = buffer.observations
    n_axes = 1 if buffer.generator_ready else 2
    return PolicyInputs(map_arrays(lambda array: array.reshape(-1, *array.shape[n_axes:]), observations))


@contextmanager
def unflattened(buffer: RolloutBuffer) -> Iterator[None]:
    """Within the scope minibatches may be drawn, for which SB3 flattens the arrays; then they become [T, N, …] again.

    A buffer with a ``get()`` of its own is left alone.

    :param buffer: a full buffer
    """
    if type(buffer).get not in [stock.get for stock in STOCK_BUFFERS]:
        yield
        return
    n_steps, n_envs = buffer.advantages.shape
    observations: Any = buffer.observations
    names = flattened_names(buffer)
    shapes = [array.shape[2:] for array in (*arrays_of(observations), *(getattr(buffer, name) for name in names))]
    yield
    if buffer.generator_ready:
        rest = iter(shapes)

        def restored(array: np.ndarray) -> np.ndarray:
            return array.reshape(n_envs, n_steps, *next(rest)).swapaxes(0, 1)

        observations = buffer.observations
        buffer.observations = map_arrays(restored, observations)  # type: ignore[assignment]
        for name in names:
            setattr(buffer, name, restored(getattr(buffer, name)))
        buffer.generator_ready = False


def fill_rollout_buffer(
    buffer: RolloutBuffer, transitions: Transitions, evaluation: Evaluation, first_starts: np.ndarray
) -> None:
    """Fill a buffer of SB3 in one go, with what SB3's rollout would have put into it step by step.

    That includes rewards into which γV(final observation) is folded at a time limit. A buffer that overrides ``add`` or
    ``compute_returns_and_advantage`` has them called; GAE of the stock ones is computed here, bit by bit the same.

    :param buffer: an empty buffer of T steps and N environments
    :param transitions: the rollout
    :param evaluation: its values and log-probabilities
    :param first_starts: [N], whether its first steps begin an episode
    :raises NonFiniteError: if an advantage is not finite
    """
    ends = transitions.ends
    bootstraps = np.where(transitions.truncated, buffer.gamma * evaluation.next_values, np.float32(0))
    rewards = transitions.rewards + bootstraps
    in_one_go = store_transitions(buffer, transitions, rewards, evaluation, first_starts)
    if in_one_go and type(buffer).compute_returns_and_advantage is RolloutBuffer.compute_returns_and_advantage:
        discounts = np.where(ends, np.float32(0), np.float32(buffer.gamma))
        deltas = td_errors(rewards, discounts, evaluation.values, evaluation.next_values)
        buffer.advantages = gae(deltas, ends, buffer.gamma, buffer.gae_lambda)
        buffer.returns = buffer.advantages + buffer.values
        check_finite("advantage", buffer.advantages)
    else:
        buffer.compute_returns_and_advantage(th.as_tensor(evaluation.next_values[-1])[:, None], ends[-1])


def store_transitions(
    buffer: RolloutBuffer,
    transitions: Transitions,
    rewards: np.ndarray,
    evaluation: Evaluation,
    first_starts: np.ndarray,
) -> bool:
    """Put everything but advantages and returns into a buffer of SB3.

    :param buffer: an empty buffer of T steps and N environments
    :param transitions: the rollout
    :param rewards: the rewards to store, [T, N]
    :param evaluation: values and log-probabilities
    :param first_starts: [N], whether the first steps begin an episode
    :return: whether it went in one go; a buffer that overrides ``add`` has it called step by step
    """
    starts = np.concatenate([first_starts[None], transitions.ends[:-1]])
    observations: Any = transitions.observations
    masks = transitions.inputs.action_masks
    if type(buffer).add in [stock.add for stock in STOCK_BUFFERS]:
        buffer.observations, buffer.actions, buffer.rewards = observations, transitions.actions, rewards
        buffer.episode_starts = starts.astype(np.float32)
        buffer.values, buffer.log_probs = evaluation.values, evaluation.log_probs
        put_action_masks(buffer, masks)
        buffer.pos, buffer.full = len(rewards), True
        return True
    values, log_probs = th.as_tensor(evaluation.values)[..., None], th.as_tensor(evaluation.log_probs)
    for t, reward in enumerate(rewards):
        obs: Any = map_arrays(itemgetter(t), observations)
        more = {"action_masks": masks[t]} if masks is not None and isinstance(buffer, MASKABLE_BUFFERS) else {}
        buffer.add(obs, transitions.actions[t], reward, starts[t], values[t], log_probs[t], **more)
    put_action_masks(buffer, masks)
    return False


def put_action_masks(buffer: RolloutBuffer, masks: np.ndarray | None) -> None:
    """Put action masks where sb3-contrib's buffers have them: into ``action_masks``, which is ``None`` without masks.

    :param buffer: a buffer of SB3, or one of sb3-contrib's, whose masks are ones, in single precision, where all is
        allowed
    :param masks: Booleans [T, N, k]; ``None`` where everything is allowed
    """
    if not isinstance(buffer, MASKABLE_BUFFERS):
        buffer.action_masks = masks  # type: ignore[attr-defined]
    elif masks is not None:
        buffer.action_masks[:] = masks
