"""What algorithms ask of a policy, for whole rollouts at a time."""

from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import obs_as_tensor

from sb3_pg_ext.common.observations import Observations, arrays_of, map_arrays
from sb3_pg_ext.common.perceptrons import (
    UnfitPolicy,
    action_distribution,
    actor_layers,
    critic_layers,
    network_input,
)
from sb3_pg_ext.functional import mlp

CHUNK_BYTES = 4 * 2**20
"""A batch passes through the policy in chunks of at most so many bytes of observations, so that memory stays flat."""


def chunks(observations: Observations, device: th.device) -> Iterator[tuple[slice, Any]]:
    """Cut a batch into slices of at most :data:`CHUNK_BYTES`; an ordinary batch of vectors is one slice.

    :param observations: the batch, [B, …]
    :param device: where the tensors go
    :return: pairs of the slice and its observations, as a tensor or a dictionary of tensors
    """
    arrays = arrays_of(observations)
    n_rows = len(arrays[0])
    step = max(1, n_rows * CHUNK_BYTES // max(1, sum(array.nbytes for array in arrays)))
    for start in range(0, n_rows, step):
        part = slice(start, start + step)
        yield part, obs_as_tensor(map_arrays(itemgetter(part), observations), device)


def action_tensor(actions: np.ndarray, action_space: spaces.Space, device: th.device) -> th.Tensor:
    """Stored actions as the action distributions take them.

    :param actions: [B, action_dim]
    :return: [B] of integers for Discrete, [B, action_dim] of floats else, as in SB3's own updates
    """
    if isinstance(action_space, spaces.Discrete):
        return th.as_tensor(actions.reshape(-1), dtype=th.long, device=device)
    return th.as_tensor(actions, dtype=th.float32, device=device)


@th.no_grad()
def evaluate(
    policy: ActorCriticPolicy, observations: Observations, actions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """V(s) and log π(a|s) of a batch.

    :param observations: [B, …]
    :param actions: [B, action_dim]
    :return: values and log-probabilities, [B] each, float32
    """
    evaluate_chunk = _make_evaluator(policy)
    values, log_probs = [], []
    for part, obs in chunks(observations, policy.device):
        value, log_prob = evaluate_chunk(obs, action_tensor(actions[part], policy.action_space, policy.device))
        values.append(value.flatten().cpu().numpy())
        log_probs.append(log_prob.cpu().numpy())
    return np.concatenate(values), np.concatenate(log_probs)


def _make_evaluator(policy: ActorCriticPolicy) -> Callable[[Any, th.Tensor], tuple[th.Tensor, th.Tensor]]:
    try:
        actor, critic = actor_layers(policy), critic_layers(policy)
    except UnfitPolicy:
        return lambda obs, actions: policy.evaluate_actions(obs, actions)[:2]

    def evaluate_perceptron(obs: th.Tensor, actions: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        x = network_input(obs.numpy())
        log_probs = action_distribution(policy, mlp.forward(actor, x)).log_prob(actions)
        return th.from_numpy(mlp.forward(critic, x)), log_probs

    return evaluate_perceptron


@th.no_grad()
def predict_values(policy: ActorCriticPolicy, observations: Observations) -> np.ndarray:
    """V(s) of a batch.

    :param observations: [B, …]
    :return: [B], float32
    """
    predict_chunk = _make_critic(policy)
    return np.concatenate(
        [predict_chunk(obs).flatten().cpu().numpy() for _, obs in chunks(observations, policy.device)]
    )


def _make_critic(policy: ActorCriticPolicy) -> Callable[[Any], th.Tensor]:
    try:
        layers = critic_layers(policy)
    except UnfitPolicy:
        return policy.predict_values
    return lambda obs: th.from_numpy(mlp.forward(layers, network_input(obs.numpy())))
