"""Fitting the critic after the policy has made its step."""

import numpy as np

from sb3_pg_ext.functional.surrogates import value_loss
from sb3_pg_ext.gradients.minibatches import Steps
from sb3_pg_ext.gradients.policy_backend import PolicyBackend


def fit_critic(engine: PolicyBackend, steps: Steps, n_epochs: int, batch_size: int) -> float:
    """Regress V on the returns with the policy's optimiser, which serves the critic alone.

    :param engine: differentiates the policy; the parameters that the action distribution depends on are frozen
    :param steps: the steps of a rollout
    :param n_epochs: number of passes over the steps
    :param batch_size: the largest size of a minibatch
    :return: the mean squared error, averaged over all minibatches
    """
    losses = []
    for _ in range(n_epochs):
        for batch in steps.minibatches(batch_size):
            loss = value_loss(engine.predict_values(batch.inputs), batch.returns)
            engine.zero_gradient()
            engine.backward({"values": loss.gradient})
            engine.step()
            losses.append(loss.value)
    return float(np.mean(losses))
