"""Which policies are plain MLPs, and that NumPy then computes what PyTorch does."""

import copy
import gc
import weakref

import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, OBSERVATION_SPACES
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    BasePolicy,
    MultiInputActorCriticPolicy,
)
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_pg_ext.functional import mlp
from sb3_pg_ext.policies.exploration import MlpPolicy
from sb3_pg_ext.policies.plain_mlp import (
    UnsupportedPolicyError,
    Watch,
    actor_layers,
    check_parameters,
    critic_layers,
    make_head,
)
from sb3_pg_ext.rollouts.action_sampling import make_action_sampler

VECTOR, IMAGE = OBSERVATION_SPACES["Box"], spaces.Box(0, 255, (1, 36, 36), np.uint8)
DISCRETE = ACTION_SPACES["Discrete"]
SPACES = ["Box", "Discrete", "MultiDiscrete", "MultiBinary"]


def make_policy(cls=ActorCriticPolicy, observation_space=VECTOR, action_space=DISCRETE, **kwargs):
    th.manual_seed(0)
    return cls(observation_space, action_space, lambda _: 1e-3, **{"net_arch": [8, 8], "ortho_init": False, **kwargs})


def observe(observation_space, n=64):
    observation_space.seed(0)
    return np.stack([observation_space.sample() for _ in range(n)])


def output_of(policy, obs):
    """Logits or means, by PyTorch."""
    with th.no_grad():
        features = BasePolicy.extract_features(policy, th.as_tensor(obs), policy.pi_features_extractor)
        return policy.action_net(policy.mlp_extractor.forward_actor(features)).numpy()


def assert_agree(policy, observation_space=VECTOR):
    obs = observe(observation_space)
    x = obs.reshape(len(obs), -1).astype(np.float32)
    np.testing.assert_allclose(mlp.forward(actor_layers(policy), x), output_of(policy, obs), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Sigmoid, nn.SiLU])
def test_every_activation(activation):
    assert_agree(make_policy(activation_fn=activation))


@pytest.mark.parametrize("module", [nn.LeakyReLU(0.3), nn.ELU(0.4)])
def test_parameters_of_activations(module):
    policy = make_policy()
    policy.mlp_extractor.policy_net[1] = module
    assert_agree(policy)


def test_layer_norm_without_parameters():
    policy = make_policy()
    norm = nn.LayerNorm(8, eps=0.1, elementwise_affine=False)
    policy.mlp_extractor.policy_net = nn.Sequential(nn.Linear(3, 8), norm, nn.Tanh(), nn.Linear(8, 8), nn.ReLU())
    assert_agree(policy)


@pytest.mark.parametrize("name", ACTION_SPACES)
def test_every_action_space(name):
    assert_agree(make_policy(action_space=ACTION_SPACES[name]))


@pytest.mark.parametrize("name", ["Discrete", "MultiDiscrete", "MultiBinary"])
def test_policies_that_take_masks(name):
    policy = make_policy(MaskableActorCriticPolicy, action_space=ACTION_SPACES[name])
    assert_agree(policy)
    critic_layers(policy)
    policy.evaluate_actions = policy.evaluate_actions
    with pytest.raises(UnsupportedPolicyError, match=r"it overrides evaluate_actions\(\)"):
        critic_layers(policy)


FIT_OBSERVATIONS = {
    "float64": OBSERVATION_SPACES["float64"],
    "Box of two dimensions": OBSERVATION_SPACES["Box of two dimensions"],
    "integers": spaces.Box(-5, 5, (3,), np.int64),
    "bytes": spaces.Box(0, 255, (3,), np.uint8),
}


@pytest.mark.parametrize("name", FIT_OBSERVATIONS)
def test_every_vector(name):
    assert_agree(make_policy(observation_space=FIT_OBSERVATIONS[name]), FIT_OBSERVATIONS[name])


