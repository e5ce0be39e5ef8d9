"""Bad arguments are refused at construction and at loading, with what is allowed."""

import re

import numpy as np
import pytest
from envs import OBSERVATION_SPACES, RandomEnv
from gymnasium import spaces
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.noise import NormalActionNoise

from sb3_pg_ext import NAF

NOISE = NormalActionNoise(np.zeros(1), np.ones(1))


def make_model(env=None, **kwargs):
    arguments = {"policy_kwargs": {"net_arch": [4]}, "buffer_size": 100, **kwargs}
    return NAF("MlpPolicy", RandomEnv() if env is None else env, device="cpu", **arguments)


BAD = {
    "no target": ({"tau": 0}, r"tau=0; allowed: \(0, 1\]"),
    "τ too large": ({"tau": 1.1}, r"tau=1\.1; allowed: \(0, 1\]"),
    "τ negative": ({"tau": -0.1}, r"tau=-0\.1; allowed"),
    "τ not a number": ({"tau": float("nan")}, "tau=nan; allowed"),
    "γ too large": ({"gamma": 1.1}, r"gamma=1\.1; allowed: \[0, 1\]"),
    "no buffer": ({"buffer_size": 0}, "buffer_size=0; allowed: an integer ≥ 1"),
    "no batch": ({"batch_size": 0}, "batch_size=0; allowed: an integer ≥ 1"),
    "negative start": ({"learning_starts": -1}, "learning_starts=-1; allowed: a number ≥ 0"),
    "negative updates": ({"gradient_steps": -2}, "gradient_steps=-2; allowed: an integer ≥ -1"),
    "no interval": ({"target_update_interval": 0}, "target_update_interval=0; allowed: an integer ≥ 1"),
    "gradient norm": ({"max_grad_norm": -1}, "max_grad_norm=-1; allowed: a number > 0, or None"),
    "misspelt loss": ({"loss": "hubert"}, r"loss='hubert' \(did you mean 'huber'\?\); allowed: 'mse', 'huber'"),
    "misspelt exploration": ({"exploration": "noisy"}, "exploration='noisy'.*allowed: 'auto', 'noise', 'covariance'"),
    "cold": ({"exploration": "covariance", "temperature": 0}, "temperature=0; allowed: a number > 0"),
    "colder": ({"exploration": "covariance", "temperature": -1.0}, "temperature=-1.0; allowed"),
    "temperature without a use": (
        {"temperature": 1.0, "exploration": "noise"},
        "temperature=1.0 together with exploration='noise'",
    ),
    "temperature beside noise": (
        {"temperature": 1.0, "action_noise": NOISE},
        "temperature=1.0 together with action_noise",
    ),
    "nothing to correct": (
        {"n_step_correction": True},
        "n_step_correction=True together with n_steps=1; allowed: n_steps ≥ 2",
    ),
    "correction by name": ({"n_step_correction": "no"}, "n_step_correction='no'; allowed: True or False"),
    "noise without a use": (
        {"exploration": "covariance", "action_noise": NOISE},
        "action_noise=NormalActionNoise.*together with exploration='covariance'; allowed: None",
    ),
    "double by name": ({"double": "no"}, "double='no'; allowed: True or False"),
    "temperature of the policy": ({"policy_kwargs": {"temperature": 2.0}}, "policy_kwargs=.*allowed: no temperature"),
    "a network for each": (
        {"policy_kwargs": {"net_arch": {"pi": [8], "qf": [8]}}},
        r"policy_kwargs=dict\(net_arch=\{'pi': \[8\], 'qf': \[8\]\}\); allowed: a list of integers ≥ 1",
    ),
    "no width": ({"policy_kwargs": {"net_arch": [8, 0]}}, r"policy_kwargs=dict\(net_arch=\[8, 0\]\); allowed"),
    "no steps": ({"n_steps": 0}, "n_steps=0; allowed: an integer ≥ 1"),
    "steps for a buffer of one's own": (
        {"n_steps": 3, "replay_buffer_class": ReplayBuffer},
        "n_steps=3 together with replay_buffer_class=ReplayBuffer; allowed: one of them",
    ),
    "other steps than the buffer": (
        {
            "n_steps": 3,
            "replay_buffer_class": NStepReplayBuffer,
            "replay_buffer_kwargs": {"n_steps": 2, "gamma": 0.99},
        },
        "n_steps=3 together with replay_buffer_class=NStepReplayBuffer",
    ),
}
each = pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())


