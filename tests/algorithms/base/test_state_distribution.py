"""Advantages weighted with γᵗ, in episodes that go on over the ends of rollouts."""

import numpy as np
import pytest
from gymnasium import spaces
from scripted import Script, ScriptedEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_pg_ext import NPG, AdaptiveKLPPO

GAMMA = 0.5
LENGTHS = (7, 2, 1)
SCRIPTS = [Script(tuple(float(k) for k in range(n)), truncated=n == 2) for n in LENGTHS]
ALGORITHMS = {
    "NPG": (NPG, {}),
    "AdaptiveKLPPO": (AdaptiveKLPPO, {"batch_size": 4, "n_epochs": 2}),
    "recomputed": (AdaptiveKLPPO, {"batch_size": 4, "n_epochs": 2, "recompute_advantages": True}),
}
each = pytest.mark.parametrize("name", ALGORITHMS)


def make_model(name, **arguments):
    algorithm, more = ALGORITHMS[name]
    envs = [ScriptedEnv(spaces.Discrete(2), *SCRIPTS[i:], *SCRIPTS[:i], first=10 * i) for i in range(2)]
    env = DummyVecEnv([lambda env=env: env for env in envs])
    arguments = {"n_steps": 4, "gamma": GAMMA, "seed": 0, "device": "cpu", **more, **arguments}
    return algorithm("MlpPolicy", env, policy_kwargs={"net_arch": [4]}, **arguments)


def clock(n_steps):
    """T of every step of both environments, [steps, 2]."""
    orders = (LENGTHS, LENGTHS[1:] + LENGTHS[:1])
    return np.transpose([[t for _ in range(n_steps) for n in order for t in range(n)][:n_steps] for order in orders])


def by_time(array):
    """[T, N], also where minibatches have flattened it, environment by environment."""
    return array if array.shape == (4, 2) else array.reshape(2, 4).T


@each
def test_advantages_are_weighted(name):
    """Of a policy that stays as it is: with those of the same training without weights."""
    plain, weighted = (
        make_model(name, learning_rate=0.0, discount_state_distribution=discounted) for discounted in (False, True)
    )
    if name == "NPG":  # its policy has a step of its own
        plain._improve = weighted._improve = lambda: None
    for i in range(4):
        for model in (plain, weighted):
            model.set_random_seed(i)
            model.learn(1, reset_num_timesteps=False)
        a, b = (by_time(model.rollout_buffer.advantages) for model in (plain, weighted))
        np.testing.assert_allclose(b, GAMMA ** clock(16)[4 * i : 4 * i + 4] * a, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(plain.rollout_buffer.returns, weighted.rollout_buffer.returns)


def test_a_training_that_a_callback_has_ended_goes_on_counting():
    model = make_model("NPG", discount_state_distribution=True)
    model.learn(100, callback=lambda variables, _: variables["self"].num_timesteps < 12)  # after six steps of each
    model._improve = lambda: None
    model.learn(1, reset_num_timesteps=False)
    weights = model._state_weights
    np.testing.assert_allclose(weights, GAMMA ** clock(10)[6:])


def test_saved_models_go_on_counting(tmp_path):
    model = make_model("NPG", discount_state_distribution=True).learn(1)
    model.save(tmp_path / "model")
    loaded = NPG.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded._steps_into_episode, [4, 1])
    assert loaded.discount_state_distribution


@each
def test_what_is_neither_true_nor_false_is_refused(name):
    with pytest.raises(ValueError, match="discount_state_distribution='no'; allowed: True or False"):
        make_model(name, discount_state_distribution="no")
