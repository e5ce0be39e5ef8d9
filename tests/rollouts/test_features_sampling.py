"""Choosing actions behind a features extractor: every state passes once, and all numbers are the policy's own."""

import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, OBSERVATION_SPACES, RandomEnv
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from stable_baselines3 import A2C
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_pg_ext import fast
from sb3_pg_ext.functional.finite import NonFiniteError
from sb3_pg_ext.policies import SmallCNN
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.plain_mlp import layers_behind_features
from sb3_pg_ext.rollouts.action_sampling import FeaturesActionSampler, PolicyActionSampler, make_action_sampler

N_ENVS, N_STEPS = 3, 4
BOOLS = spaces.Box(0, 1, (10, 10, 4), bool)


class OwnExtractor(BaseFeaturesExtractor):
    """A layer of a user."""

    def __init__(self, observation_space):
        super().__init__(observation_space, 6)
        self.layer = nn.Linear(3, 6)

    def forward(self, observations):
        return self.layer(observations).relu()


POLICIES = {
    "images": ("CnnPolicy", OBSERVATION_SPACES["image"], {"features_extractor_kwargs": {"features_dim": 8}}),
    "small images": ("CnnPolicy", BOOLS, {"features_extractor_class": SmallCNN, "net_arch": []}),
    "Dict": ("MultiInputPolicy", OBSERVATION_SPACES["Dict"], {"features_extractor_kwargs": {"cnn_output_dim": 8}}),
    "Discrete": ("MlpPolicy", OBSERVATION_SPACES["Discrete"], {}),
    "an extractor of one's own": ("MlpPolicy", OBSERVATION_SPACES["Box"], {"features_extractor_class": OwnExtractor}),
}


def make_policy(name, action_space="Discrete", cls=A2C, **more):
    policy, space, kwargs = POLICIES[name]
    env = RandomEnv(ACTION_SPACES[action_space], space)
    return cls(policy, env, device="cpu", seed=0, policy_kwargs={**kwargs, **more}).policy


def observe(policy, seed):
    """One batch of observations for every step, as a VecEnv gives them after SB3's wrappers."""
    policy.observation_space.seed(seed)
    batches = []
    for _ in range(N_STEPS):
        samples = [policy.observation_space.sample() for _ in range(N_ENVS)]
        is_dict = isinstance(samples[0], dict)
        batches.append(
            {key: np.stack([sample[key] for sample in samples]) for key in samples[0]} if is_dict else np.stack(samples)
        )
    return batches


def run(sampler, batches, masks=None):
    th.manual_seed(3)
    return np.stack([sampler(PolicyInputs(batch, masks)) for batch in batches])


@pytest.mark.parametrize("action_space", ACTION_SPACES)
@pytest.mark.parametrize("name", POLICIES)
def test_actions_values_and_log_probabilities_are_the_policys_own(name, action_space):
    policy = make_policy(name, action_space)
    act, path = make_action_sampler(policy, N_ENVS, N_STEPS)
    assert isinstance(act, FeaturesActionSampler)
    assert path.startswith("an MLP in NumPy behind features, because ")
    assert act.evaluated is None
    batches = observe(policy, seed=1)
    general = PolicyActionSampler(policy)
    actions, expected = run(act, batches), run(general, batches)
    np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-6)
    values, log_probs = act.evaluated
    for t, batch in enumerate(batches):
        obs, _ = PolicyInputs(batch).tensors(policy.device)
        taken = th.as_tensor(actions[t]).reshape(N_ENVS, -1)
        with th.no_grad():
            v, log_prob, _ = policy.evaluate_actions(obs, taken[:, 0] if action_space == "Discrete" else taken)
        np.testing.assert_allclose(values[t], v.flatten(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(log_probs[t], log_prob, rtol=1e-4, atol=1e-5)


def test_masks_are_those_of_the_step():
    policy = make_policy("small images", cls=MaskablePPO)
    batches, masks = observe(policy, seed=1), np.array([[1, 0, 0], [0, 1, 1], [0, 0, 1]], bool)
    act = FeaturesActionSampler(policy, *layers_behind_features(policy), N_ENVS, N_STEPS)
    actions = run(act, batches, masks)
    assert masks[np.arange(N_ENVS), actions].all()
    with th.no_grad():
        obs, more = PolicyInputs(batches[0], masks).tensors(policy.device)
        _, log_probs, _ = policy.evaluate_actions(obs, th.as_tensor(actions[0]), **more)
    np.testing.assert_allclose(act.evaluated[1][0], log_probs, rtol=1e-4, atol=1e-6)
    assert (act.evaluated[1][:, [0, 2]] == 0).all()


def test_every_state_of_a_rollout_passes_once():
    """Beside those of the rollout itself, the last one does, and what follows a step that was cut off."""
    kwargs = {"features_extractor_kwargs": {"features_dim": 8}}
    env = RandomEnv(ACTION_SPACES["Discrete"], OBSERVATION_SPACES["image"], length=100)
    model = fast.A2C("CnnPolicy", env, n_steps=6, device="cpu", policy_kwargs=kwargs)
    sizes = []
    model.policy.features_extractor.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    model.learn(6)
    assert sizes == [*[1] * 6, 1, 6]  # the last is the update's


def test_a_dear_policy_that_extracts_twice_is_asked_for_all_in_one():
    policy = make_policy("images", share_features_extractor=False)
    act, path = make_action_sampler(policy, N_ENVS, N_STEPS)
    assert path.startswith("the policy's own forward pass, because ")
    actions = run(act, batches := observe(policy, seed=1))
    values, log_probs = act.evaluated
    with th.no_grad():
        v, log_prob, _ = policy.evaluate_actions(th.as_tensor(batches[2]), th.as_tensor(actions[2]))
    np.testing.assert_allclose(values[2], v.flatten(), rtol=1e-5)
    np.testing.assert_allclose(log_probs[2], log_prob, rtol=1e-5)


@pytest.mark.parametrize("action_space", ["Discrete", "Box"])
@pytest.mark.parametrize("share", [True, False])
def test_parameters_that_are_not_finite_are_noticed(share, action_space):
    policy = make_policy("images", action_space, share_features_extractor=share)
    with th.no_grad():
        policy.pi_features_extractor.linear[0].weight.fill_(th.nan)
    act, _ = make_action_sampler(policy, N_ENVS, N_STEPS)
    with pytest.raises(NonFiniteError, match="policy output"):
        run(act, observe(policy, seed=1))
