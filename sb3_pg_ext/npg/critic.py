"""Fitting the critic after the policy has made its step."""

from collections.abc import Sequence
from operator import itemgetter

import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.nn import functional as F

from sb3_pg_ext.common.minibatches import Steps, random_rows
from sb3_pg_ext.common.observations import map_arrays


def fit_critic(
    policy: ActorCriticPolicy, steps: Steps, fixed: Sequence[th.Tensor], n_epochs: int, batch_size: int
) -> th.Tensor:
    """Regress V on the returns with the policy's optimiser, which serves the critic alone.

    :param policy: the policy, with its critic
    :param steps: the steps of a rollout
    :param fixed: parameters that stay as they are: those that the action distribution depends on
    :param n_epochs: number of passes over the steps
    :param batch_size: the largest size of a minibatch
    :return: the mean squared error, averaged over all minibatches, a scalar
    """
    identities = {id(parameter) for parameter in fixed}
    parameters = [p for p in policy.parameters() if p.requires_grad and id(p) not in identities]
    policy.optimizer.zero_grad(set_to_none=True)  # the optimiser passes over what has no gradient
    losses = []
    for _ in range(n_epochs):
        for rows in random_rows(len(steps), batch_size, policy.device):
            values = policy.predict_values(map_arrays(itemgetter(rows), steps.observations))  # type: ignore[arg-type]
            loss = F.mse_loss(values.flatten(), steps.returns[rows])
            gradients = th.autograd.grad(loss, parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            policy.optimizer.step()
            losses.append(loss.detach())
    return th.stack(losses).mean()
