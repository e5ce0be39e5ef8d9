"""Initial weights of which most are zero."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_pg_ext.policies import MlpPolicy, SparseInit


@pytest.mark.parametrize(("fan_in", "n_zeros"), [(10, 9), (17, 16), (128, 116), (1, 1)])
def test_every_unit_has_the_same_number_of_zeros(fan_in, n_zeros):
    layer = nn.Linear(fan_in, 50)
    SparseInit(0.9)(layer)
    assert ((layer.weight == 0).sum(1) == n_zeros).all()
    assert layer.weight.abs().max() <= 1 / np.sqrt(fan_in)
    assert not layer.bias.any()


def test_zeros_are_drawn_for_every_unit_apart():
    layer = nn.Linear(40, 300)
    SparseInit(0.5)(layer)
    share = (layer.weight == 0).float().mean(0)
    assert ((share > 0.35) & (share < 0.65)).all()
    assert layer.weight.abs().max() > 0.9 / np.sqrt(40)


def test_convolutions():
    layer = nn.Conv2d(4, 8, 3)
    SparseInit(0.9)(layer)
    assert ((layer.weight.flatten(1) == 0).sum(1) == 33).all()
    assert layer.weight.abs().max() <= 1 / 6


@pytest.mark.parametrize("sparsity", [-0.1, 1.5, "much"])
def test_bad_input(sparsity):
    with pytest.raises(ValueError, match=r"sparsity=.*; allowed: \[0, 1\]"):
        SparseInit(sparsity)


def test_policies_have_it_with_layer_norm_and_softplus():
    th.manual_seed(0)
    space, arguments = spaces.Box(-1, 1, (5,), np.float32), {"activation_fn": nn.LeakyReLU, "net_arch": [16, 16]}
    recipe = {"state_dependent_std": True, "std_function": "softplus", "layer_norm": True, "sparse_init": 0.9}
    policy = MlpPolicy(space, spaces.Box(-1, 1, (2,)), lambda _: 0.0, **arguments, **recipe)
    for layer in (module for module in policy.modules() if isinstance(module, nn.Linear)):
        n_inputs = layer.in_features
        assert ((layer.weight == 0).sum(1) == -(-9 * n_inputs // 10)).all()
    names = [type(layer).__name__ for layer in policy.mlp_extractor.policy_net]
    assert names == ["Linear", "LayerNorm", "LeakyReLU"] * 2
    obs = th.randn(3, 5)
    latent = policy.mlp_extractor.forward_actor(obs)
    x = policy.log_std + policy.action_net.log_std(latent)
    expected = th.log1p(x.exp())
    th.testing.assert_close(policy.get_distribution(obs).distribution.stddev, expected)
    hidden = policy.mlp_extractor.policy_net[:2](obs)
    th.testing.assert_close(hidden.mean(1), th.zeros(3), atol=1e-6, rtol=0)


def test_std_function_without_its_layer_is_refused():
    space = spaces.Box(-1, 1, (2,))
    with pytest.raises(ValueError, match="std_function='softplus' with state_dependent_std=False"):
        MlpPolicy(space, space, lambda _: 0.0, std_function="softplus")
