"""How NAF explores."""

import numpy as np
import pytest
import torch as th
from envs import IMAGE, RandomEnv
from gymnasium import spaces
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_pg_ext import NAF
from sb3_pg_ext.algorithms.naf.action_sampling import action_layers
from sb3_pg_ext.algorithms.naf.policies import MlpPolicy
from sb3_pg_ext.policies.plain_mlp import UnsupportedPolicyError

ACTIONS = spaces.Box(np.float32([-2, 0]), np.float32([2, 10]))
OBSERVATIONS = np.random.default_rng(0).uniform(-1, 1, (16, 3)).astype(np.float32)


def make_model(policy="MlpPolicy", env=None, **kwargs):
    arguments = {"policy_kwargs": {"net_arch": [8, 8]}, "buffer_size": 300, "learning_starts": 10, **kwargs}
    return NAF(policy, RandomEnv(ACTIONS) if env is None else env, seed=0, device="cpu", **arguments)


def stored_actions(model):
    return model.replay_buffer.actions[: model.replay_buffer.pos, 0]


def best_actions(model):
    obs = model.replay_buffer.observations[: model.replay_buffer.pos, 0]
    return model.policy.scale_action(model.predict(obs, deterministic=True)[0])


def collect(**kwargs):
    """Steps without updates."""
    return make_model(gradient_steps=0, **kwargs).learn(200)


def test_without_noise_it_takes_the_best_action():
    model = collect(exploration="noise")
    np.testing.assert_allclose(stored_actions(model)[10:], best_actions(model)[10:], atol=1e-6)
    assert np.abs(stored_actions(model)[:10] - best_actions(model)[:10]).mean() > 0.3


def test_by_default_it_explores():
    """By the noise that is given, else by the covariance, at temperature 1."""
    model, sampled = collect(), collect(exploration="covariance", temperature=1.0)
    np.testing.assert_array_equal(stored_actions(model), stored_actions(sampled))
    assert np.abs(stored_actions(model)[10:] - best_actions(model)[10:]).mean() > 0.1
    noise = NormalActionNoise(np.zeros(2), np.full(2, 0.1))
    assert make_model(action_noise=noise).policy.temperature is None


def test_noise_is_added_to_the_best_action_and_clipped():
    model = collect(action_noise=NormalActionNoise(np.array([0.0, 5.0]), np.array([0.1, 0.0])))
    first, second = (stored_actions(model) - best_actions(model))[10:].T
    assert 0.05 < first.std() < 0.15
    assert (stored_actions(model)[10:, 1] == 1).all()
    assert (second > 0).all()


@pytest.mark.parametrize("n_envs", [1, 3])
def test_noise_has_the_shape_of_an_action(n_envs):
    """As in SB3's own algorithms, also where that is a matrix."""
    deviations = np.array([[0.0, 0.02, 0.04], [0.1, 0.0, 0.3]])
    env = DummyVecEnv([lambda: RandomEnv(spaces.Box(-2, 3, (2, 3)))] * n_envs)
    model = collect(env=env, action_noise=NormalActionNoise(np.zeros((2, 3)), deviations))
    stored = slice(10, model.replay_buffer.pos)
    obs = model.replay_buffer.observations[stored].reshape(-1, 3)
    actions = model.replay_buffer.actions[stored].reshape(-1, 6)
    best = model.policy.scale_action(model.predict(obs)[0]).reshape(actions.shape)
    np.testing.assert_allclose((actions - best).std(0), deviations.ravel(), rtol=0.3, atol=1e-6)


def test_covariance_follows_the_temperature():
    """Where P is the identity, the actions scatter by √temperature."""

    def deviation(temperature):
        model = make_model(gradient_steps=0, exploration="covariance", temperature=temperature)
        nn.init.zeros_(model.policy.critic.action_head.weight)
        nn.init.zeros_(model.policy.critic.action_head.bias)
        return stored_actions(model.learn(280))[10:].std()

    assert deviation(0.01) == pytest.approx(0.1, rel=0.15)
    assert deviation(0.0025) == pytest.approx(0.05, rel=0.15)


@pytest.mark.parametrize("n_heads", [1, 2])
def test_predictions_are_samples_only_with_covariance(n_heads):
    for exploration, expected in (("noise", 0), ("covariance", 1)):
        model = make_model(exploration=exploration, double=n_heads == 2)
        best = model.predict(OBSERVATIONS, deterministic=True)[0]
        assert (np.abs(model.predict(OBSERVATIONS)[0] - best).max() > 0.1) == expected
        for action in model.predict(OBSERVATIONS)[0]:
            assert ACTIONS.contains(action)


def test_a_loaded_model_explores_as_asked(tmp_path):
    make_model(exploration="covariance", temperature=0.5).save(tmp_path / "model")
    assert NAF.load(tmp_path / "model").policy.temperature == 0.5
    assert NAF.load(tmp_path / "model", exploration="noise", temperature=None).policy.temperature is None


def test_a_policy_of_its_own_can_be_saved(tmp_path):
    model = make_model(exploration="covariance", temperature=0.5, double=True)
    model.policy.save(tmp_path / "policy")
    policy = MlpPolicy.load(tmp_path / "policy", device="cpu")
    assert (policy.temperature, policy.n_heads) == (0.5, 2)
    expected, actual = (each.predict(OBSERVATIONS, deterministic=True)[0] for each in (model, policy))
    np.testing.assert_array_equal(expected, actual)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation_fn", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("exploration", ["noise", "covariance"])
def test_numpy_chooses_what_the_policy_would(layer_norm, activation_fn, double, exploration):
    kwargs = {"net_arch": [8, 8], "layer_norm": layer_norm, "activation_fn": activation_fn}
    model = make_model(double=double, exploration=exploration, policy_kwargs=kwargs)
    action_layers(model.policy)
    act = model._make_action_sampler()
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.mul_(1.5)  # in place: the actor has to follow
        th.manual_seed(0)
        expected = model.policy(th.as_tensor(OBSERVATIONS)).numpy()
        th.manual_seed(0)
        np.testing.assert_allclose(act(OBSERVATIONS), expected, rtol=1e-4, atol=1e-5)


class Bold(MlpPolicy):
    def choose_actions(self, outputs, deterministic=False):
        return super().choose_actions(outputs, deterministic).sign()


@pytest.mark.parametrize(
    ("policy", "env", "reason"),
    [
        (Bold, RandomEnv(ACTIONS), "overrides choose_actions"),
        ("CnnPolicy", RandomEnv(ACTIONS, observation_space=IMAGE), "its observations"),
    ],
)
def test_other_policies_are_asked_themselves(policy, env, reason):
    model = make_model(policy, env, exploration="noise")
    with pytest.raises(UnsupportedPolicyError, match=reason):
        action_layers(model.policy)
    obs = model.env.reset()
    expected = model.policy.scale_action(model.predict(obs)[0])
    np.testing.assert_array_equal(model._make_action_sampler()(obs), expected)
