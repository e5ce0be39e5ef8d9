"""What samples of one policy, μ, say of another, π: importance sampling. NumPy, float64, in the logarithms of ratios.

Estimates of J(π) = E_π[Σ_t γᵗ r_t] take m episodes of μ as tables [m, T], of T steps at most. Where an episode has
ended its row goes on with zeros: rewards 0, log-ratios 0. With ρ_{i,t} = Π_{k≤t} π(a_k|s_k) / μ(a_k|s_k) of episode i,

- :func:`trajectory`:  (1/m) Σ_i ρ_{i,T} Σ_t γᵗ r_{i,t}
- :func:`per_decision`:  (1/m) Σ_i Σ_t γᵗ ρ_{i,t} r_{i,t}: a reward has nothing to do with later actions
- :func:`doubly_robust`:  (1/m) Σ_i Σ_t γᵗ [ρ_{i,t}(r_{i,t} − q_{i,t}) + ρ_{i,t−1} v_{i,t}], with a model's Q and V

and their self-normalised versions, ``normalized=True``, which divide by Σ_i ρ_{i,t} in place of m. The first three are
unbiased, the last with any q and v = E_π q that do not depend on the episodes. The normalised ones are consistent, with
a bias O(1/m), and with less variance: no reward counts more than wholly. Of a single episode they say its own return.

Sources: Precup, Sutton, Singh 2000 (trajectory, per decision, and both normalised); Jiang, Li 2016,
https://arxiv.org/abs/1511.03722 (doubly robust); Thomas, Brunskill 2016, https://arxiv.org/abs/1604.00923 (that one
normalised, WDR).
"""

from typing import NamedTuple

import numpy as np

from sb3_pg_ext.arguments import check_range
from sb3_pg_ext.functional.returns import discounted_sum


class OffPolicyEstimate(NamedTuple):
    """An estimate of J(π) from m episodes of another policy.

    :param value: the estimate
    :param contributions: one number for each episode, whose mean is the estimate, and whose standard deviation, divided
        by √m, is its standard error, [m]; where weights are normalised, to first order in 1/m
    :param gradient: ∂value/∂log π(a_t|s_t), [m, T]: what ∇log π is to be multiplied with. So Σ gradient·∇log π is the
        gradient of the estimate, an estimate of ∇J(π); with μ = π it is an on-policy one. Where an episode has ended
        it has no meaning.
    :param value_gradient: ∂value/∂v_{i,t}, [m, T], for the part of the gradient that goes by v = E_π q; ``None``
        without v
    """

    value: float
    contributions: np.ndarray
    gradient: np.ndarray
    value_gradient: np.ndarray | None = None

    @property
    def standard_error(self) -> float:
        """The standard error of the estimate; NaN of a single episode."""
        m = len(self.contributions)
        return float(self.contributions.std(ddof=1) / np.sqrt(m)) if m > 1 else float("nan")


def trajectory(
    rewards: np.ndarray, log_ratios: np.ndarray, gamma: float, normalized: bool = False
) -> OffPolicyEstimate:
    """Weigh whole episodes.

    :param rewards: r_t, [m, T]; 0 where an episode has ended
    :param log_ratios: log π(a_t|s_t) − log μ(a_t|s_t), [m, T]; 0 where an episode has ended
    :param gamma: discount factor γ
    :param normalized: whether to divide by the sum of the weights
    :raises ValueError: if γ lies outside [0, 1], or for anything but arrays of one shape [m, T] that are not empty
    """
    _check_arrays(gamma, "[m, T]", rewards=rewards, log_ratios=log_ratios)
    returns = (np.float64(rewards) * _discounts(rewards, gamma)).sum(axis=1, keepdims=True)
    log_weights = log_ratios.sum(axis=1, keepdims=True, dtype=np.float64)
    value, pieces = _weigh(log_weights, returns, normalized)
    return OffPolicyEstimate(value, _contributions(value, pieces, normalized), np.broadcast_to(pieces, rewards.shape))


def per_decision(
    rewards: np.ndarray, log_ratios: np.ndarray, gamma: float, normalized: bool = False
) -> OffPolicyEstimate:
    """Weigh every reward with the actions up to it.

    :param rewards: r_t, [m, T]; 0 where an episode has ended
    :param log_ratios: log π(a_t|s_t) − log μ(a_t|s_t), [m, T]; 0 where an episode has ended
    :param gamma: discount factor γ
    :param normalized: whether to divide, at every time, by the sum of the weights
    :raises ValueError: if γ lies outside [0, 1], or for anything but arrays of one shape [m, T] that are not empty
    """
    _check_arrays(gamma, "[m, T]", rewards=rewards, log_ratios=log_ratios)
    value, pieces = _weigh(_until(log_ratios), rewards * _discounts(rewards, gamma), normalized)
    return OffPolicyEstimate(value, _contributions(value, pieces, normalized), _from_here_on(pieces))


