"""The package has to be installed: the algorithm is found by its name."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch as th
from sb3_pg_ext_spo import SPO
from sb3_pg_ext_spo.surrogate import spo_loss
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_pg_ext.testing import check


def test_it_keeps_the_contract() -> None:
    """Training, seeds, saving, the YAML file and the search space, with discrete and continuous actions."""
    check("spo", n_steps=64)


def test_the_loss_by_hand() -> None:
    """Golden numbers for ε = 1/2: r = 1, 2 and 1/2 give r·A − |A|·(r − 1)² = 3, 8 − 4 and −1 − 1/2."""
    loss = spo_loss(np.log([1.0, 2.0, 0.5]), np.zeros(3), np.array([3.0, 4.0, -2.0]), epsilon=0.5)
    assert loss.value == pytest.approx(-(3 + 4 - 1.5) / 3)
    np.testing.assert_allclose(loss.gradient, np.array([-3, 8, 0]) / 3, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_its_derivatives_are_its_differences(seed: int) -> None:
    """Central differences, in double precision."""
    rng = np.random.default_rng(seed)
    log_probs, old_log_probs, advantages = rng.normal(size=(3, 8))

    def value(change: np.ndarray) -> float:
        return spo_loss(log_probs + change, old_log_probs, advantages, epsilon=0.2).value

    differences = [(value(1e-6 * unit) - value(-1e-6 * unit)) / 2e-6 for unit in np.eye(8)]
    gradient = spo_loss(log_probs, old_log_probs, advantages, epsilon=0.2).gradient
    np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("engine", ["array", "autograd"])
@pytest.mark.parametrize("normalize_advantage", [True, False])
def test_an_update_follows_the_gradient_of_the_objective(engine: str, normalize_advantage: bool) -> None:
    """Two epochs of one minibatch, against PyTorch differentiating the formula of the docstring."""
    model = SPO(
        "MlpPolicy",
        "CartPole-v1",
        learning_rate=0.01,
        n_steps=64,
        n_epochs=2,
        normalize_advantage=normalize_advantage,
        ent_coef=0.1,
        max_grad_norm=1e6,
        engine=engine,
        seed=0,
        device="cpu",
        policy_kwargs={"optimizer_class": th.optim.SGD, "optimizer_kwargs": {}},
    )
    policy = deepcopy(model.policy)
    model.learn(64)

    buffer = model.rollout_buffer
    obs, actions = th.as_tensor(buffer.observations[:, 0]), th.as_tensor(buffer.actions[:, 0, 0])
    old_log_probs, advantages, returns = (
        th.as_tensor(array[:, 0]) for array in (buffer.log_probs, buffer.advantages, buffer.returns)
    )
    if normalize_advantage:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    optimizer = th.optim.SGD(policy.parameters(), lr=0.01)
    for _ in range(2):
        values, log_probs, entropies = policy.evaluate_actions(obs, actions)
        assert entropies is not None
        ratios = th.exp(log_probs - old_log_probs)
        objective = ratios * advantages - advantages.abs() * (ratios - 1) ** 2 / (2 * 0.2)
        critic = (values[:, 0] - returns) ** 2
        optimizer.zero_grad()
        (-objective.mean() - 0.1 * entropies.mean() + 0.5 * critic.mean()).backward()
        optimizer.step()
    for ours, theirs in zip(model.policy.parameters(), policy.parameters(), strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_it_learns_to_balance() -> None:
    """15 000 steps of CartPole-v1, which take seconds; a random policy keeps the pole up for about 20."""
    model = SPO(
        "MlpPolicy",
        make_vec_env("CartPole-v1", 8, seed=0),
        learning_rate=1e-3,
        n_steps=32,
        batch_size=256,
        n_epochs=20,
        gamma=0.98,
        gae_lambda=0.8,
        seed=0,
        device="cpu",
    )
    model.learn(15_000)
    mean_return, _ = evaluate_policy(model, make_vec_env("CartPole-v1", 8, seed=1), n_eval_episodes=16)
    assert np.mean(mean_return) > 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": 0}, "epsilon=0; allowed: a number > 0"),
        ({"n_epochs": 0}, "n_epochs=0; allowed: an integer ≥ 1"),
        ({"batch_size": 1.5}, "batch_size=1.5; allowed: an integer ≥ 1"),
        ({"normalize_advantage": "no"}, "normalize_advantage='no'; allowed: True or False"),
        ({"gae_lambda": 2}, r"gae_lambda=2; allowed: \[0, 1\]"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    """At construction, with an error that says what is allowed."""
    with pytest.raises(ValueError, match=message):
        SPO("MlpPolicy", "CartPole-v1", **arguments)
