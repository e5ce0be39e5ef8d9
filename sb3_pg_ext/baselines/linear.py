"""A regression of returns on observations and time."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sb3_pg_ext.arguments import check_positive
from sb3_pg_ext.baselines.episodes import Episodes


@dataclass(frozen=True)
class Linear:
    """Ridge regression of the batch's own returns on the observation, its square, t, t², t³ and 1 (Duan et al. 2016).

    In closed form, w = (ΦᵀΦ/B + λI)⁻¹ΦᵀG/B and b = Ḡ + Φw, with the features Φ scaled to mean 0 and standard
    deviation 1 over the batch. A dictionary of observations is flattened into one vector; discrete ones count as
    numbers.

    Each step's own return is part of the regression, which shrinks the expected gradient, the more so the fewer steps
    there are for each feature.

    Deviations from Duan et al. (https://arxiv.org/abs/1604.06778): they clip observations at ±10 and scale nothing, and
    add λ to ΦᵀΦ without dividing by B; their code predicts with the weights of the batch before.

    :param ridge: λ
    :raises ValueError: if ``ridge`` is not positive
    """

    max_observation_size: ClassVar[int] = 1000

    ridge: float = 1e-5

    def __post_init__(self) -> None:
        check_positive("ridge", self.ridge, allowed="a positive number")

    def __call__(self, episodes: Episodes) -> np.ndarray:
        """What the regression predicts of every step, [B]."""
        features, returns = _features(episodes), episodes.returns.astype(np.float64)
        gram = features.T @ features / len(returns) + self.ridge * np.eye(features.shape[1])
        weights = np.linalg.solve(gram, features.T @ (returns - returns.mean()) / len(returns))
        return (returns.mean() + features @ weights).astype(np.float32)


def _features(episodes: Episodes) -> np.ndarray:
    """[B, 2·size of an observation + 3], float64, each column of mean 0 and standard deviation 1."""
    observations = episodes.observations
    arrays = observations.values() if isinstance(observations, dict) else [observations]
    obs = _standardise(
        np.concatenate([array.reshape(len(episodes.t), -1) for array in arrays], axis=1, dtype=np.float64)
    )
    t = _standardise(episodes.t[:, None].astype(np.float64))
    return _standardise(np.concatenate([obs, obs**2, t, t**2, t**3], axis=1))


def _standardise(columns: np.ndarray) -> np.ndarray:
    """Scale columns to mean 0 and standard deviation 1; one that is constant up to rounding becomes 0."""
    centred = columns - columns.mean(axis=0)
    deviation = centred.std(axis=0)
    varies = deviation > 1e-7 * np.abs(columns).max(axis=0)
    return np.divide(centred, deviation, out=np.zeros_like(centred), where=varies)
