"""What algorithms ask of a policy, for whole rollouts at a time."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib.common.maskable.distributions import (
    MaskableDistribution,
    MaskableMultiCategoricalDistribution,
)
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.distributions import Categorical

from sb3_pg_ext.functional import mlp
from sb3_pg_ext.functional.tensors import distributions
from sb3_pg_ext.functional.tensors.distributions import ActionDistribution
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.observations import Observations, arrays_of
from sb3_pg_ext.policies.plain_mlp import (
    UnsupportedPolicyError,
    actor_layers,
    critic_layers,
    make_head,
    network_input,
)

CHUNK_BYTES = 4 * 2**20
"""A batch passes through the policy in chunks of at most so many bytes of observations, so that memory stays flat.
Whole numbers and Booleans count as what the networks make of them, single precision."""

CHUNK_IMAGES = 512
"""And of at most so many images: what a convolution makes of small ones is larger than they are, and is to stay in the
cache."""


def parts(observations: Observations) -> Iterator[slice]:
    """Cut a batch into slices, by :data:`CHUNK_BYTES` and :data:`CHUNK_IMAGES`; an ordinary batch of vectors is one.

    :param observations: the batch, [B, …]
    """
    arrays = arrays_of(observations)
    n_rows = len(arrays[0])
    step = max(1, n_rows * CHUNK_BYTES // max(1, sum(4 * array.size for array in arrays)))
    if any(array.ndim > 3 for array in arrays):
        step = min(step, CHUNK_IMAGES)
    for start in range(0, n_rows, step):
        yield slice(start, start + step)


def chunks(inputs: PolicyInputs, device: th.device) -> Iterator[tuple[slice, Any, dict[str, Any]]]:
    """The same slices, each with what the policy's methods take.

    :param inputs: the batch, [B, …]
    :param device: where the tensors go
    :return: the slice, the observations as a tensor or a dictionary of tensors, and further arguments by their names
    """
    for part in parts(inputs.observations):
        yield part, *inputs.rows(part).tensors(device)


def action_tensor(actions: np.ndarray, action_space: spaces.Space, device: th.device) -> th.Tensor:
    """Stored actions as the action distributions take them.

    :param actions: [B, action_dim]
    :return: [B] of integers for Discrete, [B, action_dim] of floats else, as in SB3's own updates
    """
    if isinstance(action_space, spaces.Discrete):
        return th.as_tensor(actions.reshape(-1), dtype=th.long, device=device)
    return th.as_tensor(actions, dtype=th.float32, device=device)


def action_array(actions: np.ndarray, action_space: spaces.Space) -> np.ndarray:
    """Stored actions as :mod:`sb3_pg_ext.functional.heads` takes them: integers where they are choices, else float32.

    :param actions: [B, action_dim]
    """
    choices = isinstance(action_space, spaces.Discrete | spaces.MultiDiscrete)
    return actions.astype(np.int64 if choices else np.float32, copy=False)


def parts_of(distribution: Distribution) -> ActionDistribution:
    """What an action distribution of SB3 or sb3-contrib consists of, as it is."""
    if isinstance(distribution, MaskableMultiCategoricalDistribution):
        return distribution.distributions
    return distribution.distribution


def torch_distributions(distribution: Distribution) -> ActionDistribution:
    """What an action distribution of SB3 or sb3-contrib consists of, in PyTorch's own classes.

    sb3-contrib's masked choices become PyTorch's, in which a masked action has the probability 0 by its logit alone.

    :param distribution: the distribution of a batch
    """
    found = parts_of(distribution)
    if not isinstance(distribution, MaskableDistribution):
        return found
    masked: Any = distributions.parts(found)
    return [Categorical(logits=part.logits, validate_args=False) for part in masked]


@th.no_grad()
def evaluate(policy: ActorCriticPolicy, inputs: PolicyInputs, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """V(s) and log π(a|s) of a batch.

    :param inputs: what the policy sees, [B, …]
    :param actions: [B, action_dim]
    :return: values and log-probabilities, [B] each, float32
    """
    try:
        actor, critic = actor_layers(policy), critic_layers(policy)
    except UnsupportedPolicyError:
        evaluated = [
            policy.evaluate_actions(obs, action_tensor(actions[part], policy.action_space, policy.device), **more)[:2]
            for part, obs, more in chunks(inputs, policy.device)
        ]
        values, log_probs = (th.cat(pieces).flatten().cpu().numpy() for pieces in zip(*evaluated, strict=True))
        return values, log_probs
    x = network_input(inputs.observations)
    head = make_head(policy, mlp.forward(actor, x), inputs.action_masks)
    return mlp.forward(critic, x)[:, 0], head.log_prob(action_array(actions, policy.action_space))


@th.no_grad()
def mean_entropy(policy: ActorCriticPolicy, inputs: PolicyInputs) -> float | None:
    """The mean entropy of π(·|s) over a batch; None where it has no closed form.

    :param policy: the policy
    :param inputs: what it sees, [B, …]
    """
    total = 0.0
    for _, obs, more in chunks(inputs, policy.device):
        entropies = policy.get_distribution(obs, **more).entropy()
        if entropies is None:
            return None
        total += float(entropies.sum())
    return total / len(arrays_of(inputs.observations)[0])


def predict_values(policy: ActorCriticPolicy, inputs: PolicyInputs) -> np.ndarray:
    """V(s) of a batch.

    :param inputs: what the policy sees, [B, …]; a value does not depend on action masks
    :return: [B], float32
    """
    return make_critic(policy)(inputs)


def make_critic(policy: ActorCriticPolicy) -> Callable[[PolicyInputs], np.ndarray]:
    """:func:`predict_values` for several batches, while modules and methods of the policy stay what they are."""
    predict = _make_critic(policy)

    def predict_all(inputs: PolicyInputs) -> np.ndarray:
        return np.concatenate([predict(inputs.rows(part)) for part in parts(inputs.observations)])

    return predict_all


def _make_critic(policy: ActorCriticPolicy) -> Callable[[PolicyInputs], np.ndarray]:
    try:
        layers = critic_layers(policy)
    except UnsupportedPolicyError:

        @th.no_grad()
        def ask(inputs: PolicyInputs) -> np.ndarray:
            return policy.predict_values(inputs.tensors(policy.device)[0]).flatten().cpu().numpy()

        return ask
    return lambda inputs: mlp.forward(layers, network_input(inputs.observations))[:, 0]
