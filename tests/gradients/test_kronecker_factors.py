"""Kronecker factors of whole policies: both backends, against the Fisher matrix that NPG's products give."""

import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, OBSERVATION_SPACES
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_pg_ext.gradients.array_backend import ArrayBackend
from sb3_pg_ext.gradients.autograd_backend import AutogradBackend
from sb3_pg_ext.gradients.layers import known_layers, unknown_parameters
from sb3_pg_ext.gradients.minibatches import action_array
from sb3_pg_ext.policies.exploration import MlpPolicy
from sb3_pg_ext.policies.inputs import PolicyInputs

SPACES = ["Box", "Box of two dimensions", "Discrete", "MultiDiscrete", "MultiBinary"]
BACKENDS = [ArrayBackend, AutogradBackend]


def make(action_space="Discrete", cls=MlpPolicy, observation_space=OBSERVATION_SPACES["Box"], **kwargs):
    th.manual_seed(0)
    return cls(
        observation_space,
        ACTION_SPACES[action_space],
        lambda _: 1e-2,
        **{"net_arch": [5, 4], "ortho_init": False, **kwargs},
    )


def batch(policy, size):
    rng = np.random.default_rng(0)
    policy.action_space.seed(0)
    observations = rng.uniform(-1, 1, (size, *policy.observation_space.shape)).astype(np.float32)
    actions = np.stack([np.reshape(policy.action_space.sample(), -1) for _ in range(size)])
    return PolicyInputs(observations), action_array(actions, policy.action_space)


def factors(backend, inputs, actions, fisher="exact"):
    with backend.recorded_layers():
        backend.evaluate_actions(inputs, actions)
        return {each.weight: each for each in backend.kronecker_factors(fisher)}


TRUNKS = [{"shared": [5], "pi": [4], "vf": [3]}, {"shared": [5, 4]}]


@pytest.mark.parametrize("fisher", ["exact", "sampled"])
@pytest.mark.parametrize(
    ("action_space", "net_arch"),
    [*((space, [5, 4]) for space in SPACES), *((space, trunk) for space in SPACES[1:3] for trunk in TRUNKS)],
)
def test_both_backends_agree(action_space, net_arch, fisher):
    policy = make(action_space, net_arch=net_arch)
    found = []
    for cls in BACKENDS:
        th.manual_seed(1)
        found.append(factors(cls(policy), *batch(policy, 16), fisher))
    one, other = found
    assert one.keys() == other.keys() == {m.weight for m in policy.modules() if isinstance(m, nn.Linear)}
    for weight, ours in one.items():
        assert ours.bias is other[weight].bias
        assert ours.of_actor == other[weight].of_actor
        for name in ("inputs", "outputs"):
            theirs = getattr(other[weight], name).numpy()
            np.testing.assert_allclose(getattr(ours, name), theirs, atol=1e-5)


