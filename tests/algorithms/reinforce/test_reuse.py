"""Updates from earlier policies' episodes, too, against a gradient calculated by hand in double precision."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from scripted import Script, ScriptedEnv

from sb3_pg_ext import REINFORCE

SCRIPTS = Script((5.0, 1.0, 2.0, -1.5)), Script((0.5, 3.0)), Script((-2.0,))
GAMMA = 0.75


def make_model(**arguments):
    return REINFORCE(
        "MlpPolicy",
        ScriptedEnv(spaces.Discrete(3), *SCRIPTS),
        learning_rate=0.25,
        gamma=GAMMA,
        seed=1,
        device="cpu",
        policy_kwargs={"net_arch": [], "optimizer_class": th.optim.SGD},
        **{"n_episodes": 2, "reuse_batches": 3, **arguments},
    )


def parameters_of(model):
    return {name: p.detach().double().numpy().copy() for name, p in model.policy.named_parameters()}


def probabilities(parameters, obs):
    odds = np.exp(parameters["action_net.weight"] @ obs + parameters["action_net.bias"])
    return odds / odds.sum()


def gradient(now, batches, ratio, max_ratio, discounted):
    """Of −(1/m) Σ γᵗ w_t log π(a_t|s_t) G_t; a batch is the parameters that acted, and their episodes."""
    total = {name: np.zeros_like(now[name]) for name in ("action_net.weight", "action_net.bias")}
    m = sum(len(episodes) for _, episodes in batches)
    for acted, episodes in batches:
        for episode in episodes:
            states, actions = episode.observations[:-1], [int(a) for a in episode.actions]
            ratios = [
                probabilities(now, s)[a] / probabilities(acted, s)[a] for s, a in zip(states, actions, strict=True)
            ]
            for t, (s, a) in enumerate(zip(states, actions, strict=True)):
                if ratio == "per_step":
                    weight, factors = min(max_ratio, ratios[t]), [1.0] * len(ratios)
                else:
                    weight, factors = min(max_ratio, np.prod(ratios[: t + 1])), [min(max_ratio, r) for r in ratios]
                to_go = sum(
                    GAMMA ** (k - t) * np.prod(factors[t + 1 : k + 1]) * r
                    for k, r in enumerate(episode.rewards)
                    if k >= t
                )
                score = np.eye(3)[a] - probabilities(now, s)
                factor = -weight * to_go * (GAMMA**t if discounted else 1) / m
                total["action_net.weight"] += factor * np.outer(score, s)
                total["action_net.bias"] += factor * score
    return total


@pytest.mark.parametrize("discounted", [False, True])
@pytest.mark.parametrize("max_ratio", [1.0, 1.2, float("inf")])
@pytest.mark.parametrize("ratio", ["per_step", "per_decision"])
def test_an_update_from_the_latest_three_batches(ratio, max_ratio, discounted):
    model = make_model(reuse_ratio=ratio, max_ratio=max_ratio, discount_state_distribution=discounted)
    played, batches = model.env.envs[0].unwrapped.played, []
    for i in range(4):
        before = parameters_of(model)
        model.learn(1, reset_num_timesteps=False)
        batches = [(before, [episode for episode in played if episode.complete][2 * i :]), *batches][:3]
        expected = gradient(before, batches, ratio, max_ratio, discounted)
        for name, g in expected.items():
            np.testing.assert_allclose(parameters_of(model)[name], before[name] - 0.25 * g, rtol=1e-4, atol=1e-5)
    assert len(model.rollout_buffer.returns) == sum(len(e.rewards) for _, episodes in batches for e in episodes)


def test_what_learns_from_the_rollout_does_not_see_the_earlier_ones():
    """The critic's fit and a learning baseline: one batch more or less changes nothing for them."""
    model = make_model(baseline="moving_average", baseline_kwargs={"decay": 0.0}).learn(14)
    assert model._baseline_state["sum"] == pytest.approx(model._fresh.returns.mean(), rel=1e-6)
    assert len(model._fresh.t) < len(model._episodes.t)
    with_critic = make_model(baseline="value", n_critic_updates=1, critic_learning_rate=0.125).learn(14)
    before = parameters_of(with_critic)
    with_critic.learn(1, reset_num_timesteps=False)
    n = len(with_critic._fresh.t)
    obs, returns = with_critic.rollout_buffer.observations[:n, 0], with_critic.rollout_buffer.returns[:n, 0]
    errors = obs @ before["value_net.weight"][0] + before["value_net.bias"][0] - returns
    moved = parameters_of(with_critic)["value_net.bias"] - before["value_net.bias"]
    assert moved == pytest.approx(-0.125 * 2 * errors.mean(), rel=1e-4)


@pytest.mark.parametrize("baseline", ["value", "value_time", "q_prop"])
def test_the_critic_in_the_policys_step_sees_the_present_rollout_alone(baseline):
    model = make_model(baseline=baseline, n_critic_updates=0, vf_coef=0.5).learn(14)
    before = parameters_of(model)
    model.learn(1, reset_num_timesteps=False)
    n = len(model._fresh.t)
    assert n < len(model.rollout_buffer.returns)
    obs, returns = model.rollout_buffer.observations[:n, 0], model.rollout_buffer.returns[:n, 0]
    errors = obs @ before["value_net.weight"][0] + before["value_net.bias"][0] - returns
    moved = parameters_of(model)["value_net.bias"] - before["value_net.bias"]
    assert moved == pytest.approx(-0.25 * 0.5 * 2 * errors.mean(), rel=1e-4)


def test_a_saved_model_goes_on_with_the_earlier_episodes(tmp_path):
    model = make_model().learn(14)
    model.save(tmp_path / "model")
    loaded = REINFORCE.load(tmp_path / "model", device="cpu")
    for each in (model, loaded):
        each.set_env(each._wrap_env(ScriptedEnv(spaces.Discrete(3), *SCRIPTS)))
        each.set_random_seed(1)
        each.learn(14, reset_num_timesteps=False)
    for name, numbers in parameters_of(model).items():
        np.testing.assert_array_equal(parameters_of(loaded)[name], numbers)


@pytest.mark.parametrize("baseline", ["optimal", "linear", "leave_one_out", "optimal_per_component"])
def test_every_baseline_takes_part(baseline):
    model = make_model(baseline=baseline).learn(14)
    assert np.isfinite(model.rollout_buffer.advantages).all()
