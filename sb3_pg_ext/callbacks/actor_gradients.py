"""Gradients of actors that learn from a critic: through the sampled action, or by the score function."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch as th
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from sb3_pg_ext.algorithms.base.actor_losses import ActorLoss, soft_actor_losses
from sb3_pg_ext.algorithms.base.off_policy import OffPolicyBase
from sb3_pg_ext.functional.tensors.gradients import influential, per_sample_gradients
from sb3_pg_ext.functional.variance import VarianceParts, variance_parts

BLOCK_BYTES = 32 * 2**20
"""The gradients of single states are kept in blocks of at most so many bytes."""


def _losses_of_sac(model: Any) -> dict[str, ActorLoss]:
    def q_value(obs: Any, actions: th.Tensor) -> th.Tensor:
        return th.cat(model.critic(obs, actions), dim=1).min(1).values

    def of_the_mode(obs: Any) -> th.Tensor:
        return q_value(obs, model.actor(obs, deterministic=True))

    alpha = model.ent_coef_tensor if model.ent_coef_optimizer is None else model.log_ent_coef.detach().exp()
    return soft_actor_losses(model.actor, q_value, of_the_mode, alpha)


def _losses_of_td3(model: Any) -> dict[str, ActorLoss]:
    return {"reparametrized": lambda obs: -model.critic.q1_forward(obs, model.actor(obs))[:, 0]}


STOCK: tuple[tuple[type, Callable[[Any], dict[str, ActorLoss]]], ...] = (
    (SAC, _losses_of_sac),
    (TD3, _losses_of_td3),
)
"""The gradients of a kind of stock algorithm, by name; DDPG is a TD3."""


def losses_of(model: OffPolicyAlgorithm) -> dict[str, ActorLoss]:
    """The losses whose gradient an algorithm's actor could follow, by name; none for one without such an actor."""
    if isinstance(model, OffPolicyBase):
        return model.actor_losses()
    return next((losses(model) for kind, losses in STOCK if isinstance(model, kind)), {})


def batch_gradient(model: Any, loss: ActorLoss, batch: ReplayBufferSamples) -> th.Tensor:
    """Minus the gradient of the actor's loss over a batch, [parameters], float64.

    :param model: the algorithm
    :param loss: what is differentiated
    :param batch: states from the replay buffer
    """
    losses = loss(batch.observations)
    parameters = influential(losses, list(model.policy.actor.parameters()))
    gradients = th.autograd.grad(-losses.mean(), parameters)
    return th.cat([gradient.flatten() for gradient in gradients]).double().cpu()


def actor_parts(model: Any, loss: ActorLoss, batch: ReplayBufferSamples, n_actions: int = 2) -> VarianceParts:
    """The variance of a single state's part in the gradient: of the noise in the action, and of the state.

    What follows the action is in Q already, so that Σ_τ = 0.

    :param model: the algorithm
    :param loss: what is differentiated
    :param batch: states from the replay buffer
    :param n_actions: number of actions that are sampled in every state
    """
    n_states, parameters = len(batch.actions), list(model.policy.actor.parameters())
    size = max(1, BLOCK_BYTES // (4 * n_actions * sum(parameter.numel() for parameter in parameters)))

    def rows(obs: Any) -> np.ndarray:
        losses = loss(obs)
        return per_sample_gradients(losses, influential(losses, parameters)).cpu().numpy()

    def blocks() -> Iterator[np.ndarray]:
        for first in range(0, n_states, size):
            part = slice(first, first + size)
            obs: Any = batch.observations
            obs = {key: x[part] for key, x in obs.items()} if isinstance(obs, dict) else obs[part]
            yield np.stack([rows(obs) for _ in range(n_actions)], axis=1)[:, :, None]

    return variance_parts(blocks(), np.ones(n_states))
