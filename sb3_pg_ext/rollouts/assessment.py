"""What a rollout is worth: values, log-probabilities, and, with an estimator, advantages."""

from dataclasses import dataclass

import numpy as np
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_pg_ext.functional.finite import NonFiniteError, check_finite
from sb3_pg_ext.policies.evaluation import evaluate, predict_values
from sb3_pg_ext.policies.observations import Observations, arrays_of, map_arrays, stack
from sb3_pg_ext.rollouts.transitions import Transitions


@dataclass(frozen=True)
class Evaluation:
    """What the policy says of a rollout, [T, N] each, float32.

    :param values: V(s_t)
    :param next_values: V(s_{t+1}): that of the final observation where truncated, 0 where terminated
    :param log_probs: log π(a_t|s_t)
    """

    values: np.ndarray
    next_values: np.ndarray
    log_probs: np.ndarray


def evaluate_transitions(policy: ActorCriticPolicy, transitions: Transitions, last_obs: Observations) -> Evaluation:
    """Compute values and log-probabilities of a whole rollout in one batch.

    :param policy: the policy that acted
    :param transitions: the rollout
    :param last_obs: the observations after its last step, [N, …]
    :raises NonFiniteError: if a value or a log-probability is not finite
    """
    shape = transitions.rewards.shape
    flat = map_arrays(lambda array: array.reshape(-1, *array.shape[2:]), transitions.observations)
    values, log_probs = (
        array.reshape(shape)
        for array in evaluate(policy, flat, transitions.actions.reshape(-1, transitions.actions.shape[-1]))
    )
    next_values = np.empty_like(values)
    next_values[:-1] = values[1:]
    next_values[-1] = predict_values(policy, last_obs)
    next_values[transitions.terminated] = 0.0
    put_final_values(policy, transitions, next_values)
    for name, array in (("value", values), ("value of the next state", next_values), ("log-probability", log_probs)):
        check_finite(name, array)
    return Evaluation(values, next_values, log_probs)


def put_final_values(policy: ActorCriticPolicy, transitions: Transitions, next_values: np.ndarray) -> None:
    """Write V(final observation) to every truncated step.

    :param policy: the policy
    :param transitions: the rollout
    :param next_values: [T, N], written to
    """
    if transitions.final_observations:
        steps, envs = zip(*transitions.final_observations, strict=True)
        next_values[steps, envs] = predict_values(policy, stack(list(transitions.final_observations.values())))


def check_transitions(transitions: Transitions, last_obs: Observations) -> None:
    """Refuse a rollout with NaN or infinity in its observations or rewards.

    :param transitions: the rollout
    :param last_obs: the observations after its last step, [N, …]
    :raises NonFiniteError: naming the first offending step and environment
    """
    check_finite("reward", transitions.rewards)
    for array in arrays_of(transitions.observations):
        check_finite("observation", array)
    finals = [(f"after step {t} in environment {n}", obs) for (t, n), obs in transitions.final_observations.items()]
    for place, obs in [*finals, ("after the last step", last_obs)]:
        if not all(np.isfinite(array).all() for array in arrays_of(obs)):
            raise NonFiniteError(f"observation with NaN or infinity {place} of the rollout")
