"""Policies whose first layers actor and critic share."""

import numpy as np
import pytest
import stable_baselines3
import torch as th
from envs import ACTION_SPACES, OBSERVATION_SPACES, RandomEnv
from torch import nn
from torch.nn.utils import parameters_to_vector

from sb3_pg_ext import A3C, ACKTR, IMPALA, NPG, REINFORCE, ActorCritic, AdaptiveKLPPO, fast
from sb3_pg_ext.algorithms.base.on_policy import OnPolicyBase
from sb3_pg_ext.functional.compiling import is_available
from sb3_pg_ext.plugins import AlgorithmSpec, registry
from sb3_pg_ext.policies import MlpPolicy

SHARED = {"net_arch": {"shared": [5, 4], "pi": [3], "vf": []}, "activation_fn": nn.ReLU}


def make(cls, policy="MlpPolicy", space="Box", action_space="Discrete", **kwargs):
    env = RandomEnv(ACTION_SPACES[action_space], OBSERVATION_SPACES[space])
    arguments = {"n_steps": 8, "seed": 0, "device": "cpu", "policy_kwargs": {**SHARED}, **kwargs}
    return cls(policy, env, **arguments)


def layer(x, linear, activation=True):
    y = x @ linear.weight.detach().double().numpy().T + linear.bias.detach().double().numpy()
    return np.maximum(y, 0) if activation else y


def test_outputs_are_those_of_the_definition():
    policy = make(REINFORCE).policy
    x = np.random.default_rng(0).uniform(-1, 1, (6, 3))
    body = policy.mlp_extractor
    trunk = layer(layer(x, body.shared_net[0]), body.shared_net[2])
    logits = layer(layer(trunk, body.policy_net[0]), policy.action_net, activation=False)
    observations = th.as_tensor(x, dtype=th.float32)
    with th.no_grad():
        values, found = policy.predict_values(observations), policy.get_distribution(observations).distribution.logits
        evaluated, *_ = policy.evaluate_actions(observations, th.zeros(6))
    np.testing.assert_allclose(values, layer(trunk, policy.value_net, activation=False), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(evaluated, values)
    centred = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(found, centred, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cls", [REINFORCE, NPG, AdaptiveKLPPO])
def test_algorithms_train_it_and_load_it(cls, tmp_path):
    arguments = {"batch_size": 8} if cls is AdaptiveKLPPO else {}
    model = make(cls, **arguments)
    before = model.policy.mlp_extractor.shared_net[0].weight.detach().clone()
    model.learn(16)
    because = ", because actor and critic share layers" if cls is AdaptiveKLPPO and is_available() else ""
    assert model.describe_engine() == "arrays" + because
    assert not th.equal(model.policy.mlp_extractor.shared_net[0].weight, before)
    model.save(tmp_path / "model")
    loaded = cls.load(tmp_path / "model")
    for name, parameter in model.policy.state_dict().items():
        assert th.equal(parameter, loaded.policy.state_dict()[name])


@pytest.mark.parametrize("space", ["Box", "MultiDiscrete"])
@pytest.mark.parametrize("cls", [REINFORCE, NPG, AdaptiveKLPPO, A3C])
def test_both_backends_train_it_alike(cls, space):
    own = {AdaptiveKLPPO: {"batch_size": 8}, A3C: {"start_method": "fork"}, NPG: {"target_kl": 1e-3}}
    arguments = own.get(cls, {})

    def train(n_steps, engine="array"):
        model = make(cls, engine=engine, action_space=space, **arguments).learn(n_steps)
        return parameters_to_vector(model.policy.parameters()).detach()

    ours, theirs = (train(24, engine) for engine in ("array", "autograd"))
    th.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert (ours - train(0)).abs().max() > 1e-4, "nothing was learned"


def test_images_pass_through_it_too():
    kwargs = {**SHARED, "features_extractor_kwargs": {"features_dim": 8}}
    make(REINFORCE, "CnnPolicy", "image", policy_kwargs=kwargs).learn(8)


def test_stock_algorithms_take_the_policy():
    model = make(stable_baselines3.A2C, MlpPolicy)
    assert model.policy.mlp_extractor.shared_net[0].weight.shape == (5, 3)
    model.learn(16)


@pytest.mark.parametrize("cls", [fast.PPO, fast.A2C, fast.TRPO, fast.MaskablePPO])
def test_the_twins_refuse_it(cls):
    with pytest.raises(ValueError, match=r"policy_kwargs: net_arch=.*'shared'.*allowed: pi and vf.*own on-policy"):
        make(cls, n_steps=128)


def test_all_on_policy_algorithms_of_this_package_take_it():
    """As the twins say."""
    plugins = registry()
    own = [plugins.find(AlgorithmSpec, name).cls for name in plugins.names(AlgorithmSpec)]
    own = [cls for cls in own if issubclass(cls, ActorCritic | OnPolicyBase)]
    assert {ACKTR, A3C, ActorCritic, AdaptiveKLPPO, IMPALA, NPG, REINFORCE} <= {*own}
    for cls in own:
        model = cls("MlpPolicy", RandomEnv(ACTION_SPACES["Box"]), policy_kwargs={**SHARED}, device="cpu")
        assert model.policy.mlp_extractor.shared_net[0].weight.shape == (5, 3)


@pytest.mark.parametrize(
    ("net_arch", "message"),
    [
        ({"shared": [0]}, "net_arch: shared=0; allowed: an integer ≥ 1"),
        ({"shared": [8], "pi": [2.5]}, "net_arch: pi=2.5; allowed: an integer ≥ 1"),
        ({"shared": 64, "pi": [], "vf": []}, "net_arch: shared=64; allowed: a list of integers ≥ 1"),
        ({"pi": 64}, "net_arch: pi=64; allowed: a list of integers ≥ 1"),
        ({"shaerd": [64]}, r"net_arch='shaerd' \(did you mean 'shared'\?\); allowed: 'shared', 'pi', 'vf'"),
        ({"pi": [8], "fv": []}, r"a key of net_arch='fv'; allowed: 'shared', 'pi', 'vf'"),
    ],
)
def test_what_it_refuses(net_arch, message):
    with pytest.raises(ValueError, match=message):
        make(REINFORCE, policy_kwargs={"net_arch": net_arch})