@pytest.mark.parametrize("net_arch", [[], [4], {"pi": [], "vf": [4]}, {"pi": [5, 6, 7], "vf": []}])
def test_every_size(net_arch):
    assert_agree(make_policy(net_arch=net_arch))


def test_separate_features_extractors():
    assert_agree(make_policy(share_features_extractor=False))


def test_linear_layers_without_bias():
    policy = make_policy()
    policy.action_net = nn.Linear(8, 3, bias=False)
    assert_agree(policy)


def test_layers_follow_the_parameters():
    policy = make_policy()
    layers, obs = actor_layers(policy), observe(VECTOR)
    before = mlp.forward(layers, obs)

    policy.get_distribution(th.as_tensor(obs)).log_prob(th.zeros(64)).sum().backward()
    policy.optimizer.step()
    after = mlp.forward(layers, obs)
    assert not np.array_equal(before, after)
    np.testing.assert_allclose(after, output_of(policy, obs), rtol=1e-6, atol=1e-6)

    th.manual_seed(7)
    policy.load_state_dict({name: th.randn_like(p) for name, p in policy.state_dict().items()})
    np.testing.assert_allclose(mlp.forward(layers, obs), output_of(policy, obs), rtol=1e-6, atol=1e-5)


class OwnForward(ActorCriticPolicy):
    def forward(self, obs, deterministic=False):
        return super().forward(obs, deterministic)


class OwnDistribution(ActorCriticPolicy):
    def get_distribution(self, obs):
        return super().get_distribution(obs)


class OwnHead(ActorCriticPolicy):
    def _get_action_dist_from_latent(self, latent_pi):
        return super()._get_action_dist_from_latent(latent_pi)


class OwnExtractor(FlattenExtractor):
    def forward(self, observations):
        return 2 * super().forward(observations)


class OwnTanh(nn.Tanh):
    def forward(self, x):
        return 2 * super().forward(x)


def with_attribute(policy):
    policy.get_distribution = policy.get_distribution
    return policy


def with_hook(policy):
    policy.action_net.register_forward_hook(lambda module, args, output: output + 1)
    return policy


def with_early_hook(policy):
    policy.mlp_extractor.policy_net[0].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    return policy


def with_hook_in_extractor(policy):
    policy.features_extractor.flatten.register_forward_hook(lambda module, args, output: 2 * output)
    return policy


def with_backward_hook(policy):
    policy.mlp_extractor.policy_net[1].register_full_backward_hook(lambda module, inputs, outputs: None)
    return policy


def with_other_forward(policy):
    policy.action_net.forward = policy.action_net.forward
    return policy


def with_layer_of_ones_own(policy):
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    policy.action_net = Doubled(8, 3)
    return policy


def with_normalized_layer(policy):
    policy.mlp_extractor.policy_net = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Tanh())
    return policy


def with_weights_calculated(policy):
    nn.utils.parametrizations.weight_norm(policy.action_net)
    return policy


