"""Returns and advantages of rollouts: λ-returns, GAE, n-step, V-trace and UPGO.

Arrays are time-major, [T, N]: T steps of N environments side by side. An estimate of the advantage is a weighted sum of
temporal differences δ, so every function below starts from :func:`td_errors` and ends in one of two sums: the whole
discounted sum or its first n terms. Adding V(s_t) to an advantage gives the return that it stands for; with GAE, the
λ-return. The dtype of the input is kept, float32 with float32 rounding at every step.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]

MAX_SCALAR_COLUMNS = 4  # up to here scalar arithmetic is faster than one ufunc call a step


def discounted_sum(x: Floats, discounts: Floats) -> Floats:
    """Discounted sum of everything from step t on.

        y_t = x_t + d_t·y_{t+1},   t = T−1, …, 0,   y_T = 0

    A discount of zero at step t cuts the sum after x_t.

    :param x: terms x_t, [T, N]
    :param discounts: discounts d_t between the steps t and t+1, [T, N]; d_{T−1} is unused
    :return: sums y_t, [T, N]
    :raises ValueError: if the arrays differ in shape or dtype
    """
    _check_alike(x=x, discounts=discounts)
    y = np.empty_like(x)
    if x.shape[1] <= MAX_SCALAR_COLUMNS:
        for n in range(x.shape[1]):
            y[::-1, n] = _scalar_sums(x[::-1, n], discounts[::-1, n])
    else:
        following = np.zeros_like(x[0])
        for x_t, d_t, y_t in zip(x[::-1], discounts[::-1], y[::-1], strict=True):
            np.multiply(d_t, following, out=y_t)
            following = np.add(x_t, y_t, out=y_t)
    return y


def truncated_sum(x: Floats, discounts: Floats, n: int) -> Floats:
    """The first n terms of :func:`discounted_sum`.

        y_t = Σ_{k=0}^{n−1} (Π_{j=0}^{k−1} d_{t+j})·x_{t+k},   x_t = 0 for t ≥ T

    A sum of a + b terms is the sum of a terms from t plus the weighted sum of b terms from t+a. So the sums of 1, 2,
    4, … terms are built by doubling, and those in the binary form of n are chained: log₂ n passes instead of n.

    :param x: terms x_t, [T, N]
    :param discounts: discounts d_t between the steps t and t+1, [T, N]
    :param n: number of terms, at least 1
    :return: sums y_t, [T, N]
    :raises ValueError: if the arrays differ in shape or dtype
    """
    _check_alike(x=x, discounts=discounts)
    n = min(n, len(x))
    y, weights, length = np.zeros_like(x), np.ones_like(x), 0
    block, block_weights, size = x.copy(), discounts.copy(), 1
    while size <= n:
        if n & size:
            y[: len(x) - length] += weights[: len(x) - length] * block[length:]
            weights[: len(x) - length] *= block_weights[length:]
            length += size
        block[:-size] += block_weights[:-size] * block[size:]
        block_weights[:-size] *= block_weights[size:]
        size *= 2
    return y


def td_errors(rewards: Floats, discounts: Floats, values: Floats, next_values: Floats) -> Floats:
    """Temporal differences.

        δ_t = r_t + d_t·V(s_{t+1}) − V(s_t),   t = 0, …, T−1

    :param rewards: r_t, [T, N]
    :param discounts: d_t = γ·(1 − terminated_t), [T, N]
    :param values: V(s_t), [T, N]
    :param next_values: V(s_{t+1}), that of the terminal observation where an episode is truncated, [T, N]
    :return: δ_t, [T, N]
    :raises ValueError: if the arrays differ in shape or dtype
    """
    _check_alike(rewards=rewards, discounts=discounts, values=values, next_values=next_values)
    return rewards + discounts * next_values - values


def gae(deltas: Floats, episode_ends: Bools, gamma: float, gae_lambda: float) -> Floats:
    """Generalised advantage estimation (Schulman et al. 2016, https://arxiv.org/abs/1506.02438, equation 16).

        A_t = δ_t + γλ·(1 − end_t)·A_{t+1},   A_T = 0

    λ = 1 gives the Monte-Carlo advantage G_t − V(s_t), where G_t sums the discounted rewards and bootstraps where the
    episode or the rollout is cut; λ = 0 gives δ_t. A_t + V(s_t) is the λ-return. The order of operations is that of
    SB3's rollout buffer: in float32 both agree bit by bit.

    :param deltas: temporal differences δ_t, [T, N]
    :param episode_ends: whether step t is the last of its episode, terminated or truncated, [T, N]
    :param gamma: discount factor γ
    :param gae_lambda: λ, from bias (0) to variance (1)
    :return: advantages A_t, [T, N]
    """
    return discounted_sum(deltas, _within_episodes(gamma * gae_lambda, episode_ends, deltas))


def n_step(deltas: Floats, episode_ends: Bools, gamma: float, n: int) -> Floats:
    """Advantages of n rewards followed by a bootstrap (Sutton & Barto 2018, equation 7.1).

        A_t = Σ_{k=0}^{m−1} γ^k·δ_{t+k} = r_t + γ·r_{t+1} + … + γ^m·V(s_{t+m}) − V(s_t)

    with m = n, or fewer where the episode or the rollout ends earlier.

    :param deltas: temporal differences δ_t, [T, N]
    :param episode_ends: whether step t is the last of its episode, terminated or truncated, [T, N]
    :param gamma: discount factor γ
    :param n: number of steps, at least 1
    :return: advantages A_t, [T, N]
    """
    return truncated_sum(deltas, _within_episodes(gamma, episode_ends, deltas), n)


def vtrace(
    deltas: Floats,
    episode_ends: Bools,
    gamma: float,
    log_ratios: Floats,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
    lambda_: float = 1.0,
) -> tuple[Floats, Floats]:
    """V-trace (Espeholt et al. 2018, https://arxiv.org/abs/1802.01561, equation 1), with their remark 2's λ.

        ρ_t = min(ρ̄, π(a_t|s_t) / μ(a_t|s_t)),   c_t = λ·min(c̄, π(a_t|s_t) / μ(a_t|s_t))
        v_t − V(s_t) = ρ_t·δ_t + γ·(1 − end_t)·c_t·(v_{t+1} − V(s_{t+1}))
        A_t = r_t + γ·[λ·v_{t+1} + (1 − λ)·V(s_{t+1})] − V(s_t) = δ_t + γλ·(1 − end_t)·(v_{t+1} − V(s_{t+1}))

    with v = V where the episode or the rollout is cut. Deviation from the paper: A_t comes *without* the factor ρ_t of
    its policy gradient. An objective in log π multiplies by ρ_t itself; an objective in the ratio has it already.

    :param deltas: temporal differences δ_t, [T, N]
    :param episode_ends: whether step t is the last of its episode, terminated or truncated, [T, N]
    :param gamma: discount factor γ
    :param log_ratios: log π(a_t|s_t) − log μ(a_t|s_t), target policy π over behaviour policy μ, [T, N]
    :param rho_bar: ρ̄, the cap of the ratio that weighs δ_t: it decides the fixed point
    :param c_bar: c̄ ≤ ρ̄, the cap of the ratio in the trace: it decides how fast the fixed point is reached
    :param lambda_: λ, from bias (0) to variance (1)
    :return: advantages A_t and corrections of the values v_t − V(s_t), both [T, N]
    :raises ValueError: if the arrays differ in shape or dtype
    """
    _check_alike(deltas=deltas, log_ratios=log_ratios)
    with np.errstate(over="ignore"):  # a ratio beyond the range of floats is capped like any other
        ratios = np.exp(log_ratios)
    traces = _within_episodes(gamma * lambda_, episode_ends, deltas)
    rho = np.minimum(rho_bar, ratios, dtype=deltas.dtype)
    c = np.minimum(c_bar, ratios, dtype=deltas.dtype)
    corrections = discounted_sum(rho * deltas, traces * c)
    advantages = deltas.copy()
    advantages[:-1] += traces[:-1] * corrections[1:]
    return advantages, corrections


def upgo(deltas: Floats, episode_ends: Bools, gamma: float) -> Floats:
    """Upgoing advantages (Vinyals et al. 2019, https://doi.org/10.1038/s41586-019-1724-z, methods).

        A_t = δ_t + γλ_t·(1 − end_t)·A_{t+1},   λ_t = 1 if δ_{t+1} ≥ 0 else 0,   A_T = 0

    The rewards that were seen count for as long as they go at least as well as the values said; then V takes over.

    :param deltas: temporal differences δ_t, [T, N]
    :param episode_ends: whether step t is the last of its episode, terminated or truncated, [T, N]
    :param gamma: discount factor γ
    :return: advantages A_t, [T, N]
    """
    discounts = _within_episodes(gamma, episode_ends, deltas)
    discounts[:-1] *= deltas[1:] >= 0
    return discounted_sum(deltas, discounts)


def _scalar_sums(x: Floats, discounts: Floats) -> list[np.floating]:
    """The recursion of :func:`discounted_sum` along one column, given and returned last step first."""
    y = x.dtype.type(0)
    sums = []
    for x_t, d_t in zip(x, discounts, strict=True):
        y = x_t + d_t * y
        sums.append(y)
    return sums


def _within_episodes(factor: float, episode_ends: Bools, like: Floats) -> Floats:
    """``factor`` where an episode goes on and 0 where it ends."""
    if episode_ends.shape != like.shape:
        raise ValueError(f"episode_ends has the shape {episode_ends.shape}, deltas {like.shape}; they must be the same")
    return np.where(episode_ends, 0.0, factor).astype(like.dtype)


def _check_alike(**arrays: Floats) -> None:
    """Nothing is broadcast or promoted in silence."""
    (name, first), *others = arrays.items()
    if first.ndim != 2:
        raise ValueError(f"{name} has the shape {first.shape}, but must be [T, N]")
    for other_name, other in others:
        if other.shape != first.shape or other.dtype != first.dtype:
            raise ValueError(
                f"{other_name} is {other.dtype} of shape {other.shape}, {name} is {first.dtype} of shape "
                f"{first.shape}; they must be the same"
            )
