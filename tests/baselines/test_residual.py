"""Baselines that see the action, against sums over all actions and, for Gaussians, integrals and autograd."""

from itertools import product

import numpy as np
import pytest
import torch as th
from torch.distributions import Categorical, Normal

from sb3_pg_ext import make_baseline
from sb3_pg_ext.baselines import ActionFactors, Episodes, corrections
from sb3_pg_ext.baselines.residual import Regression

B = 5
CHOICES = (2, 3)
SEES_ACTIONS = {"q_prop": {"conservative": False}, "action_factorized": {}}
each = pytest.mark.parametrize("name", SEES_ACTIONS)


def make_episodes(kind, seed=0, actions=None):
    rng = np.random.default_rng(seed)
    if kind == "choices":
        logits = [rng.normal(size=(B, k)) for k in CHOICES]
        policy = ActionFactors(tuple(np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in logits))
        drawn = np.stack([rng.integers(k, size=B) for k in CHOICES], axis=1)
    else:
        policy = ActionFactors((), rng.normal(size=(B, 2)), np.exp(rng.normal(size=(B, 2)) / 3))
        drawn = policy.mean + policy.std * rng.normal(size=(B, 2))
    return Episodes(
        rewards=np.zeros(B, np.float32),
        returns=rng.normal(size=B).astype(np.float32),
        observations=rng.normal(size=(B, 3)).astype(np.float32),
        t=np.arange(B),
        episode_id=np.zeros(B, int),
        values=rng.normal(size=B).astype(np.float32),
        actions=drawn if actions is None else actions,
        policy=policy,
    )


def fitted(name, kind):
    baseline = make_baseline(name, **SEES_ACTIONS[name])
    for seed in (1, 2, 3):
        baseline.fit(make_episodes(kind, seed))
    return baseline


def log_prob(policy, outputs, actions):
    """Log π(a|s) with gradients in the logits of choices, or in means and logarithms of deviations."""
    if policy.mean is None:
        parts = zip(outputs, th.as_tensor(actions).T, strict=True)
        return sum(Categorical(logits=logits).log_prob(column) for logits, column in parts)
    return Normal(outputs[0], outputs[1].exp()).log_prob(th.as_tensor(actions)).sum(1)


def outputs_of(policy):
    arrays = [np.log(p) for p in policy.probabilities] or [policy.mean, np.log(policy.std)]
    return [th.tensor(array, requires_grad=True) for array in arrays]


def score(policy, actions, weights):
    """Σ_t w_t ∇log π(a_t|s_t) in the policy's outputs, one long vector."""
    outputs = outputs_of(policy)
    objective = (th.as_tensor(weights) * log_prob(policy, outputs, actions)).sum()
    return np.concatenate([g.numpy().ravel() for g in th.autograd.grad(objective, outputs)])


def of_correction(baseline, episodes):
    return sum(score(episodes.policy, *term) for term in corrections(baseline, episodes))


@each
def test_for_choices_the_correction_is_what_was_taken_away_on_average(name):
    """Σ_a π(a|s)[b(s, a)∇log π(a|s) − correction(a)] = 0, step by step."""
    baseline, taken, given = fitted(name, "choices"), 0.0, 0.0
    for a in product(*map(range, CHOICES)):
        episodes = make_episodes("choices", actions=np.tile(a, (B, 1)))
        probability = np.prod([p[:, k] for p, k in zip(episodes.policy.probabilities, a, strict=True)], axis=0)
        taken = taken + score(episodes.policy, episodes.actions, probability * baseline(episodes))
        given = given + sum(
            score(episodes.policy, actions, probability * terms) for actions, terms in corrections(baseline, episodes)
        )
    np.testing.assert_allclose(given, taken, atol=1e-6)  # baselines are float32
    assert np.abs(given).max() > 0.01


@each
def test_for_gaussians_likewise(name):
    """By Gauss-Hermite quadrature, exact for polynomials up to the 9th degree."""
    baseline, episodes = fitted(name, "Gaussian"), make_episodes("Gaussian")
    nodes, masses = np.polynomial.hermite_e.hermegauss(5)
    masses = masses / masses.sum()
    taken, given = 0.0, 0.0
    for (x, p), (y, q) in product(zip(nodes, masses, strict=True), repeat=2):
        actions = episodes.policy.mean + episodes.policy.std * [x, y]
        there = make_episodes("Gaussian", actions=actions)
        taken = taken + p * q * score(there.policy, actions, baseline(there).astype(float))
        given = given + p * q * of_correction(baseline, there)
    np.testing.assert_allclose(given, taken, atol=1e-5)
    assert np.abs(given).max() > 0.01


