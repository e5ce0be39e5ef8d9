"""The policy's parameters and the vector that they lie in."""

import copy

import numpy as np
import pytest
import torch as th
from envs import RandomEnv
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.nn.utils import parameters_to_vector

from sb3_pg_ext.algorithms.a3c import A3C
from sb3_pg_ext.workers.flat import flatten, frozen_elements, lay_out


def replace_policy(model):
    model.policy = copy.deepcopy(model.policy)


def convert(model):
    model.policy.double().float()


@pytest.mark.parametrize("move", [replace_policy, convert])
def test_a_policy_whose_parameters_have_moved_learns(move):
    model = A3C("MlpPolicy", RandomEnv(), seed=0, start_method="fork", policy_kwargs={"net_arch": [4]})
    model.learn(20)
    move(model)
    before = parameters_to_vector(model.policy.parameters()).detach().clone()
    model.learn(20)
    after = parameters_to_vector(model.policy.parameters()).detach()
    assert (after - before).abs().max() > 1e-5
    np.testing.assert_array_equal(after, model.policy.optimizer.parameter.detach())


def test_parameters_are_laid_out_once_more_without_harm():
    env = RandomEnv()
    policy = ActorCriticPolicy(env.observation_space, env.action_space, lambda _: 1e-3, net_arch=[4])
    before = parameters_to_vector(policy.parameters()).detach().clone()
    flat = flatten(policy)
    lay_out(policy, flat)
    flat.data.mul_(2)
    flat.grad.fill_(3)
    for parameter in policy.parameters():
        assert (parameter.grad == 3).all()
    th.testing.assert_close(parameters_to_vector(policy.parameters()).detach(), 2 * before, rtol=0, atol=0)


def test_frozen_elements():
    env = RandomEnv()
    policy = ActorCriticPolicy(env.observation_space, env.action_space, lambda _: 1e-3, net_arch=[])
    policy.action_net.requires_grad_(False)  # 3 weights and a bias, after the logarithm of the standard deviation
    assert frozen_elements(policy).tolist() == [False] + 4 * [True] + 4 * [False]
