"""NaN and infinity never reach REINFORCE's parameters, and the third in a row ends the training."""

import numpy as np
import pytest
import torch as th
from envs import SpoiltEnv
from gymnasium import spaces
from scripted import Script, ScriptedEnv
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_pg_ext import REINFORCE
from sb3_pg_ext.baselines import builtin

GOOD, BAD = Script((1.0, 2.0)), Script((1.0, float("nan")))
DISCRETE = spaces.Discrete(3)
BOX = spaces.Box(-1, 1, (2,), np.float32)


def make_model(env, **kwargs):
    policy_kwargs = {"net_arch": [4], **kwargs.pop("policy_kwargs", {})}
    arguments = {"n_episodes": 1, "baseline": "value", "seed": 0, "device": "cpu", **kwargs}
    return REINFORCE("MlpPolicy", env, policy_kwargs=policy_kwargs, **arguments)


def state_of(model):
    """Parameters and optimiser state, copied."""
    moments = [value.clone() for state in model.policy.optimizer.state.values() for value in state.values()]
    return [p.detach().clone() for p in model.policy.parameters()] + moments


def assert_same(one, other):
    assert len(one) == len(other)
    for old, new in zip(one, other, strict=True):
        assert th.equal(old, new)


def set_parameter(model, name, number):
    with th.no_grad():
        model.policy.get_parameter(name).view(-1)[0] = number


@pytest.mark.parametrize(
    ("what", "place"),
    [
        ("reward", "reward nan at step 6 of the rollout in environment 0"),
        ("observation", "observation nan in environment 0"),
    ],
)
def test_a_bad_rollout_is_dropped(what, place):
    model = make_model(SpoiltEnv(what, float("nan"), (3,), action_space=DISCRETE), n_episodes=2).learn(1)
    before = state_of(model)
    assert len(before) > len(list(model.policy.parameters()))
    with pytest.warns(RuntimeWarning, match=f"REINFORCE after .* steps: {place}.*; rollout dropped .1 in a row"):
        model.learn(1, reset_num_timesteps=False)
    assert_same(before, state_of(model))
    assert model.n_dropped_rollouts == 1
    assert len(model.ep_info_buffer) == 3
    assert np.isfinite([info["r"] for info in model.ep_info_buffer]).all()
    model.learn(1, reset_num_timesteps=False)
    assert not th.equal(before[0], state_of(model)[0])


def test_the_third_in_a_row_ends_the_training():
    # After a bad rollout the environments are reset once more: the episode that has just begun is never played.
    unplayed = GOOD
    scripts = [GOOD, BAD, unplayed, BAD, unplayed, GOOD, BAD, unplayed, BAD, unplayed, BAD]
    model = make_model(ScriptedEnv(DISCRETE, *scripts))
    before = state_of(model)
    with (
        pytest.warns(RuntimeWarning, match="in a row") as warned,
        pytest.raises(ValueError, match=r"after 14 steps: reward nan at step 1 .* environment 0.* 3 in a row"),
    ):
        model.learn(100)
    # A good rollout in between starts the count again.
    assert [str(warning.message)[-12:] for warning in warned] == [f"({n} in a row)" for n in (1, 2, 1, 2)]
    assert model.n_dropped_rollouts == 5
    assert not th.equal(before[0], state_of(model)[0])


@pytest.mark.filterwarnings("ignore:.*dropped:RuntimeWarning")
def test_the_count_survives_saving_and_loading(tmp_path):
    model = make_model(ScriptedEnv(DISCRETE, BAD))
    model.learn(4)
    model.save(tmp_path / "model")
    loaded = REINFORCE.load(tmp_path / "model", env=ScriptedEnv(DISCRETE, BAD), device="cpu")
    assert loaded.n_dropped_rollouts == 2
    with pytest.raises(ValueError, match="3 in a row"):
        loaded.learn(2, reset_num_timesteps=False)


@pytest.mark.filterwarnings("ignore:.*dropped:RuntimeWarning")
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("action_space", "parameter", "arguments"),
    [
        (DISCRETE, "action_net.bias", {}),
        (BOX, "action_net.bias", {}),
        (BOX, "log_std", {}),
        (BOX, "log_std", {"use_sde": True}),
        (DISCRETE, "value_net.bias", {}),
        (DISCRETE, "action_net.bias", {"policy_kwargs": {"activation_fn": th.nn.GELU}}),
        (BOX, "action_net.bias", {"policy_kwargs": {"activation_fn": th.nn.GELU}}),
    ],
)
def test_bad_outputs_of_the_policy_are_noticed(action_space, parameter, arguments, number):
    model = make_model(ScriptedEnv(action_space, GOOD), **arguments)
    set_parameter(model, parameter, number)
    before = [p.nan_to_num(nan=7.0) for p in state_of(model)]
    with pytest.raises(ValueError, match="3 in a row"):
        model.learn(10)
    assert model.n_dropped_rollouts == 3
    assert_same(before, [p.nan_to_num(nan=7.0) for p in state_of(model)])


@pytest.mark.parametrize("baseline", ["none", "value"])
def test_a_step_into_infinity_is_taken_back(baseline):
    rate = 1e-3
    model = make_model(ScriptedEnv(DISCRETE, GOOD), learning_rate=lambda _: rate, baseline=baseline).learn(2)
    before = state_of(model)
    rate = float("inf")
    with pytest.warns(RuntimeWarning, match="nan; update skipped, parameters unchanged .1 in a row"):
        model.learn(2, reset_num_timesteps=False)
    assert_same(before, state_of(model))
    assert (model.n_skipped_updates, model._n_updates) == (1, 1)
    rate = 1e-3
    model.learn(2, reset_num_timesteps=False)
    assert not th.equal(before[0], state_of(model)[0])
    assert (model.n_skipped_updates, model._n_updates) == (1, 2)


@pytest.mark.filterwarnings("ignore:.*skipped:RuntimeWarning")
def test_the_third_bad_step_in_a_row_ends_the_training():
    model = make_model(ScriptedEnv(DISCRETE, GOOD), learning_rate=lambda left: 1e-3 if left == 1 else float("inf"))
    before = state_of(model)
    with pytest.raises(ValueError, match=r"REINFORCE after 6 steps: .* nan.*3 in a row"):
        model.learn(100)
    assert_same(before, state_of(model))
    assert model.n_skipped_updates == 3


class Exploding(ActorCriticPolicy):
    """Its gradient is NaN, though its outputs are 0."""

    def _get_action_dist_from_latent(self, latent_pi):
        distribution = super()._get_action_dist_from_latent(latent_pi)
        logits = distribution.distribution.logits
        return self.action_dist.proba_distribution(logits + (logits - logits.detach()).abs().sqrt())


def test_a_bad_gradient_is_not_followed():
    env = ScriptedEnv(DISCRETE, GOOD)
    model = REINFORCE(Exploding, env, n_episodes=1, device="cpu", seed=0, policy_kwargs={"net_arch": [4]})
    before = state_of(model)
    with pytest.warns(RuntimeWarning, match="norm of the gradient nan; update skipped"):
        model.learn(2)
    assert_same(before, state_of(model))


def test_a_bad_baseline_is_named(monkeypatch):
    monkeypatch.setattr(builtin.Mean, "__call__", lambda self, episodes: episodes.returns * np.float32("nan"))
    with pytest.warns(RuntimeWarning, match="baseline 'mean' gives NaN or infinity; rollout dropped"):
        make_model(ScriptedEnv(DISCRETE, GOOD), baseline="mean").learn(2)
