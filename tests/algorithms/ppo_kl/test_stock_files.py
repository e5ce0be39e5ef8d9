"""What docs/ppo_kl.md says of files that stock PPO has saved."""

import pytest
import torch as th
from envs import RandomEnv
from stable_baselines3 import PPO

from sb3_pg_ext import AdaptiveKLPPO


@pytest.fixture(scope="module")
def stock():
    return PPO("MlpPolicy", RandomEnv(), n_steps=32, batch_size=16, n_epochs=2, seed=0, device="cpu").learn(64)


@pytest.fixture
def file(stock, tmp_path):
    stock.save(tmp_path / "ppo")
    return tmp_path / "ppo"


def test_two_settings_mean_something_else(file):
    with pytest.raises(ValueError, match="target_kl=None; allowed: a number > 0"):
        AdaptiveKLPPO.load(file)
    model = AdaptiveKLPPO.load(file, custom_objects={"target_kl": 0.01})
    assert model.target_kl == 0.01
    assert model.clip_range(1.0) == 0.2


def test_everything_else_is_taken_over(stock, file):
    model = AdaptiveKLPPO.load(file, RandomEnv(), custom_objects={"target_kl": 0.01, "clip_range": None})
    assert (model.clip_range, model.adaptive_kl, model.current_kl_coef) == (None, True, 1.0)
    assert (model.num_timesteps, model._n_updates, model.n_epochs) == (64, stock._n_updates, 2)
    th.testing.assert_close(model.get_parameters(), stock.get_parameters(), rtol=0, atol=0)
    assert model.learn(32, reset_num_timesteps=False).num_timesteps == 96


def test_a_target_of_ppo_becomes_that_of_the_penalty(stock, tmp_path):
    stock.target_kl = 0.03
    try:
        stock.save(tmp_path / "ppo")
    finally:
        stock.target_kl = None
    assert AdaptiveKLPPO.load(tmp_path / "ppo").target_kl == 0.03


def test_parameters_alone(stock, file):
    model = AdaptiveKLPPO("MlpPolicy", RandomEnv(), n_steps=32, seed=1, device="cpu")
    model.set_parameters(file)
    th.testing.assert_close(model.get_parameters(), stock.get_parameters(), rtol=0, atol=0)
    assert model.num_timesteps == 0
