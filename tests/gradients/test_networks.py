"""Networks with optimisers of their own: both backends against autograd in double precision."""

from copy import deepcopy

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_pg_ext.gradients.networks import ArrayNetwork, ArrayNetworkBackend, AutogradNetworkBackend
from sb3_pg_ext.policies.plain_mlp import UnsupportedPolicyError

OBSERVATIONS, ACTIONS = spaces.Box(-1, 1, (4,), np.float32), spaces.Box(-1, 1, (2,), np.float32)
B = 9


def make_critic(net_arch=(8, 6), n_critics=2):
    th.manual_seed(0)
    extractor = FlattenExtractor(OBSERVATIONS)
    return ContinuousCritic(OBSERVATIONS, ACTIONS, list(net_arch), extractor, 4, nn.Tanh, n_critics=n_critics)


def array_backend(critic, optimizer):
    return ArrayNetworkBackend([ArrayNetwork(net[:-1], {"q": net[-1]}) for net in critic.q_networks], optimizer)


def autograd_backend(critic, optimizer):
    critic.share_features_extractor = False
    return AutogradNetworkBackend(critic, lambda obs, actions: {"q": th.cat(critic(obs, actions), 1)}, optimizer)


each_backend = pytest.mark.parametrize("make", [array_backend, autograd_backend])
each_shape = pytest.mark.parametrize(("net_arch", "n_critics"), [((8, 6), 2), ((5,), 1), ((), 3)])


def batch():
    rng = np.random.default_rng(0)
    return th.tensor(rng.normal(size=(B, 4)).astype(np.float32)), rng.normal(size=(B, 2)).astype(np.float32)


def oracle(critic, observations, actions):
    """Q in double precision, with what it depends on."""
    double = deepcopy(critic).double()
    taken = th.tensor(actions, dtype=th.float64, requires_grad=True)
    x = th.cat([observations.double(), taken], 1)
    return double, taken, th.cat([net(x) for net in double.q_networks], 1)


@each_backend
@each_shape
def test_numbers_and_gradients(make, net_arch, n_critics):
    critic = make_critic(net_arch, n_critics)
    backend = make(critic, th.optim.SGD(critic.parameters(), lr=0.1))
    observations, actions = batch()
    double, taken, expected = oracle(critic, observations, actions)
    c = np.random.default_rng(1).normal(size=(B, n_critics)).astype(np.float32)
    np.testing.assert_allclose(backend.predict(observations, actions)["q"], expected.detach(), rtol=1e-5, atol=1e-6)

    of_actions = backend.action_gradient(c[:, 0])
    (gradient,) = th.autograd.grad((expected[:, 0] * th.tensor(c[:, 0])).sum(), taken, retain_graph=True)
    np.testing.assert_allclose(of_actions, gradient, rtol=1e-4, atol=1e-6)

    gradients = th.autograd.grad((expected * th.tensor(c)).sum(), list(double.parameters()))
    norm = float(th.linalg.vector_norm(th.cat([g.flatten() for g in gradients])))
    assert backend.descend({"q": c}, None) == pytest.approx(norm, rel=1e-4)
    for now, before, g in zip(critic.parameters(), double.parameters(), gradients, strict=True):
        np.testing.assert_allclose(now.detach(), (before - 0.1 * g).detach(), rtol=1e-4, atol=1e-5)


@each_backend
def test_gradients_add_up(make):
    critic = make_critic()
    backend = make(critic, th.optim.SGD(critic.parameters(), lr=0.0))
    c = np.ones((B, 2), np.float32)
    backend.predict(*batch())
    once = backend.descend({"q": c}, None)
    backend.zero_gradient()
    for _ in range(2):
        backend.predict(*batch())
        backend.backward({"q": c})
    assert backend.clip_gradient(0.5) == pytest.approx(2 * once, rel=1e-5)
    assert backend.clip_gradient(None) == pytest.approx(0.5, rel=1e-4)


def test_an_action_gradient_leaves_the_parameters_alone():
    for make in (array_backend, autograd_backend):
        critic = make_critic()
        backend = make(critic, th.optim.SGD(critic.parameters(), lr=0.1))
        backend.zero_gradient()
        backend.predict(*batch())
        backend.action_gradient(np.ones(B, np.float32))
        assert backend.clip_gradient(None) == 0


def test_arrays_notice_another_optimizer_state():
    critic = make_critic()
    optimizer = th.optim.Adam(critic.parameters())
    backend = array_backend(critic, optimizer)
    for _ in range(2):
        backend.predict(*batch())
        backend.descend({"q": np.ones((B, 2), np.float32)}, None)
        assert backend.is_current()
    optimizer.load_state_dict(deepcopy(optimizer.state_dict()))
    assert not backend.is_current()


def test_arrays_refuse_an_optimizer_of_something_else():
    critic = make_critic()
    with pytest.raises(UnsupportedPolicyError, match="parameters beside"):
        array_backend(critic, th.optim.SGD([*critic.parameters(), nn.Parameter(th.zeros(1))], lr=0.1))
