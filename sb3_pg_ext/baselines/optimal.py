"""The baselines that minimise the variance of the gradient, estimated from its samples.

g = Σ_t w_t ∇log π(a_t|s_t) and X = Σ_t w_t G_t ∇log π(a_t|s_t) are those of an episode, w_t is 1 or γᵗ. REINFORCE's
estimate is the mean of X − b g over the episodes. Since E g = 0, the trace of its covariance is E‖X‖² − 2b E⟨X, g⟩ +
b² E‖g‖² up to a constant, a parabola in b.
"""

from dataclasses import dataclass

import numpy as np

from sb3_pg_ext.arguments import check_flag
from sb3_pg_ext.baselines.episodes import Episodes


@dataclass(frozen=True)
class Optimal:
    """b = E⟨X, g⟩/E‖g‖², the number that minimises the total variance of REINFORCE's estimate.

    With total returns it is Peters & Schaal's E[‖g‖²R]/E[‖g‖²] (2008, https://doi.org/10.1016/j.neunet.2008.02.003); as
    for rewards to go (Greensmith et al. 2004), X is the estimator in use.

    Expectations are means over the batch. The same episodes then make b and the gradient, which biases it by O(1/m),
    unless ``cross_fit``.

    :param per_time_step: whether b is a number for every time step s, b_s = E⟨X, g_s⟩/E‖g_s‖² with
        g_s = w_s ∇log π(a_s|s_s), 0 for episodes that do not reach s
    :param cross_fit: whether b of an episode is estimated from all others; 0 where these have no score to
        estimate it from
    """

    per_time_step: bool = False
    cross_fit: bool = False

    def __post_init__(self) -> None:
        check_flag("per_time_step", self.per_time_step)
        check_flag("cross_fit", self.cross_fit)

    @property
    def needs_episodes(self) -> int:
        """At least two for cross-fitting."""
        return 2 if self.cross_fit else 1

    def __call__(self, episodes: Episodes) -> np.ndarray:
        """b, at every step, [B]."""
        if self.per_time_step:
            products, squares = map(episodes.by_time, _products_of_steps(episodes))
            return _minimise(products, squares, self.cross_fit)[episodes.episode_id, episodes.columns]
        g, x = episodes.gradients
        products, squares = ((a * g).sum(axis=1, keepdims=True) for a in (x, g))
        return _minimise(products, squares, self.cross_fit)[episodes.episode_id, 0]


@dataclass(frozen=True)
class OptimalPerComponent:
    """b_k = E[X_k g_k]/E[g_k²] for every component k of the gradient (Peters & Schaal 2008).

    Each minimises the variance of its component, so that together they leave less variance than any one number, as far
    as they are known: every one is estimated from the m episodes of the batch.

    :param cross_fit: as in :class:`Optimal`
    """

    cross_fit: bool = False

    def __post_init__(self) -> None:
        check_flag("cross_fit", self.cross_fit)

    @property
    def needs_episodes(self) -> int:
        """At least two for cross-fitting."""
        return 2 if self.cross_fit else 1

    def __call__(self, episodes: Episodes) -> np.ndarray:
        """b, of every episode for every component, [m, n]."""
        g, x = episodes.gradients
        return _minimise(x * g, g * g, self.cross_fit)


def _products_of_steps(episodes: Episodes) -> tuple[np.ndarray, np.ndarray]:
    """⟨X, g_t⟩ and ‖g_t‖² of every step, [B] each."""
    _, x = episodes.gradients
    products, squares = np.empty((2, len(episodes.t)))
    for part, rows in episodes.weighted_scores():
        products[part] = np.einsum("bn,bn->b", x[episodes.episode_id[part]], rows)
        squares[part] = np.einsum("bn,bn->b", rows, rows)
    return products, squares


def _minimise(products: np.ndarray, squares: np.ndarray, cross_fit: bool) -> np.ndarray:
    """The minimum of b² E[squares] − 2b E[products], column by column, for every episode.

    :param products: one row for every episode, [m, k]
    :param squares: [m, k]
    :param cross_fit: whether the expectations for an episode are means over the others
    :return: [m, k], float32; 0 where all squares are 0
    """
    m = len(products)
    # The sum over others is not the sum over all minus one's own: no cancellation.
    included = 1 - np.eye(m) if cross_fit else np.ones((1, m))
    numerators, denominators = included @ products, included @ squares
    b = np.divide(numerators, denominators, out=np.zeros_like(numerators), where=denominators > 0)
    return np.broadcast_to(b.astype(np.float32), products.shape)
