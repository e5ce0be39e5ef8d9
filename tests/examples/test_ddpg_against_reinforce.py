"""The script that compares deterministic gradients with the score function: what it takes to be exact is."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch as th

SCRIPT = Path(__file__).parents[2] / "examples" / "ddpg_against_reinforce.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("ddpg_against_reinforce", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["smooth", "rough"])
def test_the_exact_gradient(example, kind):
    rewards, logits = example.rewards_of(kind), np.random.default_rng(0).normal(size=example.N_LOGITS)
    assert example.probabilities(logits).sum() == pytest.approx(1)
    moved = [logits + 1e-6 * sign * row for row in np.eye(example.N_LOGITS) for sign in (1, -1)]
    values = np.array([example.probabilities(each) @ rewards for each in moved])
    expected = (values[::2] - values[1::2]) / 2e-6
    np.testing.assert_allclose(example.exact_gradient(logits, rewards), expected, atol=1e-7)


def test_the_score_function_is_unbiased(example):
    rewards, logits = example.rewards_of("rough"), np.linspace(-1, 1, example.N_LOGITS)
    gradients = example.score_gradients(logits, rewards, np.random.default_rng(0), 100_000)
    errors = gradients.mean(0) - example.exact_gradient(logits, rewards)
    assert (np.abs(errors) < 4.5 * gradients.std(0) / np.sqrt(len(gradients))).all()


def test_the_deterministic_gradient_of_a_linear_critic_points_the_right_way(example):
    """Its reward is linear in the choices, too, so that nothing is missing between one-hot vectors."""
    weights = th.arange(float(example.N_LOGITS)) % 3
    gradients = example.deterministic_gradients(
        np.zeros(example.N_LOGITS), lambda x: x @ weights, np.random.default_rng(0), 20_000
    )
    exact = example.exact_gradient(np.zeros(example.N_LOGITS), example.VECTORS @ weights.double().numpy())
    mean = gradients.mean(0)
    assert mean @ exact / np.linalg.norm(mean) / np.linalg.norm(exact) > 0.999


def test_figures_are_drawn(example, tmp_path, monkeypatch, capsys):
    command = ["script", "--studies", "off_policy", "--seeds", "1", "--output", str(tmp_path)]
    monkeypatch.setattr("sys.argv", command)
    example.main()
    assert "| off-policy | uniform actions, DDPG |" in capsys.readouterr().out
    assert (tmp_path / "gumbel_ddpg_off_policy.png").stat().st_size > 0
