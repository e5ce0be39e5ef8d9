"""The optimal baselines against their formulas, written out episode by episode."""

import numpy as np
import pytest

from sb3_pg_ext import make_baseline
from sb3_pg_ext.baselines import Episodes

LENGTHS = (3, 1, 5, 2)
N = 6
WEIGHTED = pytest.mark.parametrize("weights", [1.0, "discounts"])


@pytest.fixture
def make():
    def make(weights=1.0, lengths=LENGTHS):
        rng, n_steps = np.random.default_rng(0), sum(lengths)
        t = np.concatenate([np.arange(length) for length in lengths])
        returns = rng.normal(2, 1, n_steps).astype(np.float32)
        return Episodes(
            rewards=returns,
            returns=returns,
            observations=np.zeros((n_steps, 1), np.float32),
            t=t,
            episode_id=np.repeat(np.arange(len(lengths)), lengths),
            scores=rng.normal(size=(n_steps, N)).astype(np.float32),
            weights=(0.5**t).astype(np.float32) if weights == "discounts" else 1.0,
        )

    return make


def rows_of(episodes, i):
    """w_t ∇log π and G_t of one episode."""
    own = episodes.episode_id == i
    weights = np.broadcast_to(episodes.weights, len(own))[own]
    return weights[:, None] * episodes.scores[own].astype(float), episodes.returns[own].astype(float)


def sums(episodes):
    """g and X, [m, n]."""
    pairs = [rows_of(episodes, i) for i in range(len(episodes.lengths))]
    return np.array([rows.sum(axis=0) for rows, _ in pairs]), np.array([returns @ rows for rows, returns in pairs])


def used(m, i, cross_fit):
    return [j for j in range(m) if not (cross_fit and j == i)]


@WEIGHTED
@pytest.mark.parametrize("cross_fit", [False, True])
def test_one_number(make, weights, cross_fit):
    episodes = make(weights)
    g, x = sums(episodes)
    found = make_baseline("optimal", cross_fit=cross_fit)(episodes)
    for i in range(len(LENGTHS)):
        js = used(len(LENGTHS), i, cross_fit)
        expected = sum(x[j] @ g[j] for j in js) / sum(g[j] @ g[j] for j in js)
        np.testing.assert_allclose(found[episodes.episode_id == i], expected, rtol=1e-5)


@WEIGHTED
@pytest.mark.parametrize("cross_fit", [False, True])
def test_one_number_for_every_time_step(make, weights, cross_fit):
    episodes = make(weights)
    _, x = sums(episodes)
    found = make_baseline("optimal", per_time_step=True, cross_fit=cross_fit)(episodes)
    for b, t, i in zip(found, episodes.t, episodes.episode_id, strict=True):
        reach = [j for j in used(len(LENGTHS), i, cross_fit) if LENGTHS[j] > t]
        rows = [rows_of(episodes, j)[0][t] for j in reach]
        products = sum(x[j] @ row for j, row in zip(reach, rows, strict=True))
        expected = products / sum(row @ row for row in rows) if reach else 0.0
        np.testing.assert_allclose(b, expected, rtol=1e-5)


@WEIGHTED
@pytest.mark.parametrize("cross_fit", [False, True])
def test_one_number_for_every_component(make, weights, cross_fit):
    episodes = make(weights)
    g, x = sums(episodes)
    found = make_baseline("optimal_per_component", cross_fit=cross_fit)(episodes)
    for i in range(len(LENGTHS)):
        js = used(len(LENGTHS), i, cross_fit)
        expected = [sum(x[j, k] * g[j, k] for j in js) / sum(g[j, k] ** 2 for j in js) for k in range(N)]
        np.testing.assert_allclose(found[i], expected, rtol=1e-5)


@pytest.mark.parametrize("per_time_step", [False, True])
def test_chunks_change_nothing(make, monkeypatch, per_time_step):
    baseline = make_baseline("optimal", per_time_step=per_time_step)
    whole = baseline(make("discounts"))
    monkeypatch.setattr("sb3_pg_ext.baselines.episodes.CHUNK_BYTES", 4 * N * 2)  # two steps
    np.testing.assert_allclose(baseline(make("discounts")), whole, rtol=1e-6)


def test_without_any_score_there_is_no_baseline(make):
    """A policy that is certain of its actions has score functions of zero."""
    episodes = make()
    episodes.scores[:] = 0
    for name, kwargs in (("optimal", {}), ("optimal", {"per_time_step": True}), ("optimal_per_component", {})):
        assert not make_baseline(name, **kwargs)(episodes).any()