@each
def test_construction(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_model(**arguments)


@each
def test_loading(arguments, message, tmp_path):
    model = make_model()
    vars(model).update(arguments)
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        NAF.load(tmp_path / "model", device="cpu")


@pytest.mark.parametrize("bound", [np.inf, -np.inf])
def test_unbounded_actions(bound):
    low, high = sorted((0.0, bound))
    with pytest.raises(ValueError, match=r"action_space=Box.*allowed: a Box with finite bounds"):
        make_model(RandomEnv(spaces.Box(low, high, (2,), np.float32)))


def test_actions_of_integers():
    """The buffer would cut the scaled ones off."""
    with pytest.raises(ValueError, match=r"action_space=Box.*allowed: a Box of floats"):
        make_model(RandomEnv(spaces.Box(-5, 5, (2,), np.int64)))


def test_other_actions_are_refused_by_sb3():
    with pytest.raises(AssertionError, match=re.escape("only supports")):
        make_model(RandomEnv(spaces.Discrete(2)))


def test_steps_with_dict_observations():
    env = RandomEnv(observation_space=OBSERVATION_SPACES["Dict"])
    with pytest.raises(ValueError, match="n_steps=2 with Dict observations; allowed: 1"):
        NAF("MultiInputPolicy", env, n_steps=2, buffer_size=10)


@pytest.mark.parametrize("double", [False, True])
def test_arguments_of_the_policy_stay_as_they_were_given(double, tmp_path):
    given = {"net_arch": [4]}
    model = make_model(policy_kwargs=given, double=double)
    assert model.policy_kwargs == given
    model.save(tmp_path / "model")
    loaded = NAF.load(tmp_path / "model", policy_kwargs={"net_arch": [4]}, device="cpu")
    assert loaded.policy.critic.n_heads == 1 + double
    np.testing.assert_array_equal(loaded.policy.parameters_to_vector(), model.policy.parameters_to_vector())
    with pytest.raises(ValueError, match="policy kwargs do not equal"):
        NAF.load(tmp_path / "model", policy_kwargs={"net_arch": [5]}, device="cpu")


def test_the_number_of_heads_has_one_source():
    with pytest.raises(ValueError, match=r"n_heads.*together with double=False"):
        make_model(policy_kwargs={"n_heads": 2})


@pytest.mark.parametrize(
    "arguments",
    [
        {"tau": 1},
        {"gamma": 0},
        {"gamma": 1},
        {"max_grad_norm": None},
        {"exploration": "covariance"},
        {"exploration": "covariance", "temperature": 1e-3},
        {"action_noise": NOISE},
        {"n_steps": 3},
        {"n_steps": 3, "n_step_correction": True},
        {
            "n_steps": 3,
            "replay_buffer_class": NStepReplayBuffer,
            "replay_buffer_kwargs": {"n_steps": 3, "gamma": 0.99},
        },
        {"train_freq": (2, "episode"), "gradient_steps": -1},
    ],
)
def test_what_is_allowed(arguments, tmp_path):
    make_model(**arguments).save(tmp_path / "model")
    NAF.load(tmp_path / "model", env=RandomEnv(), device="cpu").learn(130)


def test_it_just_works():
    assert NAF("MlpPolicy", "Pendulum-v1", device="cpu").learn(110).num_timesteps == 110