def test_q_prop_of_gaussians_is_that_of_the_paper():
    """b = V + ∇_aQ·(a − μ), correction ∇_aQ·∇μ; none in the deviations."""
    baseline, episodes = fitted("q_prop", "Gaussian"), make_episodes("Gaussian")
    policy, step = episodes.policy, 1e-3
    slopes = np.zeros((B, 2))
    for i in range(2):
        moved = [make_episodes("Gaussian", actions=policy.mean + sign * step * np.eye(2)[i]) for sign in (1, -1)]
        slopes[:, i] = (baseline(moved[0]).astype(float) - baseline(moved[1])) / (2 * step)
    expected = np.concatenate([slopes.ravel(), np.zeros(2 * B)])
    np.testing.assert_allclose(of_correction(baseline, episodes), expected, atol=1e-3)
    at_the_mean = make_episodes("Gaussian", actions=policy.mean)
    np.testing.assert_allclose(baseline(at_the_mean), episodes.values, atol=1e-6)


def test_of_a_single_factor_the_factorised_baseline_is_v():
    episodes = make_episodes("Gaussian")
    one = ActionFactors((), episodes.policy.mean[:, :1], episodes.policy.std[:, :1])
    baseline = make_baseline("action_factorized")
    single = Episodes(**{**vars(episodes), "policy": one, "actions": episodes.actions[:, :1]})
    baseline.fit(single)
    np.testing.assert_array_equal(baseline(single), episodes.values)


def test_a_conservative_q_prop_waits_until_it_has_predicted_something():
    baseline, wrong = make_baseline("q_prop"), make_episodes("choices", 1)
    np.testing.assert_array_equal(baseline(wrong), wrong.values)
    assert not list(baseline.correction(wrong))
    baseline.fit(wrong)  # nothing was predicted: it stays at V
    np.testing.assert_array_equal(baseline(wrong), wrong.values)
    baseline.fit(wrong)  # the same again was predicted well
    assert baseline._eta == 1
    opposite = Episodes(**{**vars(wrong), "returns": 2 * wrong.values - wrong.returns})
    baseline.fit(opposite)
    assert baseline._eta == 0


def test_value_time_knows_the_time_that_is_left():
    """With V = 0 and rewards of 1 up to a limit of 30: G_t = Σ_{i=t}^{29} γ^{i−t}, which one batch tells."""
    t, gamma = np.tile(np.arange(30), 3), 0.9
    returns = (1 - gamma ** (30 - t)) / (1 - gamma)
    arguments = {
        "rewards": np.ones(90, np.float32),
        "returns": returns.astype(np.float32),
        "observations": np.random.default_rng(0).normal(size=(90, 2)).astype(np.float32),
        "t": t,
        "episode_id": np.repeat(np.arange(3), 30),
        "values": np.zeros(90, np.float32),
        "gamma": gamma,
    }
    for baseline in (make_baseline("value_time", horizon=30, ridge=1e-8), make_baseline("value_time", ridge=1e-8)):
        episodes = Episodes(**arguments)
        np.testing.assert_array_equal(baseline(episodes), 0)
        baseline.fit(episodes)
        np.testing.assert_allclose(baseline(episodes), returns, rtol=1e-4)


def test_the_regression():
    """Against the normal equations, of weighted batches."""
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(20, 3)), rng.normal(size=20)) for _ in range(3)]
    regression = Regression(0.5, 1e-9)
    np.testing.assert_array_equal(regression.weights(3), 0)
    for batch in batches:
        regression.fit(*batch)
    scaled = [np.sqrt(w) for w in (0.25, 0.5, 1.0)]
    rows, targets = (np.concatenate([s * b[i] for s, b in zip(scaled, batches, strict=True)]) for i in (0, 1))
    np.testing.assert_allclose(regression.weights(3), np.linalg.lstsq(rows, targets, rcond=None)[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("q_prop", {"decay": 1.0}, r"decay=1\.0; allowed: a number in \[0, 1\)"),
        ("q_prop", {"conservative": "no"}, "conservative='no'; allowed: True or False"),
        ("action_factorized", {"ridge": 0}, "ridge=0; allowed: a positive number"),
        ("value_time", {"horizon": 0}, "horizon=0; allowed: an integer ≥ 1"),
    ],
)
def test_bad_arguments(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_baseline(name, **arguments)


def test_a_correction_of_another_shape_is_named():
    class Wrong:
        def __call__(self, episodes):
            return episodes.returns

        def correction(self, episodes):
            yield episodes.actions, np.ones((B, 1))

    with pytest.raises(
        ValueError, match=r"Wrong.*its correction has the shapes \(5, 2\) and \(5, 1\); allowed: \(5, 2\)"
    ):
        list(corrections(Wrong(), make_episodes("choices")))
