"""Images laid out for convolutions: the same numbers, and only where the policy does not mind."""

import numpy as np
import pytest
from envs import ACTION_SPACES, OBSERVATION_SPACES, RandomEnv
from stable_baselines3 import PPO
from stable_baselines3.common.torch_layers import NatureCNN

from sb3_pg_ext.policies.images import lay_out_images
from sb3_pg_ext.policies.inputs import PolicyInputs


class OwnCNN(NatureCNN):
    """A user's extractor, which may do anything to an image."""


def make_policy(name, space, **policy_kwargs):
    env = RandomEnv(ACTION_SPACES["Discrete"], OBSERVATION_SPACES[space])
    return PPO(name, env, device="cpu", policy_kwargs=policy_kwargs).policy


def is_laid_out(array):
    """Whether the channels of [B, channels, height, width] are last in memory."""
    return array.transpose(0, 2, 3, 1).flags["C_CONTIGUOUS"]


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 3, 36, 40), np.uint8)


@pytest.mark.parametrize("share", [True, False])
def test_images_of_the_stock_policy(share):
    policy = make_policy("CnnPolicy", "image", share_features_extractor=share)
    laid_out = lay_out_images(policy, PolicyInputs(IMAGES)).observations
    np.testing.assert_array_equal(laid_out, IMAGES)
    rows = np.array([3, 1])
    assert is_laid_out(laid_out)
    assert is_laid_out(laid_out[rows])
    assert not is_laid_out(IMAGES)


def test_images_in_a_dictionary():
    policy = make_policy("MultiInputPolicy", "Dict")
    observations = {"image": IMAGES, "vector": np.ones((5, 3), np.float32), "number": np.zeros((5, 1), np.int64)}
    laid_out = lay_out_images(policy, PolicyInputs(observations)).observations
    assert is_laid_out(laid_out["image"])
    for key, array in observations.items():
        np.testing.assert_array_equal(laid_out[key], array)


def test_what_a_user_has_changed_is_left_alone(monkeypatch):
    inputs = PolicyInputs(IMAGES)
    assert lay_out_images(make_policy("CnnPolicy", "image", features_extractor_class=OwnCNN), inputs) is inputs
    policy = make_policy("CnnPolicy", "image")
    monkeypatch.setattr(policy, "extract_features", lambda *args: None)
    assert lay_out_images(policy, inputs) is inputs
