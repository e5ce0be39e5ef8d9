"""Layers that actor and critic share, and small images, without autograd."""

import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, RandomEnv
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_pg_ext import DAC, ActorCritic
from sb3_pg_ext.policies import SmallCNN

IMAGES = {"features_extractor_class": SmallCNN, "features_extractor_kwargs": {"features_dim": 7, "n_filters": 3}}
NETWORKS = {
    "a trunk": (spaces.Box(-1, 1, (3,)), "MlpPolicy", {"net_arch": {"shared": [6, 5], "pi": [4], "vf": []}}),
    "images": (spaces.Box(0, 1, (5, 4, 2), bool), "CnnPolicy", {**IMAGES, "net_arch": []}),
    "channels first": (spaces.Box(-1, 1, (2, 5, 4)), "CnnPolicy", {**IMAGES, "net_arch": [6]}),
    "a trunk behind images": (spaces.Box(0, 1, (5, 4, 2), bool), "CnnPolicy", {**IMAGES, "net_arch": {"shared": [6]}}),
}
"""Observations, the policy, and its arguments."""


def make(networks, space="Discrete", n_envs=1, algorithm=ActorCritic, **kwargs):
    """A model for environments of that kind."""
    observations, policy, policy_kwargs = NETWORKS[networks]
    vec_env = DummyVecEnv([lambda: RandomEnv(ACTION_SPACES[space], observations)] * n_envs)
    arguments = {"policy_kwargs": policy_kwargs, "seed": 1, "device": "cpu", "n_steps": 13, **kwargs}
    return algorithm(policy, vec_env, **arguments)


@pytest.mark.parametrize(("optimizer", "rate", "space"), [("rmsprop", 1e-3, "Discrete"), ("obgd", 1.0, "Box")])
@pytest.mark.parametrize("networks", NETWORKS)
def test_the_same_training_as_by_autograd(networks, space, optimizer, rate):
    trained = {}
    for engine in ("auto", "array", "autograd"):
        model = make(networks, space, optimizer=optimizer, learning_rate=rate, ent_coef=0.05, engine=engine)
        before = th.nn.utils.parameters_to_vector(model.policy.parameters()).detach().clone()
        model.learn(25)
        trained[engine] = th.nn.utils.parameters_to_vector(model.policy.parameters()).detach()
        assert (trained[engine] != before).any()
    for engine in ("auto", "array"):
        th.testing.assert_close(trained[engine], trained["autograd"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("networks", ["a trunk", "images"])
@pytest.mark.parametrize(("algorithm", "space"), [(ActorCritic, "Discrete"), (DAC, "Box")])
def test_compatible_critics(networks, algorithm, space):
    trained = []
    for engine in ("array", "autograd"):
        model = make(networks, space, algorithm=algorithm, critic="compatible", learning_rate=1e-2, engine=engine)
        trained.append(th.nn.utils.parameters_to_vector(model.learn(25).policy.parameters()).detach())
    th.testing.assert_close(*trained, rtol=0, atol=2e-5)


def test_several_environments_one_after_the_other_and_averaged():
    for env_updates in ("in_order", "averaged"):
        trained = {}
        for engine in ("auto", "array", "autograd"):
            arguments = {"env_updates": env_updates, "optimizer": "rmsprop", "learning_rate": 1e-3, "engine": engine}
            model = make("images", n_envs=3, **arguments).learn(30)
            trained[engine] = th.nn.utils.parameters_to_vector(model.policy.parameters()).detach()
        for engine in ("auto", "array"):
            th.testing.assert_close(trained[engine], trained["autograd"], rtol=0, atol=2e-5)


def test_what_differentiates_is_said():
    model = make("images", optimizer="rmsprop")
    assert model.describe_engine().startswith(("compiled arrays", "arrays"))
    assert make("images").describe_engine().startswith("arrays, because")


def test_what_is_not_done_in_numpy_is_said():
    with pytest.raises(ValueError, match=r"engine='array' cannot .*a Q-network beside layers that are shared"):
        make("a trunk", critic="q", engine="array")

    class Other(SmallCNN):
        pass

    model = make("images", policy_kwargs={**NETWORKS["images"][2], "features_extractor_class": Other})
    assert model.describe_engine() == "autograd, because it extracts features"


def test_integers_that_stock_divides_by_255_are_left_to_pytorch(monkeypatch):
    monkeypatch.setitem(NETWORKS, "bytes", (spaces.Box(0, 255, (5, 4, 3), np.uint8), *NETWORKS["images"][1:]))
    assert make("bytes").learn(10).describe_engine().startswith("autograd, because its observations are Box")
