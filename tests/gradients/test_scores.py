"""Score functions of policies, against one backward pass for every step."""

from operator import itemgetter

import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, OBSERVATION_SPACES, RandomEnv
from gymnasium import spaces
from stable_baselines3.common.utils import obs_as_tensor

from sb3_pg_ext import REINFORCE
from sb3_pg_ext.gradients import scores
from sb3_pg_ext.gradients.scores import ScoreFunctions
from sb3_pg_ext.policies.inputs import PolicyInputs
from sb3_pg_ext.policies.observations import map_arrays

SMALL_CNN = {"net_arch": [4], "features_extractor_kwargs": {"features_dim": 8}}
SMALL_COMBINED = {"net_arch": [4], "features_extractor_kwargs": {"cnn_output_dim": 8}}
POLICIES = {
    "softmax": ("MlpPolicy", "Discrete", "Box", {"net_arch": [5, 4]}, {}),
    "no hidden layer": ("MlpPolicy", "MultiBinary", "Discrete", {"net_arch": []}, {}),
    "Gaussian": ("MlpPolicy", "Box of two dimensions", "Box", {"net_arch": [4]}, {}),
    "state-dependent deviation": ("MlpPolicy", "Box", "Box", {"net_arch": [4], "state_dependent_std": True}, {}),
    "temperature": ("MlpPolicy", "MultiDiscrete", "Box", {"net_arch": [4], "temperature": 2.0}, {}),
    "gSDE": ("MlpPolicy", "Box", "Box", {"net_arch": [4]}, {"use_sde": True}),
    "image": ("CnnPolicy", "Discrete", "image", SMALL_CNN, {}),
    "Dict": ("MultiInputPolicy", "Discrete", "Dict", SMALL_COMBINED, {}),
}
each = pytest.mark.parametrize("name", POLICIES)


def play(name, **kwargs):
    """A model after a rollout with learning rate 0, and its rollout buffer."""
    policy, action_space, observation_space, policy_kwargs, arguments = POLICIES[name]
    env = RandomEnv(ACTION_SPACES[action_space], OBSERVATION_SPACES[observation_space])
    arguments = {"learning_rate": 0.0, "n_episodes": 3, "seed": 0, "device": "cpu", **arguments, **kwargs}
    model = REINFORCE(policy, env, policy_kwargs=policy_kwargs, **arguments).learn(1)
    return model, model.rollout_buffer


@each
def test_every_row_is_the_gradient_of_its_step(name, monkeypatch):
    monkeypatch.setattr(scores, "BLOCK", 4)
    model, buffer = play(name)
    found = model._episodes.scores[:]
    for j, row in enumerate(found):
        obs = obs_as_tensor(map_arrays(itemgetter(j), buffer.observations), model.device)
        action = th.as_tensor(buffer.actions[j], dtype=th.float32)
        if isinstance(model.action_space, spaces.Discrete):
            action = action[:, 0]
        log_prob = model.policy.get_distribution(obs).log_prob(action).sum()
        expected = th.autograd.grad(log_prob, model._scores.parameters)
        np.testing.assert_allclose(row, th.cat([g.flatten() for g in expected]), rtol=1e-4, atol=1e-5)


@each
@pytest.mark.parametrize("baseline", ["optimal", "optimal_per_component"])
def test_every_policy_trains_with_baselines_that_read_them(name, baseline):
    model, _ = play(name, baseline=baseline, learning_rate=1e-3)
    assert model._n_updates == 1


def test_the_critic_has_no_part_in_them():
    model, _ = play("softmax")
    names = {name for name, p in model.policy.named_parameters() if any(p is q for q in model._scores.parameters)}
    assert names == {
        "action_net.weight",
        "action_net.bias",
        *(f"mlp_extractor.policy_net.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")),
    }


def test_slices_are_rows():
    model, buffer = play("softmax")
    obs, actions = buffer.observations[:, 0], buffer.actions[:, 0]
    rows = ScoreFunctions(model.policy, PolicyInputs(obs), actions)
    np.testing.assert_allclose(rows[2:7], rows[:][2:7], rtol=1e-5, atol=1e-7)
    assert rows[3:3].shape == (0, rows.shape[1])
    assert rows.shape == (len(obs), 3 * 5 + 5 + 5 * 4 + 4 + 4 * 3 + 3)
