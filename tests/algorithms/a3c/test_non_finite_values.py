"""Finite numbers that lead to non-finite ones, in the worker: parameters and the optimiser's state stay finite."""

import pytest
import torch as th
from envs import ACTION_SPACES, SpoiltEnv

from sb3_pg_ext.algorithms.a3c import A3C


def assert_finite(model):
    assert th.isfinite(th.nn.utils.parameters_to_vector(model.policy.parameters())).all()
    for name, tensor in model.policy.optimizer.statistics.items():
        assert th.isfinite(tensor).all(), name


def build(env, **kwargs):
    return A3C("MlpPolicy", env, seed=0, policy_kwargs={"net_arch": [8]}, **kwargs)


@pytest.mark.parametrize("use_rms_prop", [True, False])
@pytest.mark.parametrize("action_space", ["Box", "Discrete"])
@pytest.mark.parametrize("learning_rate", [3e38, 1e300, 1e30])
def test_a_huge_learning_rate(use_rms_prop, action_space, learning_rate):
    env = [lambda: SpoiltEnv("reward", 1.0, (), action_space=ACTION_SPACES[action_space])] * 2
    model = build(env, learning_rate=learning_rate, use_rms_prop=use_rms_prop, max_grad_norm=None)
    with pytest.warns(RuntimeWarning, match="after .* steps"), pytest.raises(ValueError, match="3 in a row"):
        model.learn(5000)
    assert model.num_timesteps < 5000
    assert model.n_skipped_updates + model.n_dropped_rollouts >= 3
    assert_finite(model)


@pytest.mark.parametrize("use_rms_prop", [True, False])
@pytest.mark.parametrize("max_grad_norm", [0.5, None])
def test_rewards_that_overflow(use_rms_prop, max_grad_norm):
    """Each is finite, their sum is not."""
    env = SpoiltEnv("reward", 3e38, range(10, 10**6), length=4)
    model = build(env, n_steps=32, use_rms_prop=use_rms_prop, max_grad_norm=max_grad_norm)
    with pytest.warns(RuntimeWarning, match="update skipped") as warned, pytest.raises(ValueError, match="3 in a row"):
        model.learn(5000)
    assert len(warned) == 2
    assert model.n_skipped_updates == 3
    assert model.n_dropped_rollouts == 0
    assert model._n_updates > 0
    assert_finite(model)


def test_updates_that_are_skipped_now_and_then():
    """The state is not spoilt either: training goes on, and changes the parameters."""
    model = build(SpoiltEnv("reward", 3e38, (5, 25, 45)))
    with pytest.warns(RuntimeWarning, match="update skipped"):
        model.learn(400)
    assert model.n_skipped_updates >= 3
    assert_finite(model)
    before = th.nn.utils.parameters_to_vector(model.policy.parameters()).detach().clone()
    model.set_env(SpoiltEnv("reward", 1.0, ()))
    model.learn(100)
    after = th.nn.utils.parameters_to_vector(model.policy.parameters()).detach()
    assert (after - before).abs().max() > 1e-5