@pytest.mark.parametrize("kwargs", [{}, {"temperature": 2.5}], ids=str)
@pytest.mark.parametrize("action_space", SPACES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_is_the_block_of_the_fisher_matrix_at_one_state(backend, action_space, kwargs):
    if kwargs and action_space.startswith("Box"):
        pytest.skip("a Gaussian has no temperature")
    check_blocks(make(action_space, **kwargs), backend)


@pytest.mark.parametrize(
    ("kwargs", "backend"),
    [({"state_dependent_std": True}, AutogradBackend), *(({"net_arch": TRUNKS[0]}, backend) for backend in BACKENDS)],
)
def test_is_the_block_of_other_policies_too(kwargs, backend):
    """Without the part of V, where actor and critic share layers."""
    check_blocks(make("Box of two dimensions", **kwargs), backend)


def check_blocks(policy, make_backend):
    backend = make_backend(policy)
    inputs, actions = batch(policy, 1)
    by_weight = factors(backend, inputs, actions)
    with backend.recorded_layers():
        backend.predict_values(inputs)
        of_values = {each.weight: np.asarray(each.outputs) for each in backend.kronecker_factors(None)}
    backend.evaluate_policy(inputs, actions)
    parameters, _ = backend.policy_gradient(np.ones(1, np.float32))
    product = backend.fisher_product()
    identity = th.eye(sum(p.numel() for p in parameters))
    fisher = th.stack([product(row) for row in identity]).detach().numpy()
    starts = dict(zip(parameters, np.cumsum([0, *(p.numel() for p in parameters)]), strict=False))
    checked = 0
    for weight, layer in by_weight.items():
        if not layer.of_actor:
            continue
        of_pi = np.asarray(layer.outputs) - of_values.get(weight, 0)
        n = weight[0].numel()
        block = np.kron(of_pi, np.asarray(layer.inputs)[:n, :n])
        rows = slice(starts[weight], starts[weight] + weight.numel())
        np.testing.assert_allclose(fisher[rows, rows], block, rtol=1e-4, atol=1e-5)
        if layer.bias is not None:
            rows = slice(starts[layer.bias], starts[layer.bias] + layer.bias.numel())
            np.testing.assert_allclose(fisher[rows, rows], of_pi, rtol=1e-4, atol=1e-5)
        checked += 1
    assert checked >= 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_curvature_of_the_critic_is_that_of_gauss_and_newton(backend):
    """E[∇V ∇Vᵀ], without another factor, at one state."""
    policy = make()
    inputs, actions = batch(policy, 1)
    engine = backend(policy)
    of_critic = [each for each in factors(engine, inputs, actions).values() if not each.of_actor]
    with engine.recorded_layers():
        engine.predict_values(inputs)
        alone = engine.kronecker_factors(None)
    assert len(of_critic) == len(alone) == 3
    engine.zero_gradient()
    engine.backward({"values": np.ones(1, np.float32)})
    for layers in (of_critic, alone):
        for layer in layers:
            gradient = layer.weight.grad.flatten().numpy()
            n = layer.weight.shape[1]
            block = np.kron(np.asarray(layer.outputs), np.asarray(layer.inputs)[:n, :n])
            np.testing.assert_allclose(block, np.outer(gradient, gradient), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("action_space", SPACES)
def test_sampled_is_exact_on_average(action_space):
    policy = make(action_space)
    inputs, actions = batch(policy, 1)
    many = PolicyInputs(np.repeat(inputs.observations, 20_000, 0))
    exact = factors(ArrayBackend(policy), inputs, actions)
    sampled = factors(ArrayBackend(policy), many, np.repeat(actions, 20_000, 0), "sampled")
    for weight, layer in exact.items():
        scale = np.abs(layer.outputs).max()
        np.testing.assert_allclose(sampled[weight].outputs, layer.outputs, atol=0.05 * scale)


class Convolutions(BaseFeaturesExtractor):
    """For the small images of these tests."""

    def __init__(self, observation_space):
        super().__init__(observation_space, 6)
        channels, height, width = observation_space.shape
        self.net = nn.Sequential(nn.Conv2d(channels, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 3, stride=4))
        self.linear = nn.Linear(2 * (height // 4) * (width // 4), 6)

    def forward(self, observations):
        return self.linear(self.net(observations).flatten(1))


def test_of_convolutions():
    """Those that fill their input are linear layers, whose blocks are exact; the others have a factor for each."""
    policy = make(observation_space=spaces.Box(0, 255, (1, 12, 12), np.uint8), features_extractor_class=Convolutions)
    backend = AutogradBackend(policy)
    space = policy.observation_space
    inputs = PolicyInputs(np.stack([space.sample() for _ in range(2)]))
    found = factors(backend, inputs, np.zeros((2, 1), np.int64))
    convolutions = [m for m in policy.modules() if isinstance(m, nn.Conv2d)]
    assert convolutions
    for module in convolutions:
        layer = found[module.weight]
        assert layer.of_actor
        assert layer.inputs.shape == (module.weight[0].numel() + 1,) * 2
        assert layer.outputs.shape == (len(module.weight),) * 2
        assert th.linalg.eigvalsh(layer.outputs).min() > -1e-4
    engine = AutogradBackend(policy)
    engine.freeze([p for module in convolutions for p in module.parameters()])
    left = factors(engine, inputs, np.zeros((2, 1), np.int64))
    assert left.keys() == found.keys() - {module.weight for module in convolutions}


def test_a_layer_that_is_used_twice_has_two_places():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            return self.linear(self.linear(x))

    policy = make()
    size = policy.observation_space.shape[0]
    policy.features_extractor.flatten = nn.Sequential(nn.Flatten(), nn.Linear(size, 3), Twice(), nn.Linear(3, size))
    twice = policy.features_extractor.flatten[2].linear
    inputs, actions = batch(policy, 4)
    layer = factors(AutogradBackend(policy), inputs, actions)[twice.weight]
    x = policy.features_extractor.flatten[1](th.from_numpy(inputs.observations).flatten(1)).detach()
    ones = th.ones(4, 1)
    expected = sum(th.cat([each, ones], 1).T @ th.cat([each, ones], 1) / 4 for each in (x, twice(x).detach()))
    th.testing.assert_close(layer.inputs, expected)


def test_what_is_known():
    policy = make("Box", activation_fn=nn.Tanh)
    assert unknown_parameters(policy).keys() == {"log_std"}
    assert len(known_layers(policy)) == 6
    policy.value_net.weight = policy.mlp_extractor.value_net[2].weight  # of another shape, but that is no matter here
    assert unknown_parameters(policy).keys() == {"log_std", "mlp_extractor.value_net.2.weight"}