SMALL_CNN = {"features_extractor_kwargs": {"features_dim": 8}}
UNFIT = {
    "CNN": (lambda: make_policy(ActorCriticCnnPolicy, IMAGE, **SMALL_CNN), "its observations are Box"),
    "image": (lambda: make_policy(observation_space=IMAGE), "its observations are Box"),
    "Dict": (
        lambda: make_policy(MultiInputActorCriticPolicy, spaces.Dict({"vector": VECTOR})),
        "its observations are Dict",
    ),
    "Discrete": (lambda: make_policy(observation_space=spaces.Discrete(4)), "its observations are Discrete"),
    "MultiBinary": (lambda: make_policy(observation_space=spaces.MultiBinary(4)), "its observations are MultiBinary"),
    "gSDE": (lambda: make_policy(action_space=ACTION_SPACES["Box"], use_sde=True), "acts by StateDependentNoise"),
    "squashed": (
        lambda: make_policy(action_space=ACTION_SPACES["Box"], use_sde=True, squash_output=True),
        "acts by StateDependentNoise",
    ),
    "extractor": (lambda: make_policy(features_extractor_class=OwnExtractor), "it extracts features"),
    "forward": (lambda: make_policy(OwnForward), r"it overrides forward\(\)"),
    "distribution": (lambda: make_policy(OwnDistribution), r"it overrides get_distribution\(\)"),
    "head": (lambda: make_policy(OwnHead), r"it overrides _get_action_dist_from_latent\(\)"),
    "attribute": (lambda: with_attribute(make_policy()), r"it overrides get_distribution\(\)"),
    "hook": (lambda: with_hook(make_policy()), "a module has a forward hook"),
    "early hook": (lambda: with_early_hook(make_policy()), "a module has a forward hook"),
    "hook in the extractor": (lambda: with_hook_in_extractor(make_policy()), "a module has a forward hook"),
    "backward hook": (lambda: with_backward_hook(make_policy()), "a module has a backward hook"),
    "other forward": (lambda: with_other_forward(make_policy()), r"a module has another forward\(\) than its class"),
    "layer of one's own": (lambda: with_layer_of_ones_own(make_policy()), "its activation function is Doubled"),
    "unknown activation": (lambda: make_policy(activation_fn=nn.GELU), "its activation function is GELU"),
    "activation of one's own": (lambda: make_policy(activation_fn=OwnTanh), "its activation function is OwnTanh"),
    "normalized layer": (lambda: with_normalized_layer(make_policy()), "its activation function is LayerNorm"),
    "calculated weights": (lambda: with_weights_calculated(make_policy()), "Parametrized"),
    "double precision": (lambda: make_policy().double(), "its parameters are not all float32"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_unfit_policies_say_why(name):
    make, reason = UNFIT[name]
    policy = make()
    with pytest.raises(UnsupportedPolicyError, match=reason):
        actor_layers(policy)
    _, path = make_action_sampler(policy, n_envs=1, n_steps=None)
    behind_features = name in ("CNN", "image", "Dict", "Discrete", "MultiBinary", "extractor", "hook in the extractor")
    assert path.startswith(
        "an MLP in NumPy behind features, because " if behind_features else "the policy's own forward pass, because "
    )


def test_a_perceptron_acts_in_numpy():
    assert make_action_sampler(make_policy(), n_envs=1, n_steps=None)[1] == "an MLP in NumPy"


def value_of(policy, obs):
    with th.no_grad():
        return policy.predict_values(th.as_tensor(obs)).numpy()


@pytest.mark.parametrize("net_arch", [[], [4], {"pi": [5], "vf": [6, 7, 8]}, {"pi": [5, 6], "vf": []}])
def test_critics(net_arch):
    policy, obs = make_policy(net_arch=net_arch, share_features_extractor=False), observe(VECTOR)
    np.testing.assert_allclose(mlp.forward(critic_layers(policy), obs), value_of(policy, obs), rtol=1e-6, atol=1e-6)


class OwnValues(ActorCriticPolicy):
    def predict_values(self, obs):
        return super().predict_values(obs)


class OwnEvaluations(ActorCriticPolicy):
    def evaluate_actions(self, obs, actions):
        return super().evaluate_actions(obs, actions)


@pytest.mark.parametrize(
    ("cls", "reason"),
    [(OwnValues, r"overrides predict_values\(\)"), (OwnEvaluations, r"overrides evaluate_actions\(\)")],
)
def test_an_actor_may_be_fit_where_the_critic_is_not(cls, reason):
    policy = make_policy(cls)
    with pytest.raises(UnsupportedPolicyError, match=reason):
        critic_layers(policy)
    assert_agree(policy)


@pytest.mark.parametrize("name", ["Discrete", "MultiDiscrete", "MultiBinary"])
def test_temperatures(name):
    plain, tempered = (
        make_policy(MlpPolicy, action_space=ACTION_SPACES[name], temperature=temperature) for temperature in (1, 4)
    )
    assert_agree(tempered)
    obs = observe(VECTOR)
    ours, theirs = (mlp.forward(actor_layers(policy), obs) for policy in (tempered, plain))
    np.testing.assert_allclose(ours, theirs / 4, rtol=1e-6)


@pytest.mark.parametrize("name", SPACES)
def test_heads_are_the_distributions_of_the_policy(name):
    policy, obs = make_policy(action_space=ACTION_SPACES[name], log_std_init=-0.5), observe(VECTOR)
    head = make_head(policy, mlp.forward(actor_layers(policy), obs))
    with th.no_grad():
        distribution = policy.get_distribution(th.as_tensor(obs))
        actions = distribution.sample()
        expected = distribution.log_prob(actions).numpy(), distribution.entropy().numpy()
    actual = head.log_prob(actions.numpy().reshape(len(obs), -1)), head.entropy()
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_heads_stay_as_they_are_when_the_policy_changes():
    policy, obs = make_policy(action_space=ACTION_SPACES["Box"]), observe(VECTOR)
    head = make_head(policy, mlp.forward(actor_layers(policy), obs))
    actions = np.zeros((len(obs), 1), np.float32)
    before = head.log_prob(actions)
    with th.no_grad():
        for parameter in policy.parameters():
            parameter.add_(1.0)
    np.testing.assert_array_equal(head.log_prob(actions), before)


def test_parameters_are_each_of_one_layer():
    one, other = (nn.Parameter(th.zeros(2)) for _ in range(2))
    check_parameters([one, other], [other, one])
    for used, of_model, reason in [
        ([one], [one, other], "it has parameters beside its networks'"),
        ([one, one], [one], "its layers share parameters"),
        ([one], [one.requires_grad_(False)], "it has frozen parameters"),
    ]:
        with pytest.raises(UnsupportedPolicyError, match=reason):
            check_parameters(used, of_model)


def replace_module(policy):
    policy.mlp_extractor.policy_net[0] = copy.deepcopy(policy.mlp_extractor.policy_net[0])


def replace_parameter(policy):
    policy.action_net.bias = nn.Parameter(policy.action_net.bias.detach())  # in the same place


def replace_body(policy):
    policy.mlp_extractor = copy.deepcopy(policy.mlp_extractor)


def move(policy):
    policy.action_net.weight.data = policy.action_net.weight.data.clone()


def freeze(policy):
    policy.value_net.weight.requires_grad_(False)


def hook(policy):
    policy.mlp_extractor.policy_net[1].register_forward_hook(lambda *args: None)


def lengthen(policy):
    policy.mlp_extractor.policy_net.append(nn.Tanh())


def instead(policy):
    policy.action_net.forward = lambda x: x


CHANGES = [replace_module, replace_parameter, replace_body, move, freeze, hook, lengthen, instead]


@pytest.mark.parametrize("change", CHANGES)
def test_a_watch_notices(change):
    policy = make_policy()
    watch = Watch(policy)
    with th.no_grad():
        policy.action_net.weight.mul_(2)
    policy.optimizer.zero_grad()
    assert watch.is_unchanged()
    change(policy)
    assert not watch.is_unchanged()


@pytest.mark.parametrize("change", [replace_module, replace_parameter, replace_body, move, lengthen])
def test_layers_are_those_of_the_policy_as_it_is_now(change):
    policy = make_policy()
    layers = actor_layers(policy)
    assert actor_layers(policy) is layers
    change(policy)
    with th.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(2)
    assert_agree(policy)


def test_a_policy_that_becomes_unfit_is_refused():
    for change in (hook, instead, lambda policy: setattr(policy, "_predict", policy.forward)):
        policy = make_policy()
        actor_layers(policy)
        change(policy)
        with pytest.raises(UnsupportedPolicyError):
            actor_layers(policy)


def test_policies_are_not_kept_alive():
    policy = make_policy()
    actor_layers(policy), critic_layers(policy)
    policy.own = policy.forward  # leads back to the policy
    gone = weakref.ref(policy)
    del policy
    gc.collect()
    assert gone() is None
