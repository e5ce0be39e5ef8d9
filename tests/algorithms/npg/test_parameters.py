"""Which parameters the policy's step moves, which the critic's fit, and that neither touches the others."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, OBSERVATION_SPACES, RandomEnv
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import obs_as_tensor
from torch import nn

from sb3_pg_ext import NPG
from sb3_pg_ext.algorithms.npg.surrogate import Surrogate
from sb3_pg_ext.estimators import AdvantageEstimate
from sb3_pg_ext.functional.tensors.distributions import snapshot
from sb3_pg_ext.functional.tensors.divergences import kl
from sb3_pg_ext.functional.tensors.vectors import flatten
from sb3_pg_ext.gradients.autograd_backend import AutogradBackend
from sb3_pg_ext.gradients.minibatches import Steps
from sb3_pg_ext.policies.observations import map_arrays


@dataclass(frozen=True)
class NoAdvantage:
    """Nothing for the policy to learn, something for the critic."""

    number: float = 0.0

    def __call__(self, rollout):
        return AdvantageEstimate(np.full_like(rollout.rewards, self.number), rollout.rewards)


def make_model(policy="MlpPolicy", env=None, **kwargs):
    arguments = {"n_steps": 32, "batch_size": 16, "n_critic_updates": 2, "seed": 0, "device": "cpu", **kwargs}
    policy_kwargs = {"net_arch": [8], **arguments.pop("policy_kwargs", {})}
    return NPG(policy, env or RandomEnv(ACTION_SPACES["Discrete"]), policy_kwargs=policy_kwargs, **arguments)


def moved(model):
    """The names of the parameters that one update changes."""
    before = {name: parameter.detach().clone() for name, parameter in model.policy.named_parameters()}
    model.learn(model.n_steps, log_interval=None)
    return {name for name, parameter in model.policy.named_parameters() if not th.equal(before[name], parameter)}


ACTOR = {"mlp_extractor.policy_net.0.weight", "mlp_extractor.policy_net.0.bias", "action_net.weight", "action_net.bias"}
CRITIC = {"mlp_extractor.value_net.0.weight", "mlp_extractor.value_net.0.bias", "value_net.weight", "value_net.bias"}


def test_everything_is_trained():
    assert moved(make_model()) == ACTOR | CRITIC
    assert moved(make_model(env=RandomEnv())) == ACTOR | CRITIC | {"log_std"}


@pytest.mark.parametrize("number", [0.0, 0.1, -3.3])
def test_without_advantages_only_the_critic_moves(number):
    model = make_model(advantage_estimator=NoAdvantage(number))
    assert moved(model) == CRITIC
    log = model.logger.name_to_value
    for name in (
        "grad_norm",
        "kl_predicted",
        "surrogate_gain",
        "step_size",
        "natural_grad_norm",
        "cg_residual",
        "cg_steps",
    ):
        assert log[f"train/{name}"] == 0, name
    assert log["train/kl"] == pytest.approx(0, abs=1e-7)
    assert log["train/effective_sample_size"] == 1
    assert log["train/n_skipped"] == 0
    assert log["train/value_loss"] > 0


def test_the_critic_leaves_a_shared_extractor_alone():
    kwargs = {"features_extractor_kwargs": {"features_dim": 8}}
    env = RandomEnv(ACTION_SPACES["Discrete"], OBSERVATION_SPACES["image"])
    model = make_model("CnnPolicy", env, policy_kwargs=kwargs, advantage_estimator=NoAdvantage())
    assert moved(model) == CRITIC
    assert moved(make_model("CnnPolicy", env, policy_kwargs=kwargs)) > ACTOR | CRITIC | {
        "features_extractor.cnn.0.bias"
    }


class ValueNamed(BaseFeaturesExtractor):
    """A shared extractor whose parameters are named like a critic's, one of them frozen."""

    def __init__(self, observation_space):
        super().__init__(observation_space, features_dim=3)
        self.value_gain = nn.Parameter(th.ones(3))
        self.frozen = nn.Parameter(th.ones(3), requires_grad=False)

    def forward(self, observations):
        return self.value_gain * self.frozen * observations


def test_names_play_no_part():
    kwargs = {"features_extractor_class": ValueNamed}
    gain = "features_extractor.value_gain"
    assert moved(make_model(policy_kwargs=kwargs)) == ACTOR | CRITIC | {gain}
    assert moved(make_model(policy_kwargs=kwargs, advantage_estimator=NoAdvantage())) == CRITIC


class Swapped(ActorCriticPolicy):
    """A custom policy: the critic's network acts, and the other way round; one more parameter belongs to the actor."""

    def _build(self, lr_schedule):
        super()._build(lr_schedule)
        self.value_temperature = nn.Parameter(th.ones(()))
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1))

    def _get_action_dist_from_latent(self, latent_pi):
        return self.action_dist.proba_distribution(self.action_net(latent_pi) * self.value_temperature)

    def get_distribution(self, obs):
        return self._get_action_dist_from_latent(self.mlp_extractor.forward_critic(self.extract_features(obs)))

    def predict_values(self, obs):
        return self.value_net(self.mlp_extractor.forward_actor(self.extract_features(obs)))

    def forward(self, obs, deterministic=False):
        distribution = self.get_distribution(obs)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, self.predict_values(obs), distribution.log_prob(actions)

    def evaluate_actions(self, obs, actions):
        distribution = self.get_distribution(obs)
        return self.predict_values(obs), distribution.log_prob(actions), distribution.entropy()


def test_a_custom_policy():
    everything = ACTOR | CRITIC | {"value_temperature"}
    assert moved(make_model(Swapped)) == everything
    critic = {name.replace("value_net.0", "policy_net.0") for name in CRITIC}
    assert moved(make_model(Swapped, advantage_estimator=NoAdvantage())) == critic


@pytest.mark.parametrize(
    ("policy", "observations", "policy_kwargs"),
    [
        ("CnnPolicy", "image", {"features_extractor_kwargs": {"features_dim": 8}}),
        ("MultiInputPolicy", "Dict", {"features_extractor_kwargs": {"cnn_output_dim": 8}}),
    ],
)
@pytest.mark.parametrize("actions", ["Box", "MultiDiscrete"])
def test_fisher_products_of_policies_are_those_of_the_hessian_of_the_kl(policy, observations, policy_kwargs, actions):
    env = RandomEnv(ACTION_SPACES[actions], OBSERVATION_SPACES[observations])
    policy_kwargs = {"activation_fn": nn.ReLU, **policy_kwargs}
    model = make_model(policy, env, policy_kwargs=policy_kwargs, n_steps=8).learn(8)
    policy = model.policy.double()
    # SB3 turns observations into float32, whatever the policy's own type.
    policy.features_extractor.register_forward_pre_hook(lambda _, inputs: map_arrays(th.Tensor.double, inputs[0]))
    steps = Steps.of(model.rollout_buffer, model.action_space)
    surrogate = Surrogate(AutogradBackend(policy), steps, steps.advantages.astype(np.float64))
    v = th.randn(len(surrogate.gradient), dtype=th.float64, generator=th.Generator().manual_seed(0))
    distribution = policy.get_distribution(obs_as_tensor(steps.inputs.observations, policy.device)).distribution
    divergence = kl(snapshot(distribution), distribution).mean()
    gradient = flatten(th.autograd.grad(divergence, surrogate.parameters, create_graph=True))
    expected = flatten(th.autograd.grad(gradient @ v, surrogate.parameters))
    assert expected.norm() > 0
    th.testing.assert_close(surrogate.fisher_product(1)(v), expected, rtol=1e-8, atol=1e-11)