def doubly_robust(
    rewards: np.ndarray,
    log_ratios: np.ndarray,
    q: np.ndarray,
    v: np.ndarray,
    gamma: float,
    normalized: bool = True,
) -> OffPolicyEstimate:
    """Weigh what a model of the values does not know. With ``normalized`` this is the weighted doubly robust estimate.

    Its gradient at μ = π is the policy gradient with the baseline q(s_t, a_t) and its correction.

    :param rewards: r_t, [m, T]; 0 where an episode has ended
    :param log_ratios: log π(a_t|s_t) − log μ(a_t|s_t), [m, T]; 0 where an episode has ended
    :param q: the model's Q(s_t, a_t), [m, T]; 0 where an episode has ended
    :param v: its expectation under π, V(s_t) = E_{a~π} Q(s_t, a), [m, T]; 0 where an episode has ended
    :param gamma: discount factor γ
    :param normalized: whether to divide, at every time, by the sum of the weights
    :raises ValueError: if γ lies outside [0, 1], or for anything but arrays of one shape [m, T] that are not empty
    """
    _check_arrays(gamma, "[m, T]", rewards=rewards, log_ratios=log_ratios, q=q, v=v)
    discounts, log_weights = _discounts(rewards, gamma), _until(log_ratios)
    log_weights_before = np.pad(log_weights, ((0, 0), (1, 0)))[:, :-1]
    of_rewards, pieces = _weigh(log_weights, (rewards - q) * discounts, normalized)
    of_values, pieces_before = _weigh(log_weights_before, v * discounts, normalized)
    value, gradient = of_rewards + of_values, _from_here_on(pieces)
    gradient[:, :-1] += _from_here_on(pieces_before[:, 1:])
    value_gradient = discounts * _weights(log_weights_before, normalized)
    contributions = _contributions(value, np.concatenate([pieces, pieces_before], axis=1), normalized)
    return OffPolicyEstimate(value, contributions, gradient, value_gradient)


