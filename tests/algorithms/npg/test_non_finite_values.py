"""NaN and infinity never reach NPG's parameters, and the third in a row ends the training."""

import pytest
import torch as th
from envs import ACTION_SPACES, RandomEnv
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_pg_ext import NPG


def make_model(policy="MlpPolicy", action_space="Box", **kwargs):
    arguments = {"n_steps": 16, "batch_size": 16, "n_critic_updates": 2, "seed": 0, "device": "cpu", **kwargs}
    return NPG(policy, RandomEnv(ACTION_SPACES[action_space]), policy_kwargs={"net_arch": [4]}, **arguments)


def state_of(model):
    """Parameters and optimiser state, copied."""
    moments = [value.clone() for state in model.policy.optimizer.state.values() for value in state.values()]
    return [p.detach().clone() for p in model.policy.parameters()] + moments


def assert_same(one, other):
    assert len(one) == len(other)
    for old, new in zip(one, other, strict=True):
        assert th.equal(old, new)


@pytest.mark.filterwarnings("ignore:.*in a row:RuntimeWarning")
@pytest.mark.parametrize("engine", ["array", "autograd"])
@pytest.mark.parametrize("log_std", [-110.0, -60.0, 90.0])
def test_a_deviation_that_runs_away_is_noticed(log_std, engine):
    model = make_model(engine=engine)
    with th.no_grad():
        model.policy.log_std.fill_(log_std)
    before = state_of(model)
    with pytest.raises(ValueError, match=r"NPG after \d+ steps: .*3 in a row"):
        model.learn(160)
    assert_same(before, state_of(model))
    assert model.n_dropped_rollouts + model.n_skipped_updates == 3


def test_a_step_of_the_policy_into_infinity_is_taken_back():
    scale = 0.1
    model = make_model(step="fixed", step_size=lambda _: scale).learn(16)
    before = state_of(model)
    scale = 1e30
    with pytest.warns(RuntimeWarning, match="update skipped, parameters unchanged .1 in a row"):
        model.learn(16, reset_num_timesteps=False)
    assert_same(before, state_of(model))
    assert (model.n_skipped_updates, model._n_updates) == (1, 1)
    scale = 0.1
    model.learn(16, reset_num_timesteps=False)
    assert not th.equal(before[0], state_of(model)[0])
    assert (model.n_skipped_updates, model._n_updates) == (1, 2)


def test_a_step_of_the_critic_into_infinity_takes_the_policys_back():
    rate = 1e-3
    model = make_model(learning_rate=lambda _: rate).learn(16)
    before = state_of(model)
    rate = float("inf")
    with pytest.warns(RuntimeWarning, match="nan; update skipped, parameters unchanged"):
        model.learn(16, reset_num_timesteps=False)
    assert_same(before, state_of(model))


class Exploding(ActorCriticPolicy):
    """Its gradient is NaN, though its outputs are 0."""

    def _get_action_dist_from_latent(self, latent_pi):
        logits = super()._get_action_dist_from_latent(latent_pi).distribution.logits
        return self.action_dist.proba_distribution(logits + (logits - logits.detach()).abs().sqrt())


def test_a_bad_gradient_is_not_followed():
    model = make_model(Exploding, "Discrete")
    before = state_of(model)
    with pytest.warns(RuntimeWarning, match="norm of the policy's gradient nan; update skipped"):
        model.learn(16)
    assert_same(before, state_of(model))


class Kinked(ActorCriticPolicy):
    """Its gradient is finite, its curvature is NaN."""

    def _get_action_dist_from_latent(self, latent_pi):
        logits = super()._get_action_dist_from_latent(latent_pi).distribution.logits
        return self.action_dist.proba_distribution(logits + BadCurvature.apply(logits))


class BadCurvature(th.autograd.Function):
    """x ↦ 0, with derivative 0, whose own derivative is NaN."""

    @staticmethod
    def forward(ctx, x):
        return th.zeros_like(x)

    @staticmethod
    def backward(ctx, gradient):
        return 0 * (gradient - gradient.detach()).abs().sqrt()


def test_a_bad_curvature_is_not_followed():
    model = make_model(Kinked, "Discrete")
    before = state_of(model)
    with pytest.warns(RuntimeWarning, match="residual of conjugate gradients nan; update skipped"):
        model.learn(16)
    assert_same(before, state_of(model))
