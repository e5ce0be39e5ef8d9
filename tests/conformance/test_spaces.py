"""Every action space, observation space and policy that an algorithm is to support, and a refusal of all others."""

import pytest
import torch as th
from envs import ACTION_SPACES, OBSERVATION_SPACES, RandomEnv
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from .algorithms import STEPS, Algorithm, vector

POLICIES = {"image": "CnnPolicy", "Dict": "MultiInputPolicy"}
SMALL_FEATURES = {"CnnPolicy": {"features_dim": 8}, "MultiInputPolicy": {"cnn_output_dim": 8}}


def assert_learns(model):
    """Training changes the parameters, and predicts valid actions for one observation and for several."""
    before = vector(model)
    model.learn(STEPS)
    after = vector(model)
    assert not th.equal(before, after)
    assert th.isfinite(after).all()
    assert model.num_timesteps >= STEPS
    action, _ = model.predict(model.observation_space.sample())
    assert model.action_space.contains(action)
    for action in model.predict(model.env.reset())[0]:
        assert model.action_space.contains(action)


@pytest.mark.parametrize("name", ACTION_SPACES)
def test_action_spaces(algorithm: Algorithm, name):
    env = RandomEnv(ACTION_SPACES[name])
    if name in algorithm.traits.action_spaces:
        assert_learns(algorithm(env))
    else:
        with pytest.raises(AssertionError, match="only supports"):
            algorithm(env)


@pytest.mark.parametrize("name", OBSERVATION_SPACES)
def test_observation_spaces(algorithm: Algorithm, name):
    policy = POLICIES.get(name, "MlpPolicy")
    if policy not in algorithm.traits.policies:
        assert policy not in algorithm.cls.policy_aliases
        return
    kwargs = {"features_extractor_kwargs": SMALL_FEATURES[policy]} if policy in SMALL_FEATURES else {}
    assert_learns(algorithm(RandomEnv(observation_space=OBSERVATION_SPACES[name]), policy, policy_kwargs=kwargs))


def test_policy_classes(algorithm: Algorithm):
    class Wider(algorithm.cls.policy_aliases["MlpPolicy"]):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **{**kwargs, "net_arch": [12]})

    model = algorithm(policy=Wider)
    assert isinstance(model.policy, Wider)
    assert_learns(model)


class Halve(BaseFeaturesExtractor):
    def __init__(self, observation_space: spaces.Box):
        super().__init__(observation_space, features_dim=observation_space.shape[0])

    def forward(self, observations):
        return observations / 2


def test_features_extractors(algorithm: Algorithm):
    model = algorithm(policy_kwargs={"features_extractor_class": Halve})
    assert any(isinstance(module, Halve) for module in model.policy.modules())
    assert_learns(model)


@pytest.mark.parametrize("squash", [False, True])
def test_state_dependent_exploration(algorithm: Algorithm, squash):
    assert ("use_sde" in algorithm.parameters) == algorithm.traits.supports_sde
    if algorithm.traits.supports_sde:
        env = RandomEnv(ACTION_SPACES["Box of two dimensions"])
        policy_kwargs = {} if algorithm.spec.off_policy else {"squash_output": squash}  # SAC's always does
        assert_learns(algorithm(env, use_sde=True, sde_sample_freq=4, policy_kwargs=policy_kwargs))