def weighted_steps(
    rewards: np.ndarray,
    log_ratios: np.ndarray,
    t: np.ndarray,
    gamma: float,
    per_decision: bool,
    max_ratio: float = np.inf,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns and weights for policy gradients Σ_t w_t ∇log π(a_t|s_t)(G_t − b_t) from another policy's episodes.

    With ρ_t = π(a_t|s_t) / μ(a_t|s_t), and every ratio and product of ratios cut at c = ``max_ratio``:

    - per decision,  w_t = min(c, Π_{k≤t} ρ_k)  and  G_t = r_t + γ·min(c, ρ_{t+1})·G_{t+1}.  With c = ∞ there is no
      bias, whatever μ, and the variance grows with the length of episodes.
    - else  w_t = min(c, ρ_t)  and  G_t = r_t + γ·G_{t+1}:  the gradient of E_{s~ρ^μ,a~μ}[π/μ·A_μ], in which states
      come, and episodes go on, as under μ. At π = μ it is the policy gradient; its bias is of the first order in π − μ.

    :param rewards: r_t, episode by episode, [B]
    :param log_ratios: log ρ_t, [B]
    :param t: the step within the episode, which begins with 0, [B]
    :param gamma: discount factor γ
    :param per_decision: which of the two
    :param max_ratio: c
    :return: G_t and w_t, [B] each, float64
    :raises ValueError: if γ lies outside [0, 1], or for anything but arrays of one shape [B] that are not empty
    """
    _check_arrays(gamma, "[B]", rewards=rewards, log_ratios=log_ratios, t=t)
    log_ratios, starts = np.float64(log_ratios), t == 0
    following, log_weights = np.full(len(t), float(gamma)), log_ratios
    if per_decision:
        total = np.cumsum(log_ratios)
        log_weights = total - (total - log_ratios)[starts][np.cumsum(starts) - 1]
        following[:-1] *= cut(log_ratios[1:], max_ratio)
    following[:-1][starts[1:]] = 0
    returns = discounted_sum(np.float64(rewards)[:, None], following[:, None])[:, 0]
    return returns, cut(log_weights, max_ratio)


def cut(log_ratios: np.ndarray, max_ratio: float) -> np.ndarray:
    """Min(c, ρ), of the logarithms of ratios however large.

    :param log_ratios: log ρ
    :param max_ratio: c
    """
    return np.exp(np.minimum(log_ratios, np.log(max_ratio)))


def ratio_variance(values: np.ndarray, log_p: np.ndarray, log_q: np.ndarray) -> float:
    """Var_q[f p/q] = E_p[f² p/q] − (E_p f)²: the variance of one importance-sampled number, a sum over all outcomes.

    It is least with q ∝ |f| p, and infinite where q is 0 and f p is not.

    :param values: f of every outcome, [n]
    :param log_p: the logarithms of its probabilities under the distribution of interest, [n]
    :param log_q: likewise under that which is sampled from, [n]
    """
    p, log_ratios = np.exp(np.float64(log_p)), np.float64(log_p) - log_q
    return float((p * _product(log_ratios, np.square(values))).sum() - (p @ values) ** 2)


def estimate_ratio_variance(values: np.ndarray, log_ratios: np.ndarray) -> float:
    """The same from samples of p, with means in place of expectations: what it would cost to sample from q instead.

    :param values: f of every sample, [n]
    :param log_ratios: log p − log q of every sample, [n]
    """
    return float(_product(np.float64(log_ratios), np.square(values)).mean() - np.mean(values, dtype=np.float64) ** 2)


def effective_sample_size(ratios: np.ndarray) -> float:
    """Kish's effective sample size (Σr)² / Σr² as a fraction of the number of samples: 1 if all ratios are equal.

    It is blind to what the ratios are multiplied with: :func:`ratio_variance` is not.

    :param ratios: not all 0
    """
    scaled = ratios / ratios.max()  # whose squares do not overflow
    return float(scaled.mean() ** 2 / np.square(scaled).mean())


def fraction_outside(ratios: np.ndarray, clip_range: float) -> float:
    """Which fraction of the ratios lies outside [1 − ε, 1 + ε].

    :param ratios: the ratios
    :param clip_range: ε
    """
    return float((np.abs(ratios - 1) > clip_range).mean())


def _check_arrays(gamma: float, axes: str, **arrays: np.ndarray) -> None:
    """Nothing is broadcast, and no estimate is made of nothing."""
    check_range("gamma", gamma, 0, 1)
    first, n_axes = next(iter(arrays)), len(axes.split())
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise ValueError(f"{name} is a {type(array).__name__}; allowed: a NumPy array {axes}")
        if array.ndim != n_axes or not array.size:
            raise ValueError(f"{name} has the shape {array.shape}; allowed: {axes}, not empty")
        if array.shape != arrays[first].shape:
            raise ValueError(f"{name} has the shape {array.shape}; allowed: {arrays[first].shape}, as {first}")


def _discounts(rewards: np.ndarray, gamma: float) -> np.ndarray:
    return np.float64(gamma) ** np.arange(rewards.shape[1])


def _until(log_ratios: np.ndarray) -> np.ndarray:
    """log ρ_{i,t}, [m, T]."""
    return np.cumsum(log_ratios, axis=1, dtype=np.float64)


def _from_here_on(pieces: np.ndarray) -> np.ndarray:
    """Σ_{k≥t}, [m, T]."""
    return np.flip(np.cumsum(np.flip(pieces, 1), axis=1), 1)


def _weights(log_weights: np.ndarray, normalized: bool) -> np.ndarray:
    """What numbers are multiplied with, [m, T]: of every column the weights by their sum, or by their number."""
    if normalized:
        weights = np.exp(log_weights - log_weights.max(axis=0))
        return weights / weights.sum(axis=0)
    return _product(log_weights, np.ones(1)) / len(log_weights)


def _weigh(log_weights: np.ndarray, numbers: np.ndarray, normalized: bool) -> tuple[float, np.ndarray]:
    """The weighted sum of the numbers of all columns, and its derivatives with respect to the log-weights, [m, T]."""
    if normalized:
        weights = _weights(log_weights, normalized)
        means = (weights * numbers).sum(axis=0)
        return float(means.sum()), weights * (numbers - means)
    pieces = _product(log_weights, numbers) / len(numbers)
    return float(pieces.sum()), pieces


def _product(log_weights: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """exp(log w)·x, which overflows only if the product does."""
    with np.errstate(divide="ignore", over="ignore"):
        return np.sign(numbers) * np.exp(log_weights + np.log(np.abs(numbers, dtype=np.float64)))


def _contributions(value: float, pieces: np.ndarray, normalized: bool) -> np.ndarray:
    """Of every episode, [m]; where weights are normalised, the derivatives are deviations from the estimate already."""
    return value * normalized + len(pieces) * pieces.sum(axis=1)
