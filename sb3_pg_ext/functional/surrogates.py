"""Losses of policies and critics as functions of what is computed for every sample, with their derivatives.

An update asks a policy for log π(a|s), V(s) and so on, [batch] each; a loss says what they are worth and in which
direction to change them. How that direction reaches the parameters is not its business.
"""

from typing import NamedTuple

import numpy as np

from sb3_pg_ext.functional.arrays import mean


class Loss(NamedTuple):
    """A loss and its gradient.

    :param value: the loss
    :param gradient: its derivatives with respect to the first argument of the function that gave it, shape [batch]
    """

    value: float
    gradient: np.ndarray


def policy_gradient_loss(log_probs: np.ndarray, advantages: np.ndarray, denominator: float) -> Loss:
    """The pseudo-loss whose gradient is the negative policy gradient, −(1/d) Σ_j log π(a_j|s_j)·A_j.

    With d the number of episodes it is the gradient of the expected return (Williams, 1992); with d the number of
    steps it has the same direction, whatever the length of the episodes.

    :param log_probs: log π(a|s) of the actions taken, shape [batch]
    :param advantages: what each log-probability is weighted with, shape [batch]
    :param denominator: d
    """
    weights = advantages / -denominator
    return Loss(float(log_probs @ weights), weights)


def ratio_loss(
    log_probs: np.ndarray, old_log_probs: np.ndarray, advantages: np.ndarray, clip_range: float | None = None
) -> Loss:
    """The negative surrogate objective of a policy that did not act itself.

        −mean(r·A),  or with a clip range ε  −mean(min(r·A, clip(r, 1 − ε, 1 + ε)·A)),  r = π(a|s) / π_old(a|s)

    The second is a lower bound on the first, and has no gradient where r has left [1 − ε, 1 + ε] in the direction that
    A calls for (Schulman et al., 2017, https://arxiv.org/abs/1707.06347, equations 6 and 7).

    :param log_probs: log π(a|s), shape [batch]
    :param old_log_probs: log π_old(a|s), shape [batch]
    :param advantages: A, shape [batch]
    :param clip_range: ε; ``None`` for no clipping
    """
    ratios = np.exp(log_probs - old_log_probs)
    objective = ratios * advantages
    gradient = objective / -len(ratios)
    if clip_range is not None:
        clipped = np.minimum(np.maximum(ratios, 1 - clip_range), 1 + clip_range) * advantages
        gradient[objective > clipped] = 0  # also where a ratio overflows; a NaN shows
        objective = np.minimum(objective, clipped)
    return Loss(-mean(objective), gradient)


def value_loss(
    values: np.ndarray, returns: np.ndarray, old_values: np.ndarray | None = None, clip_range: float | None = None
) -> Loss:
    """The critic's mean squared error, as SB3's PPO has it.

        mean((V' − R)²),  V' = V,  or with a clip range ε  V' = V_old + clip(V − V_old, −ε, ε)

    :param values: V(s), shape [batch]
    :param returns: R, shape [batch]
    :param old_values: V(s) before the update, shape [batch]; needed for clipping alone
    :param clip_range: ε, in units of the return; ``None`` for no clipping
    """
    if clip_range is None:
        errors = values - returns
        return Loss(float(errors @ errors) / len(errors), errors * (2 / len(errors)))
    change = values - old_values
    errors = old_values + np.minimum(np.maximum(change, -clip_range), clip_range) - returns
    return Loss(float(errors @ errors) / len(errors), errors * (2 / len(errors)) * (np.abs(change) <= clip_range))


def ratio_statistics(log_probs: np.ndarray, old_log_probs: np.ndarray, clip_range: float) -> tuple[float, float]:
    """What tells how far a policy has moved from the one that acted: mean(r − 1 − log r), and mean(|r − 1| > ε).

    The first estimates KL(old‖π) from the actions that were taken (http://joschu.net/blog/kl-approx.html).

    :param log_probs: log π(a|s), shape [batch]
    :param old_log_probs: log π_old(a|s), shape [batch]
    :param clip_range: ε
    """
    log_ratios = log_probs - old_log_probs
    deviations = np.expm1(log_ratios)
    return mean(deviations - log_ratios), mean(np.abs(deviations) > clip_range)


def td_loss(errors: np.ndarray, kind: str = "mse") -> Loss:
    """The loss of temporal differences Q − y: of every column the mean, and of these the sum.

        "mse": (Q − y)²,  "huber": ½(Q − y)² within ±1 and |Q − y| − ½ beyond

    :param errors: Q − y, shape [batch, heads]
    :param kind: ``"mse"`` or ``"huber"``
    """
    n_samples = len(errors)
    if kind == "mse":
        return Loss(float(np.vdot(errors, errors)) / n_samples, errors * (2 / n_samples))
    bounded = np.clip(errors, -1, 1)
    return Loss(float(np.vdot(bounded, errors - 0.5 * bounded)) / n_samples, bounded / n_samples)


def normalize(advantages: np.ndarray) -> np.ndarray:
    """Scale advantages to mean 0 and standard deviation 1, as SB3 does; a single one is left alone.

    :param advantages: shape [batch]
    """
    if len(advantages) < 2:
        return advantages
    centred = advantages - advantages.mean()
    wide = centred.astype(np.float64)  # squares of large numbers overflow in single precision
    deviation = np.sqrt(wide @ wide / (len(wide) - 1))
    return centred / centred.dtype.type(deviation + 1e-8)
