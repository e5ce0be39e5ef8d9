"""Gaussian actions that a tanh squashes into (−1, 1), with their derivatives in closed form.

With noise ε ~ N(0, I), u = μ + σ·ε and a = tanh(u):

    log π(a|s) = Σ_d [−½ε² − log σ − ½ log 2π − log(1 − tanh²(u))]

The last logarithm is computed as 2(log 2 − |u| − log(1 + exp(−2|u|))), which is exact for every u, where SB3 adds 10⁻⁶
within it.
"""

import math

import numpy as np

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0
"""Log σ is cut off there, as in SB3; beyond them it has no derivative."""


class SquashedGaussian:
    """Samples of a batch of distributions, with log-probabilities.

    :param mean: μ, [B, d]
    :param log_std: log σ before it is cut off, [B, d]
    :param noise: ε, [B, d]

    ``actions`` are a, [B, d], and ``log_probs`` are log π(a|s), [B].
    """

    def __init__(self, mean: np.ndarray, log_std: np.ndarray, noise: np.ndarray) -> None:
        bounded = np.minimum(np.maximum(log_std, LOG_STD_MIN), LOG_STD_MAX)
        self._is_free = bounded == log_std
        self._std, self._noise = np.exp(bounded), noise
        self._shift = self._std * noise
        u = mean + self._shift
        self.actions = np.tanh(u)
        size = np.abs(u)
        log_slope = 2 * (math.log(2) - size - np.log1p(np.exp(-2 * size)))
        self._slope = np.exp(log_slope)
        self.log_probs = -(0.5 * noise * noise + bounded + 0.5 * math.log(2 * math.pi) + log_slope).sum(1)

    def pathwise(self, of_actions: np.ndarray, of_log_probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The gradient of Σ c·a + Σ w·log π(a|s), where a = tanh(μ + σ·ε) moves with the parameters and ε stays.

        :param of_actions: c, [B, d]
        :param of_log_probs: w, [B]
        :return: with respect to μ and log σ, [B, d] each
        """
        w = of_log_probs[:, None]
        of_mean = self._slope * of_actions + 2 * w * self.actions
        return of_mean, (of_mean * self._shift - w) * self._is_free

    def score(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The gradient of Σ w·log π(a|s), where a stays.

        :param weights: w, [B]
        :return: with respect to μ and log σ, [B, d] each
        """
        w = weights[:, None]
        return w * self._noise / self._std, w * (self._noise * self._noise - 1) * self._is_free
