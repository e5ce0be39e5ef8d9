"""Fitting the critic after the policy has made its step."""

from typing import NamedTuple

import numpy as np

from sb3_pg_ext.functional.surrogates import value_loss
from sb3_pg_ext.gradients.minibatches import Steps
from sb3_pg_ext.gradients.policy_backend import PolicyBackend


class Fit(NamedTuple):
    """Averages over all minibatches.

    :param loss: the mean squared error, before each step
    :param grad_norm: the norm of its gradient, before clipping
    """

    loss: float
    grad_norm: float


def fit_critic(
    engine: PolicyBackend, steps: Steps, n_epochs: int, batch_size: int, max_grad_norm: float | None = None
) -> Fit:
    """Regress V on the returns with the policy's optimiser, which serves the critic alone.

    :param engine: differentiates the policy; the parameters that the action distribution depends on are frozen
    :param steps: the steps of a rollout
    :param n_epochs: number of passes over the steps
    :param batch_size: the largest size of a minibatch
    :param max_grad_norm: the gradient is scaled down to this norm; ``None`` for no clipping
    :raises NonFiniteError: if a gradient is not finite
    """
    fits = []
    for _ in range(n_epochs):
        for batch in steps.minibatches(batch_size):
            loss = value_loss(engine.predict_values(batch.inputs), batch.returns)
            fits.append(Fit(loss.value, engine.descend({"values": loss.gradient}, max_grad_norm)))
    return Fit(*np.mean(fits, axis=0).tolist())
