"""Compatible critics, on problems where everything can be summed up."""

import sys
from pathlib import Path

import numpy as np
import pytest

from sb3_pg_ext.functional.compatible import episode_sums, fit_compatible

sys.path.append(str(Path(__file__).parents[1] / "baselines"))
from enumeration import POPULATION, returns_of, true_gradient

SCORES = np.concatenate([episode.scores for episode in POPULATION])
RETURNS = np.concatenate([returns_of(episode.rewards, 1.0, False) for episode in POPULATION])
N_EPISODES = len(POPULATION)
STATES = np.concatenate([episode.states for episode in POPULATION])


def test_compatible_features_give_the_exact_gradient():
    """E[ψ·ωᵀψ] = ∇J, with every step of every episode, as often as it is probable."""
    omega, _ = fit_compatible(SCORES, RETURNS)
    gradient = (SCORES * (SCORES @ omega)[:, None]).sum(0) / N_EPISODES
    np.testing.assert_allclose(gradient, true_gradient(), atol=1e-9)


def test_features_of_the_state_beside_them_change_nothing_in_expectation():
    features = np.eye(2)[STATES]
    omega, v = fit_compatible(SCORES, RETURNS, features)
    gradient = (SCORES * (SCORES @ omega)[:, None]).sum(0) / N_EPISODES
    np.testing.assert_allclose(gradient, true_gradient(), atol=1e-9)
    # Σ_b over the steps in a state, of whatever time: v is the mean return there.
    np.testing.assert_allclose(v, [RETURNS[s == STATES].mean() for s in range(2)], atol=1e-9)


def test_arbitrary_features_give_a_biased_one():
    """A critic that knows of the action alone, not of the state, fitted likewise."""
    actions = np.concatenate([episode.actions for episode in POPULATION])
    features = np.eye(2)[actions]
    weights = np.linalg.lstsq(features, RETURNS, rcond=None)[0]
    gradient = (SCORES * (features @ weights)[:, None]).sum(0) / N_EPISODES
    assert np.abs(gradient - true_gradient()).max() > 0.1


@pytest.mark.parametrize("n_samples", [20, 7])
@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_the_weights_are_the_natural_gradient(n_samples, damping):
    """(F + λI) ω = g, with more samples than parameters and, for λ > 0, with fewer."""
    rng = np.random.default_rng(0)
    scores, advantages = rng.normal(size=(n_samples, 11)), rng.normal(size=n_samples)
    omega, _ = fit_compatible(scores, advantages, damping=damping)
    fisher, g = scores.T @ scores / n_samples, scores.T @ advantages / n_samples
    np.testing.assert_allclose((fisher + damping * np.eye(11)) @ omega, g, atol=1e-9)


def test_both_forms_give_the_same():
    """Primal and dual meet where a sample more or less decides."""
    rng = np.random.default_rng(0)
    scores, targets, features = rng.normal(size=(9, 10)), rng.normal(size=9), rng.normal(size=(9, 2))
    dual, v = fit_compatible(scores, targets, features, 0.2)
    centre = np.eye(9) - features @ np.linalg.pinv(features)
    psi, y = centre @ scores, centre @ targets
    primal = np.linalg.solve(psi.T @ psi + 9 * 0.2 * np.eye(10), psi.T @ y)
    np.testing.assert_allclose(dual, primal, atol=1e-9)
    np.testing.assert_allclose(v, np.linalg.pinv(features) @ (targets - scores @ dual), atol=1e-9)


def test_episodic_weights_on_a_linear_quadratic_regulator():
    """x' = x + u, r = −x² − u², u ~ N(θx, σ²), one step from x ~ N(0, s²), then −x'² alone: by hand

    J(θ) = −s²(1 + θ² + (1 + θ)²) − 2σ²,   ∇J = −2s²(1 + 2θ),   F = s²/σ²,   ω = F⁻¹∇J = −2σ²(1 + 2θ).
    """
    theta, sigma, spread = -0.2, 0.5, 1.3
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    x, z = (grid.ravel() for grid in np.meshgrid(spread * nodes, nodes))
    p = np.outer(weights, weights).ravel()
    u = theta * x + sigma * z
    returns = -(x**2) - u**2 - (x + u) ** 2
    scores = (z / sigma * x)[:, None]
    root = np.sqrt(p / p.sum())[:, None]  # least squares with weights
    omega, _ = fit_compatible(root * scores, root[:, 0] * returns, root * np.stack([np.ones_like(x), x**2], 1))
    assert omega[0] == pytest.approx(-2 * sigma**2 * (1 + 2 * theta), rel=1e-9)


def test_episodic_weights_by_enumeration():
    """With a constant for the baseline, (Cov Ψ) ω = Cov(Ψ, R), and E Ψ = 0: Fω = ∇J of whole episodes."""
    lengths = [len(episode.states) for episode in POPULATION]
    episode_id = np.repeat(np.arange(N_EPISODES), lengths)
    sums = episode_sums(SCORES, np.ones(len(SCORES)), episode_id)
    totals = np.array([episode.rewards.sum() for episode in POPULATION])
    omega, _ = fit_compatible(sums, totals, np.ones((N_EPISODES, 1)))
    fisher = sums.T @ sums / N_EPISODES
    np.testing.assert_allclose(sums.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(fisher @ omega, true_gradient(), atol=1e-9)


def test_bad_input():
    with pytest.raises(ValueError, match=r"scores of shape \(3, 2\), targets of shape \(4,\)"):
        fit_compatible(np.ones((3, 2)), np.ones(4))
    with pytest.raises(ValueError, match="damping=-1; allowed: a number ≥ 0"):
        fit_compatible(np.ones((3, 2)), np.ones(3), damping=-1)
