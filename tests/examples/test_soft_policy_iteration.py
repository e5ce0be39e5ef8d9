"""Soft policy iteration in a table: what the example and docs/sac_v.md say of it."""

import importlib.util
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "soft_policy_iteration.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("soft_policy_iteration", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_q_rises_everywhere_until_it_is_optimal(example):
    tables, policies = example.iterate(12)
    for earlier, later in pairwise(tables):
        assert (later - earlier).min() > -1e-12
    assert (tables[1] - tables[0]).max() > 0.1
    optimum = example.optimal_q(*example.corridor())
    np.testing.assert_allclose(tables[-1], optimum, atol=1e-9)
    np.testing.assert_allclose(policies[-1], example.improved(optimum), atol=1e-9)


def test_evaluation_is_the_return_with_entropies(example):
    """Against iterating the soft Bellman operator of the policy, one state and action at a time."""
    transitions, rewards = example.corridor()
    policy = np.random.default_rng(0).dirichlet(np.ones(3), 5)
    q = np.zeros((5, 3))
    for _ in range(400):
        v = [sum(policy[s, a] * (q[s, a] - example.ALPHA * np.log(policy[s, a])) for a in range(3)) for s in range(4)]
        for s in range(4):
            for a in range(3):
                q[s, a] = rewards[s, a] + example.GAMMA * sum(transitions[s, a, t] * v[t] for t in range(4))
    np.testing.assert_allclose(example.soft_q(transitions, rewards, policy), q, atol=1e-10)


def test_the_losses_vanish_at_the_optimum(example):
    transitions, rewards = example.corridor()
    q = example.optimal_q(transitions, rewards)
    assert max(example.losses(transitions, rewards, q, example.improved(q))) < 1e-12
    assert min(example.losses(transitions, rewards, q, np.full((5, 3), 1 / 3))) > 1e-3


def test_the_script_prints_and_draws(example, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["soft_policy_iteration.py", "--rounds", "2", "--plot", str(tmp_path / "q.png")])
    example.main()
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert (tmp_path / "q.png").stat().st_size > 0
