"""What a rollout is worth: values, log-probabilities, and an estimator's advantages and returns.

This is the one place where truncation becomes a value: V(s_{t+1}) of a truncated step is that of its final observation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_pg_ext.estimators import AdvantageEstimate, AdvantageEstimator, Rollout, estimate_advantages
from sb3_pg_ext.functional.finite import NonFiniteError, check_finite
from sb3_pg_ext.policies.evaluation import evaluate, make_critic
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.observations import arrays_of, stack
from sb3_pg_ext.rollouts.transitions import Transitions

PredictValues = Callable[[PolicyInputs], np.ndarray]
"""From what a critic sees of a batch, [B, …], to V(s), [B]."""


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


class Outcomes(Protocol):
    """What the environments answered, [T, N] each."""

    @property
    def rewards(self) -> np.ndarray:
        """r_t, float32."""

    @property
    def terminated(self) -> np.ndarray:
        """Whether s_{t+1} is terminal, bool."""

    @property
    def truncated(self) -> np.ndarray:
        """Whether the episode was cut at s_{t+1}, bool."""


class StepOutcomes(NamedTuple):
    """:class:`Outcomes` of their own, apart from any :class:`~sb3_pg_ext.rollouts.transitions.Transitions`."""

    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


def assess(
    policy: ActorCriticPolicy,
    transitions: Transitions,
    last_inputs: PolicyInputs,
    estimator: AdvantageEstimator,
    gamma: float,
    behaviour_log_probs: np.ndarray | None = None,
    predict: PredictValues | None = None,
) -> tuple[Evaluation, AdvantageEstimate]:
    """Evaluate a rollout by the policy's critic, and estimate advantages and returns.

    :param policy: the policy as it is now
    :param transitions: the rollout
    :param last_inputs: what the policy sees after its last step, [N, …]
    :param estimator: gives the advantages
    :param gamma: discount factor γ
    :param behaviour_log_probs: log μ(a_t|s_t) of the policy that acted, [T, N]; ``None``: it is the present one
    :param predict: gives V(s); ``None`` for the policy's own way
    :raises NonFiniteError: if a value, a log-probability, an advantage or a return is not finite
    """
    evaluation = evaluate_transitions(policy, transitions, last_inputs, predict)
    target = evaluation.log_probs
    behaviour = target if behaviour_log_probs is None else behaviour_log_probs
    return evaluation, estimate(
        estimator, transitions, evaluation.values, evaluation.next_values, gamma, behaviour, target
    )


def estimate(
    estimator: AdvantageEstimator,
    outcomes: Outcomes,
    values: np.ndarray,
    next_values: np.ndarray,
    gamma: float,
    behaviour_log_probs: np.ndarray | None = None,
    target_log_probs: np.ndarray | None = None,
) -> AdvantageEstimate:
    """Present a rollout to an estimator.

    :param estimator: gives the advantages
    :param outcomes: rewards and ends
    :param values: V(s_t), [T, N]
    :param next_values: V(s_{t+1}), [T, N]
    :param gamma: discount factor γ
    :param behaviour_log_probs: log μ(a_t|s_t) of the policy that acted, [T, N]; ``None`` where it is not known
    :param target_log_probs: log π(a_t|s_t) of the policy to evaluate, [T, N]; ``None`` where it is not known
    :raises NonFiniteError: if the estimate is not finite; a ValueError, too, for whoever knows no other
    """
    rollout = Rollout(
        rewards=outcomes.rewards,
        values=values,
        next_values=next_values,
        terminated=outcomes.terminated,
        truncated=outcomes.truncated,
        gamma=gamma,
        behaviour_log_probs=behaviour_log_probs,
        target_log_probs=target_log_probs,
    )
    return estimate_advantages(estimator, rollout)


def evaluate_transitions(
    policy: ActorCriticPolicy,
    transitions: Transitions,
    last_inputs: PolicyInputs,
    predict: PredictValues | None = None,
) -> Evaluation:
    """Compute values and log-probabilities of a whole rollout in one batch, where they are not known already.

    :param policy: the policy
    :param transitions: the rollout
    :param last_inputs: what the policy sees after its last step, [N, …]
    :param predict: gives V(s); ``None`` for the policy's own way
    :raises NonFiniteError: if a value or a log-probability is not finite
    """
    predict = predict or make_critic(policy)
    values, log_probs = transitions.evaluated or (None, None)
    if values is None:
        shape = transitions.rewards.shape
        inputs = transitions.inputs.map(lambda array: array.reshape(-1, *array.shape[2:]))
        if log_probs is None:
            actions = transitions.actions.reshape(-1, transitions.actions.shape[-1])
            values, log_probs = (array.reshape(shape) for array in evaluate(policy, inputs, actions))
        else:
            values = predict(inputs).reshape(shape)
    assert log_probs is not None
    next_values = np.empty_like(values)
    next_values[:-1] = values[1:]
    next_values[-1] = predict(last_inputs)
    next_values[transitions.terminated] = 0.0
    put_final_values(predict, transitions, next_values)
    for name, array in (("value", values), ("value of the next state", next_values), ("log-probability", log_probs)):
        check_finite(name, array)
    return Evaluation(values, next_values, log_probs)


def put_final_values(predict: PredictValues, transitions: Transitions, next_values: np.ndarray) -> None:
    """Write V(final observation) to every truncated step.

    :param predict: gives V(s)
    :param transitions: the rollout
    :param next_values: [T, N], written to
    """
    if transitions.final_observations:
        steps, envs = zip(*transitions.final_observations, strict=True)
        finals = PolicyInputs(stack(list(transitions.final_observations.values())))
        next_values[steps, envs] = predict(finals)


def check_transitions(transitions: Transitions, last_inputs: PolicyInputs) -> None:
    """Refuse a rollout with NaN or infinity in its observations or rewards.

    :param transitions: the rollout
    :param last_inputs: what the policy sees after its last step, [N, …]
    :raises NonFiniteError: naming the first offending step and environment
    """
    check_finite("reward", transitions.rewards)
    for array in arrays_of(transitions.observations):
        check_finite("observation", array)
    finals = [(f"after step {t} in environment {n}", obs) for (t, n), obs in transitions.final_observations.items()]
    for place, obs in [*finals, ("after the last step", last_inputs.observations)]:
        if not all(np.isfinite(array).all() for array in arrays_of(obs)):
            raise NonFiniteError(f"observation with NaN or infinity {place} of the rollout")
