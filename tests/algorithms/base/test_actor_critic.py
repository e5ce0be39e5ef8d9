"""The base of algorithms with a critic, seen through a minimal one: one gradient step for each of several epochs."""

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.env_util import make_vec_env

from sb3_pg_ext.algorithms.base.actor_critic import ActorCriticBase
from sb3_pg_ext.estimators import GAE, NStep, Rollout, VTrace


class VanillaPolicyGradient(ActorCriticBase):
    def __init__(self, policy, env, advantage_estimator="gae", advantage_estimator_kwargs=None, **kwargs):
        defaults = {"learning_rate": 1e-2, "n_steps": 24, "gamma": 0.9, "gae_lambda": 0.8, "ent_coef": 0.0}
        defaults |= {"vf_coef": 0.5, "max_grad_norm": None, "use_sde": False, "sde_sample_freq": -1, "device": "cpu"}
        recompute_advantages = kwargs.pop("recompute_advantages", False)
        init_setup_model = kwargs.pop("_init_setup_model", True)
        super().__init__(policy, env, **defaults | kwargs, _init_setup_model=False)
        self.recompute_advantages = recompute_advantages
        self.advantage_estimator = advantage_estimator
        self.advantage_estimator_kwargs = advantage_estimator_kwargs
        if init_setup_model:
            self._setup_model()

    def _improve(self):
        for epoch in range(2):
            if epoch and self.recompute_advantages:
                self._recompute_advantages()
            for batch in self.rollout_buffer.get():
                actions = batch.actions.long().flatten()
                values, log_probs, _ = self.policy.evaluate_actions(batch.observations, actions)
                loss = (values.flatten() - batch.returns).square().mean() - (log_probs * batch.advantages).mean()
                self.policy.optimizer.zero_grad()
                loss.backward()
                self.policy.optimizer.step()


@pytest.fixture
def env():
    # Episodes of CartPole last about 20 steps; a limit of 9 makes most of them end by truncation.
    return make_vec_env("CartPole-v1", 2, seed=0, env_kwargs={"max_episode_steps": 9})


@pytest.fixture
def rollouts(monkeypatch):
    """Every rollout that an estimator is given."""
    seen = []

    def spy(self, *args, **kwargs):
        estimate = original(self, *args, **kwargs)
        seen.append(self)
        return estimate

    original = Rollout.__post_init__
    monkeypatch.setattr(Rollout, "__post_init__", spy)
    return seen


def test_the_estimator_sees_truncation_and_raw_rewards(env, rollouts):
    model = VanillaPolicyGradient("MlpPolicy", env, seed=0)
    model.learn(48)
    (rollout,) = rollouts
    assert (rollout.rewards == 1).all()
    assert rollout.truncated.any()
    assert not (rollout.truncated & rollout.terminated).any()
    assert rollout.gamma == 0.9
    np.testing.assert_array_equal(rollout.behaviour_log_probs, rollout.target_log_probs)


def test_lambda_is_the_algorithms(env, rollouts):
    model = VanillaPolicyGradient("MlpPolicy", env, seed=0)
    captured = {}
    monkey = model._improve
    model._improve = lambda: captured.update(advantages=model.rollout_buffer.advantages.copy()) or monkey()
    model.learn(48)
    np.testing.assert_array_equal(captured["advantages"], GAE(gae_lambda=0.8)(rollouts[0]).advantages)


def test_recomputed_advantages_use_the_new_critic_and_the_old_behaviour(env, rollouts):
    VanillaPolicyGradient("MlpPolicy", env, "vtrace", seed=0, recompute_advantages=True).learn(48)
    first, second = rollouts
    np.testing.assert_array_equal(first.behaviour_log_probs, second.behaviour_log_probs)
    assert np.abs(second.target_log_probs - second.behaviour_log_probs).max() > 1e-4
    assert np.abs(first.values - second.values).max() > 1e-4
    np.testing.assert_array_equal(first.truncated, second.truncated)


def test_recomputed_advantages_reach_the_minibatches(env):
    model = VanillaPolicyGradient("MlpPolicy", env, seed=0, recompute_advantages=True)
    model.learn(48)
    buffer, shape = model.rollout_buffer, (24 * 2, 1)
    assert buffer.advantages.shape == buffer.returns.shape == buffer.values.shape == shape


def test_an_instance_is_saved_as_name_and_numbers(env, tmp_path):
    model = VanillaPolicyGradient("MlpPolicy", env, NStep(n=3), seed=0)
    model.learn(48)
    model.save(tmp_path / "model")
    loaded = VanillaPolicyGradient.load(tmp_path / "model", env=env)
    assert (loaded.advantage_estimator, loaded.advantage_estimator_kwargs) == ("n_step", {"n": 3})
    assert loaded._estimator == NStep(n=3)
    loaded.learn(48)


def test_an_instance_with_lambda_survives_saving(env, tmp_path):
    VanillaPolicyGradient("MlpPolicy", env, GAE(gae_lambda=0.8)).save(tmp_path / "model")
    assert VanillaPolicyGradient.load(tmp_path / "model", env=env)._estimator == GAE(gae_lambda=0.8)


def test_everything_that_an_estimator_may_require_is_given(env):
    assert VanillaPolicyGradient("MlpPolicy", env, VTrace())._estimator == VTrace()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"advantage_estimator": "gea"}, "'gea'.*'gae'"),
        ({"advantage_estimator": GAE(gae_lambda=0.5)}, "gae_lambda=0.8"),
        ({"advantage_estimator_kwargs": {"gae_lambda": 0.5}}, "gae_lambda"),
        ({"gae_lambda": 1.5}, r"gae_lambda=1.5; allowed: \[0, 1\]"),
        ({"gamma": float("nan")}, r"gamma=nan; allowed: \[0, 1\]"),
    ],
)
def test_bad_arguments_are_refused(env, arguments, message):
    with pytest.raises(ValueError, match=message):
        VanillaPolicyGradient("MlpPolicy", env, **arguments)


class OwnAdvantages(RolloutBuffer):
    def compute_returns_and_advantage(self, last_values, dones):
        raise AssertionError("never called")


def test_a_buffer_whose_methods_would_be_ignored_is_refused(env):
    with pytest.raises(ValueError, match=r"OwnAdvantages.* has its own compute_returns_and_advantage\(\)"):
        VanillaPolicyGradient("MlpPolicy", env, rollout_buffer_class=OwnAdvantages)
    VanillaPolicyGradient("MlpPolicy", env, rollout_buffer_class=type("Plain", (RolloutBuffer,), {}))


def test_a_bad_number_in_recomputing_undoes_the_update(env):
    model = VanillaPolicyGradient("MlpPolicy", env, seed=0, learning_rate=1e30, recompute_advantages=True)
    before = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
    with pytest.warns(RuntimeWarning, match="update skipped"):
        model.learn(48)
    assert all(th.equal(tensor, before[name]) for name, tensor in model.policy.state_dict().items())
    assert model.n_skipped_updates == 1
