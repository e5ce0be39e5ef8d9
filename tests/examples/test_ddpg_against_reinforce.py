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


@pytest.mark.parametrize("length", [1, 3])
def test_importance_weights_give_the_gradient_of_another_policy(example, length):
    rewards, logits = example.rewards_of("rough"), np.linspace(-0.2, 0.2, example.N_LOGITS)
    uniform, rng = np.zeros(example.N_LOGITS), np.random.default_rng(0)
    choices = example.largest(uniform + example.gumbel(rng, 60_000), example.SIZES)
    earned = rewards[np.ravel_multi_index(choices.T, example.SIZES)]
    behaviour = example.probabilities(uniform)
    parts = [
        example.importance_weighted(logits, some, numbers, behaviour, length)
        for some, numbers in zip(np.split(choices, 50), np.split(earned, 50), strict=True)
    ]
    errors = np.mean(parts, 0) - example.exact_gradient(logits, rewards)
    assert (np.abs(errors) < 4.5 * np.std(parts, 0) / np.sqrt(len(parts))).all()


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
    command = ["script", "--studies", "off_policy", "horizon", "--output", str(tmp_path), "--seeds"]
    monkeypatch.setattr("sys.argv", [*command, "1"])
    example.main()
    told = capsys.readouterr().out
    assert "| off-policy | uniform actions, DDPG |" in told
    assert "| horizon | REINFORCE, weighted, 32 |" in told
    assert (tmp_path / "gumbel_ddpg_horizon.png").stat().st_size > 0
    monkeypatch.setattr("sys.argv", [*command, "0"])
    with pytest.raises(SystemExit):
        example.main()
    assert "argument --seeds: 0; allowed: an integer ≥ 1" in capsys.readouterr().err
