"""The features extractor for small images: its numbers, the layouts it takes, and stock algorithms with it."""

import numpy as np
import pytest
import stable_baselines3
import torch as th
from envs import ACTION_SPACES, RandomEnv
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecTransposeImage

from sb3_pg_ext import REINFORCE, fast
from sb3_pg_ext.policies import SmallCNN

BOOLS = spaces.Box(0, 1, (10, 10, 4), bool)
BYTES = spaces.Box(0, 255, (10, 10, 4), np.uint8)
SMALL = {"features_extractor_class": SmallCNN, "features_extractor_kwargs": {"features_dim": 8}, "net_arch": []}


def slow_features(extractor: SmallCNN, images: np.ndarray) -> np.ndarray:
    """The same in float64, pixel by pixel, from images [B, height, width, channels]."""
    kernel, bias, weight, offset = (
        parameter.detach().double().numpy()
        for module in (extractor.conv, extractor.linear)
        for parameter in (module.weight, module.bias)
    )
    n, height, width, _ = images.shape
    found = np.zeros((n, height - 2, width - 2, len(kernel)))
    for b, y, x, k in np.ndindex(found.shape):
        patch = images[b, y : y + 3, x : x + 3].transpose(2, 0, 1)
        found[b, y, x, k] = max(0.0, (patch * kernel[k]).sum() + bias[k])
    return np.maximum(0, found.reshape(n, -1) @ weight.T + offset)


@pytest.mark.parametrize("shape", [(10, 10, 4), (5, 3, 2), (3, 6, 1)])
def test_features_are_those_of_the_definition_in_both_layouts(shape):
    first = (shape[2], *shape[:2])
    last = SmallCNN(spaces.Box(0, 1, shape), features_dim=5, n_filters=3, channels_last=True)
    other = SmallCNN(spaces.Box(0, 1, first), features_dim=5, n_filters=3, channels_last=False)
    other.load_state_dict(last.state_dict())
    images = np.random.default_rng(0).random((4, *shape))
    observations = th.as_tensor(images, dtype=th.float32)
    expected = slow_features(last, images)
    np.testing.assert_allclose(last(observations).detach(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(other(observations.permute(0, 3, 1, 2)).detach(), expected, rtol=1e-5, atol=1e-6)
    assert (expected > 0).any()


@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        ((10, 10, 4), 4),
        ((4, 10, 10), 4),
        ((10, 10, 12), 12),
        ((12, 10, 10), 12),
        ((10, 10, 10), 10),
        ((8, 10, 4), 4),
        ((4, 8, 10), 4),
        ((4, 8, 4), 4),
    ],
)
def test_it_finds_the_axis_of_the_channels(shape, channels):
    extractor = SmallCNN(spaces.Box(0, 1, shape))
    assert extractor.conv.in_channels == channels
    assert extractor.channels_last == (shape[2] == channels)
    assert extractor(th.zeros(2, *shape)).shape == (2, 128)


@pytest.mark.parametrize(
    ("space", "kwargs", "problem"),
    [
        (spaces.Box(0, 1, (10, 10)), {}, "observation_space=.*three dimensions"),
        (spaces.Discrete(3), {}, r"observation_space=Discrete\(3\) with SmallCNN; allowed: a Box"),
        (spaces.Box(0, 1, (2, 10, 3)), {"channels_last": True}, "observation_space=.*at least 3×3"),
        (BOOLS, {"channels_last": "no"}, "channels_last='no'; allowed: True, False or None"),
        (BOOLS, {"features_dim": 0}, "features_dim=0; allowed: an integer ≥ 1"),
        (BOOLS, {"n_filters": 1.5}, "n_filters=1.5; allowed: an integer ≥ 1"),
    ],
)
def test_what_it_refuses(space, kwargs, problem):
    with pytest.raises(ValueError, match=problem):
        SmallCNN(space, **kwargs)


@pytest.mark.parametrize("n_stack", [1, 4])
def test_channels_that_are_first_are_not_last(n_stack):
    env = DummyVecEnv([lambda: RandomEnv(ACTION_SPACES["Discrete"], BYTES)])
    if n_stack > 1:
        env = VecFrameStack(VecTransposeImage(env), n_stack)
    kwargs = {**SMALL, "features_extractor_kwargs": {"channels_last": True}}
    message = rf"channels_last=True with images of shape \({4 * n_stack}, 10, 10\), .*SB3 transposes.*; allowed: None"
    with pytest.raises(ValueError, match=message):
        stable_baselines3.PPO("CnnPolicy", env, policy_kwargs=kwargs)
    assert SmallCNN(spaces.Box(0, 1, (5, 5, 8)), channels_last=True).conv.in_channels == 8


def test_booleans_and_integers_up_to_one_count_alike_and_up_to_255_as_images_do():
    policies = [
        stable_baselines3.PPO("CnnPolicy", RandomEnv(ACTION_SPACES["Discrete"], space), policy_kwargs=SMALL, seed=0)
        for space in (BOOLS, spaces.Box(0, 1, (4, 10, 10), np.uint8), spaces.Box(0, 255, (4, 10, 10), np.uint8))
    ]
    images = np.random.default_rng(0).random((3, 10, 10, 4)) < 0.3
    first = images.transpose(0, 3, 1, 2)
    given = [images, first.astype(np.uint8), 255 * first.astype(np.uint8)]
    bools, integers, bytes_ = (
        model.policy.predict_values(th.as_tensor(array)).detach() for model, array in zip(policies, given, strict=True)
    )
    np.testing.assert_allclose(integers, bools, rtol=1e-5)
    np.testing.assert_allclose(bytes_, bools, rtol=1e-5)


@pytest.mark.parametrize("policy", ["MlpPolicy", "CnnPolicy"])
@pytest.mark.parametrize("cls", [stable_baselines3.PPO, stable_baselines3.DQN, fast.A2C, REINFORCE])
def test_algorithms_train_with_it_and_load_it(cls, policy, tmp_path):
    arguments = {"learning_starts": 8} if cls is stable_baselines3.DQN else {"n_steps": 8}
    if cls is stable_baselines3.PPO:
        arguments["batch_size"] = 8
    model = cls(policy, RandomEnv(ACTION_SPACES["Discrete"], BOOLS), policy_kwargs=SMALL, seed=0, **arguments)
    model.learn(16)
    model.save(tmp_path / "model")
    loaded = cls.load(tmp_path / "model")
    observation = BOOLS.sample()
    assert loaded.policy_kwargs["features_extractor_class"] is SmallCNN
    assert SmallCNN.__module__ == "sb3_pg_ext.policies"
    assert loaded.predict(observation, deterministic=True) == model.predict(observation, deterministic=True)
    for name, parameter in model.policy.state_dict().items():
        assert th.equal(parameter, loaded.policy.state_dict()[name])
