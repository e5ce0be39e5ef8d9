"""Which episodes count, what is counted, and what a baseline sees of them."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from scripted import Script, ScriptedEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_pg_ext import REINFORCE

ACTIONS = spaces.Discrete(2)


def scripted(*lengths, truncated=False, **kwargs):
    """Episodes of these lengths; the rewards of the k-th are k."""
    scripts = [Script((float(k),) * length, truncated) for k, length in enumerate(lengths, start=1)]
    return ScriptedEnv(ACTIONS, *scripts, **kwargs)


def make_model(*envs, **kwargs):
    vec_env = DummyVecEnv([lambda env=env: Monitor(env) for env in envs])
    return REINFORCE("MlpPolicy", vec_env, seed=0, device="cpu", policy_kwargs={"net_arch": [4]}, **kwargs)


def complete(env):
    return [played for played in env.played if played.complete]


def test_every_environment_gives_equally_many_episodes():
    quick, slow = scripted(1, 2), scripted(5, 7)
    model = make_model(quick, slow, n_episodes=4).learn(1)
    np.testing.assert_array_equal(model._episodes.lengths, [1, 2, 5, 7])
    # The quick one goes on meanwhile: that costs time, but nothing else.
    assert model.num_timesteps == 2 * (5 + 7)
    assert len(complete(quick)) == 8
    assert [(info["l"], info["r"]) for info in model.ep_info_buffer] == [(1, 1), (2, 4), (5, 5), (7, 14)]


def test_discarded_steps_are_not_learned_from():
    model = make_model(scripted(1), scripted(5), n_episodes=2).learn(1)
    assert model.rollout_buffer.rewards.shape == (6, 1)
    assert len(model.rollout_buffer.observations) == len(model.rollout_buffer.actions) == 6


def test_all_environments_are_reset_at_the_start_of_a_rollout():
    quick, slow = scripted(3), scripted(4)
    make_model(quick, slow, n_episodes=2).learn(9)  # two rollouts of four steps
    assert [len(played.rewards) for played in quick.played] == [3, 1, 3, 1]
    assert [len(played.rewards) for played in slow.played] == [4, 0, 4, 0]


def test_an_environment_that_has_just_been_reset_is_not_reset_again():
    env = scripted(2)
    make_model(env, n_episodes=1).learn(6)
    assert [len(played.rewards) for played in env.played] == [2, 2, 2, 0]


@pytest.mark.parametrize(("n_envs", "n_episodes"), [(1, 10), (3, 12), (4, 12), (10, 10), (12, 12)])
def test_default_number_of_episodes_is_shared_equally(n_envs, n_episodes):
    model = make_model(*(scripted(1) for _ in range(n_envs))).learn(1)
    assert len(model._episodes.lengths) == n_episodes


def test_episodes_longer_than_what_room_was_made_for():
    env = scripted(2500, 3)
    model = make_model(env, n_episodes=2).learn(2501)
    np.testing.assert_array_equal(model._episodes.lengths, [2500, 3])
    np.testing.assert_array_equal(
        model._episodes.observations, env.played[0].observations[:-1] + env.played[1].observations[:-1]
    )


def test_steps_are_laid_out_episode_by_episode():
    envs = scripted(1, 2), scripted(2, 1, first=5)
    episodes = make_model(*envs, n_episodes=4, gamma=0.5).learn(1)._episodes
    np.testing.assert_array_equal(episodes.episode_id, [0, 1, 1, 2, 2, 3])
    np.testing.assert_array_equal(episodes.t, [0, 0, 1, 0, 1, 0])
    np.testing.assert_array_equal(episodes.rewards, [1, 2, 2, 1, 1, 2])
    np.testing.assert_array_equal(episodes.returns, [1, 3, 2, 1.5, 1, 2])
    np.testing.assert_array_equal(
        episodes.observations, [obs for env in envs for played in env.played[:2] for obs in played.observations[:-1]]
    )
    assert episodes.values is None


def test_total_returns_are_those_of_the_whole_episode():
    episodes = make_model(scripted(2, 3), n_episodes=2, gamma=0.5, returns="total").learn(1)._episodes
    np.testing.assert_array_equal(episodes.returns, [1.5, 1.5, 3.5, 3.5, 3.5])
    assert episodes.total_returns


def test_steps_within_an_episode_are_counted_across_rollouts():
    env = scripted(5, 2)
    model = make_model(env, n_steps=3)
    seen = []
    for _ in range(3):
        model.learn(3, reset_num_timesteps=False)
        seen.append((model._episodes.t.tolist(), model._episodes.episode_id.tolist()))
    assert seen == [([0, 1, 2], [0, 0, 0]), ([3, 4, 0], [0, 0, 1]), ([1, 0, 1], [0, 1, 1])]


@pytest.mark.parametrize(("stop", "expected"), [(2, [2, 3, 4]), (4, [4, 0, 1]), (5, [0, 1, 0]), (6, [1, 0, 1])])
def test_steps_within_an_episode_are_counted_when_a_callback_ends_the_training(stop, expected):
    """The step at which it does so is made, and in no rollout."""
    model = make_model(scripted(5, 2), n_steps=3)
    model.learn(100, callback=lambda variables, _: variables["self"].num_timesteps < stop)
    assert model.num_timesteps == stop
    model.learn(3, reset_num_timesteps=False)
    assert model._episodes.t.tolist() == expected


@pytest.mark.parametrize(
    ("arguments", "trains_critic"),
    [
        ({"baseline": "none"}, False),
        ({"baseline": "mean"}, False),
        ({"returns": "total"}, False),
        ({"baseline": "value"}, True),
        ({"n_steps": 4}, True),
        ({"bootstrap_truncated": True}, True),
    ],
)
def test_a_critic_is_trained_if_and_only_if_it_is_needed(arguments, trains_critic):
    model = make_model(scripted(3, 2), **arguments)
    critic = [model.policy.value_net, model.policy.mlp_extractor.value_net]
    before = [p.clone() for module in critic for p in module.parameters()]
    model.learn(1)
    after = [p for module in critic for p in module.parameters()]
    assert model.trains_critic == trains_critic
    assert all(th.equal(old, new) != trains_critic for old, new in zip(before, after, strict=True))
    assert ("train/value_loss" in model.logger.name_to_value) == trains_critic


@pytest.mark.parametrize(("truncated", "bootstraps"), [(False, True), (True, False), (True, True)])
def test_only_a_truncated_episode_is_continued_and_only_on_demand(truncated, bootstraps):
    env = scripted(2, truncated=truncated)
    still = {"learning_rate": 0.0, "critic_learning_rate": 1e-9} if bootstraps else {"learning_rate": 0.0}
    model = make_model(env, n_episodes=1, bootstrap_truncated=bootstraps, gamma=0.5, **still).learn(1)
    with th.no_grad():
        final_value = model.policy.predict_values(th.as_tensor(env.played[0].observations[2])[None]).item()
    continuation = final_value if truncated and bootstraps else 0.0
    np.testing.assert_allclose(model._episodes.returns, [1.5 + 0.25 * continuation, 1 + 0.5 * continuation], rtol=1e-6)
