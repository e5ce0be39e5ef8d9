"""Compatible function approximation: a critic that is linear in the policy's own scores.

    Q(s, a) = ωᵀψ(s, a) + vᵀφ(s),   ψ = ∇_θ log π(a|s)

With the ω that has the least squared error E[ψ·Q] is the exact policy gradient, however wrong Q is elsewhere (Sutton et
al., 2000); and ω is the natural gradient, since the normal equations are Fω = g (Kakade, 2001). F is never formed.
"""

import numpy as np


def fit_compatible(
    scores: np.ndarray, targets: np.ndarray, features: np.ndarray | None = None, damping: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """The ω and v of least squares,

        argmin (1/B) Σ_b (y_b − ωᵀψ_b − vᵀφ_b)² + damping·‖ω‖²

    by a system of min(B, n) equations: with fewer samples than scores, the dual ω = Ψᵀ(ΨΨᵀ + damping·B·I)⁻¹y. Then
    undamped least squares would fit any noise. Features are projected out first, so that they are not damped: since
    E_a ψ = 0, they take away variance, and in expectation nothing else.

    With steps as samples and y = G_t it is a compatible critic. With episodes as samples, ψ_e = Σ_t γᵗψ_t,
    y = Σ_t γᵗr_t and a constant for φ it is the episodic natural actor-critic (Peters and Schaal, 2008).

    :param scores: Ψ, [B, n]
    :param targets: y, [B]
    :param features: φ, [B, k]; ``None`` for none
    :param damping: ≥ 0
    :return: ω, [n], and v, [k], float64
    :raises ValueError: if the arrays do not fit together, or the damping is below 0
    """
    psi, y = np.asarray(scores, np.float64), np.asarray(targets, np.float64)
    phi = np.zeros((len(y), 0)) if features is None else np.asarray(features, np.float64)
    if psi.ndim != 2 or y.shape != (len(psi),) or phi.ndim != 2 or len(phi) != len(psi):
        raise ValueError(
            f"scores of shape {psi.shape}, targets of shape {y.shape}, features of shape {phi.shape}; allowed: [B, n], "
            "[B] and [B, k]"
        )
    if not damping >= 0:
        raise ValueError(f"damping={damping!r}; allowed: a number ≥ 0")
    basis = _orthonormal(phi)
    psi = psi - basis @ (basis.T @ psi)
    rest = y - basis @ (basis.T @ y)
    n_samples, n_scores = psi.shape
    ridge = damping * n_samples
    if n_samples < n_scores:
        omega = psi.T @ _solve(psi @ psi.T, ridge, rest)
    else:
        omega = _solve(psi.T @ psi, ridge, psi.T @ rest)
    v = np.linalg.lstsq(phi, y - np.asarray(scores, np.float64) @ omega, rcond=None)[0] if phi.shape[1] else phi[0]
    return omega, v


def _orthonormal(features: np.ndarray) -> np.ndarray:
    """A basis of what the features span, [B, ≤ k]."""
    u, s, _ = np.linalg.svd(features, full_matrices=False)
    return u[:, s > 1e-10 * (s[0] if len(s) else 1.0)]


def _solve(matrix: np.ndarray, ridge: float, vector: np.ndarray) -> np.ndarray:
    """(matrix + ridge·I)⁻¹ vector; the shortest solution where the matrix is singular."""
    if ridge == 0:
        return np.linalg.lstsq(matrix, vector, rcond=1e-10)[0]
    matrix = matrix.copy()
    matrix[np.diag_indices_from(matrix)] += ridge
    return np.linalg.solve(matrix, vector)


def episode_sums(scores: np.ndarray, discounts: np.ndarray, episode_id: np.ndarray) -> np.ndarray:
    """Ψ_e = Σ_t γᵗψ_t of every episode.

    :param scores: ψ of every step, [B, n]
    :param discounts: γᵗ, [B], with t counted from the beginning of the episode
    :param episode_id: to which episode a step belongs, 0 to E − 1, [B]
    :return: [E, n], float64
    """
    sums = np.zeros((int(episode_id.max()) + 1, scores.shape[1]))
    np.add.at(sums, episode_id, np.asarray(discounts, np.float64)[:, None] * scores)
    return sums
