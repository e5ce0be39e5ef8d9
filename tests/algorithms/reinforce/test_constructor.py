"""Bad arguments are refused at construction and at loading, with what is allowed."""

import re

import gymnasium as gym
import pytest
from envs import OBSERVATION_SPACES, RandomEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from sb3_pg_ext import REINFORCE


def make_model(n_envs=1, **kwargs):
    env = DummyVecEnv([RandomEnv] * n_envs)
    return REINFORCE("MlpPolicy", env, device="cpu", policy_kwargs={"net_arch": [4]}, **kwargs)


BAD = {
    "both": ({"n_steps": 8, "n_episodes": 4}, "n_steps=8 together with n_episodes=4; allowed: one of them"),
    "no episodes": ({"n_episodes": 0}, "n_episodes=0; allowed: an integer ≥ 1"),
    "half an episode": ({"n_episodes": 2.5}, r"n_episodes=2\.5; allowed: an integer ≥ 1"),
    "no steps": ({"n_steps": 0}, "n_steps=0; allowed: an integer ≥ 1"),
    "negative steps": ({"n_steps": -3}, "n_steps=-3; allowed"),
    "yes as steps": ({"n_steps": True}, "n_steps=True; allowed: an integer"),
    "misspelled baseline": ({"baseline": "valeu"}, "valeu.*value"),
    "unknown baseline": ({"baseline": "nothing"}, "(?s)nothing.*mean, moving_average, none.*value"),
    "no baseline": ({"baseline": None}, "None.*none"),
    "baseline's arguments": (
        {"baseline": "mean", "baseline_kwargs": {"x": 1}},
        "its parameters: none; given: baseline_kwargs=.*'x': 1",
    ),
    "other episodes, of which there are none": (
        {"baseline": "leave_one_out", "n_episodes": 1},
        "baseline='leave_one_out' .* n_episodes=1; allowed: n_episodes ≥ 2",
    ),
    "cross-fitting to no episodes": (
        {"baseline": "optimal", "baseline_kwargs": {"cross_fit": True}, "n_episodes": 1},
        "baseline='optimal' .*'cross_fit': True.* n_episodes=1; allowed: n_episodes ≥ 2",
    ),
    "cross-fitting components to no episodes": (
        {"baseline": "optimal_per_component", "baseline_kwargs": {"cross_fit": True}, "n_episodes": 1},
        "n_episodes=1; allowed: n_episodes ≥ 2",
    ),
    "other episodes among pieces": (
        {"baseline": "leave_one_out", "n_steps": 8},
        "baseline='leave_one_out' .* n_steps=8; allowed: n_episodes",
    ),
    "scale of components": (
        {"baseline": "optimal_per_component", "normalize_advantage": True},
        "'optimal_per_component' .* normalize_advantage=True; allowed: normalize_advantage=False",
    ),
    "arguments of a baseline that are no dictionary": (
        {"baseline": "linear", "baseline_kwargs": [1]},
        r"baseline_kwargs=\[1\]; allowed: a dictionary or None",
    ),
    "a switch that is no truth value": (
        {"normalize_advantage": "no"},
        "normalize_advantage='no'; allowed: True or False",
    ),
    "an infinite coefficient": ({"ent_coef": float("inf")}, "ent_coef=inf; allowed: a number"),
    "misspelled argument of a baseline": (
        {"baseline": "optimal", "baseline_kwargs": {"crossfit": True}},
        "'optimal': .*crossfit.*; its parameters: per_time_step: .*, cross_fit: .*; given: baseline_kwargs=",
    ),
    "ridge": ({"baseline": "linear", "baseline_kwargs": {"ridge": 0}}, "ridge=0; allowed: a positive number"),
    "decay": ({"baseline": "moving_average", "baseline_kwargs": {"decay": 1.0}}, r"decay=1\.0; allowed: .* \[0, 1\)"),
    "discounted twice": (
        {"discount_state_distribution": True, "returns": "total"},
        "discount_state_distribution=True together with returns='total'",
    ),
    "misspelled returns": (
        {"returns": "rewards_to_go"},
        r"returns='rewards_to_go' \(did you mean 'reward_to_go'\?\); allowed: 'reward_to_go', 'total'",
    ),
    "unknown returns": ({"returns": "x"}, "returns='x'; allowed: 'reward_to_go', 'total'"),
    "total of incomplete episodes": ({"returns": "total", "n_steps": 8}, "returns='total' together with n_steps=8"),
    "γ too large": ({"gamma": 1.1}, r"gamma=1\.1; allowed: \[0, 1\]"),
    "γ negative": ({"gamma": -0.1}, r"gamma=-0\.1; allowed: \[0, 1\]"),
    "γ not a number": ({"gamma": float("nan")}, r"gamma=nan; allowed: \[0, 1\]"),
    "γ as text": ({"gamma": "0.9"}, r"gamma='0\.9'; allowed"),
    "entropy": ({"ent_coef": float("nan")}, "ent_coef=nan; allowed: a number"),
    "critic's loss": ({"vf_coef": -1}, "vf_coef=-1; allowed: a number ≥ 0"),
    "weight of a critic with steps of its own": (
        {"baseline": "value", "vf_coef": 0.25},
        "vf_coef=0.25 together with n_critic_updates=10, where it is unused; allowed: 0.5",
    ),
    "half a pass": ({"baseline": "value", "n_critic_updates": 0.5}, "n_critic_updates=0.5; allowed: an integer ≥ 0"),
    "minibatches of nothing": ({"baseline": "value", "batch_size": 0}, "batch_size=0; allowed: an integer ≥ 1"),
    "critic's learning rate": (
        {"baseline": "value", "critic_learning_rate": 0},
        "critic_learning_rate=0; allowed: a number > 0",
    ),
    "minibatches of the policy's step": (
        {"baseline": "value", "n_critic_updates": 0, "batch_size": 7},
        "batch_size=7 together with n_critic_updates=0, where it is unused; allowed: 64",
    ),
    "no batch": ({"reuse_batches": 0}, "reuse_batches=0; allowed: an integer ≥ 1"),
    "unknown ratio": ({"reuse_batches": 2, "reuse_ratio": "step"}, "reuse_ratio='step'.*allowed: 'per_step', 'per_d"),
    "ratios below 1": ({"reuse_batches": 2, "max_ratio": 0.5}, r"max_ratio=0\.5; allowed: a number ≥ 1, or infinity"),
    "no ratios": ({"reuse_batches": 2, "max_ratio": float("nan")}, "max_ratio=nan; allowed"),
    "ratios of nothing": ({"max_ratio": 3.0}, r"max_ratio=3\.0 together with reuse_batches=1, where it is unused"),
    "pieces of earlier episodes": ({"reuse_batches": 2, "n_steps": 8}, "n_steps=8 together with reuse_batches=2"),
    "totals of earlier episodes": ({"reuse_batches": 2, "returns": "total"}, "returns='total' together with reuse_ba"),
    "continued earlier episodes": (
        {"reuse_batches": 2, "bootstrap_truncated": True},
        "bootstrap_truncated=True together with reuse_batches=2, .* allowed: False",
    ),
    "gradient norm": ({"max_grad_norm": -1}, "max_grad_norm=-1; allowed: a number > 0, or None"),
    "deviation of one number": ({"n_steps": 1, "normalize_advantage": True}, "normalize_advantage=True .*at least 2"),
}
each = pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())


@each
def test_construction(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_model(**arguments)


@each
def test_loading(arguments, message, tmp_path):
    arguments = dict(arguments)
    model = make_model(arguments.pop("n_envs", 1))
    vars(model).update(arguments)
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        REINFORCE.load(tmp_path / "model", device="cpu")


def test_episodes_that_other_environments_cannot_share(tmp_path):
    make_model(2, n_episodes=4).save(tmp_path / "model")
    with pytest.warns(UserWarning, match=r"n_episodes=4 .* 3 environments: every update takes 6"):
        model = REINFORCE.load(tmp_path / "model", env=DummyVecEnv([RandomEnv] * 3), device="cpu")
    assert model.learn(1).rollout_buffer.episode_starts.sum() == 6


def test_defaults_load_under_any_number_of_environments(tmp_path):
    make_model(1).save(tmp_path / "model")
    model = REINFORCE.load(tmp_path / "model", env=DummyVecEnv([RandomEnv] * 3), device="cpu").learn(1)
    assert len(model._episodes.lengths) == 12


@pytest.mark.parametrize("arguments", [{"max_grad_norm": None}, {"gamma": 0}, {"gamma": 1}, {"ent_coef": -0.1}])
def test_what_is_allowed(arguments):
    make_model(**arguments)


def test_two_steps_have_a_deviation():
    make_model(2, n_steps=1, normalize_advantage=True).learn(4)


def test_a_linear_baseline_of_large_images_is_refused():
    env = RandomEnv(observation_space=OBSERVATION_SPACES["image"])
    with pytest.raises(ValueError, match=r"'linear' .* observations of 1296 numbers; allowed: at most 1000"):
        REINFORCE("CnnPolicy", env, baseline="linear", device="cpu")


def test_unsupported_action_spaces_are_refused_by_sb3():
    env = RandomEnv(gym.spaces.Tuple([gym.spaces.Discrete(2)]))
    with pytest.raises(AssertionError, match=re.escape("only supports")):
        REINFORCE("MlpPolicy", env, device="cpu")


def test_it_just_works():
    assert REINFORCE("MlpPolicy", "CartPole-v1", device="cpu").learn(1).num_timesteps >= 10


def test_episodes_that_cannot_be_shared_equally_are_rounded_up():
    with pytest.warns(UserWarning, match="n_episodes=5 cannot be shared equally by 3 environments: .* takes 6"):
        model = make_model(n_episodes=5, n_envs=3)
    lengths = []
    model.learn(1, lambda caller, _: lengths.append(1) or True)
    assert model.rollout_buffer.episode_starts.sum() == 6


def strictly_monitored():
    return Monitor(RandomEnv(), allow_early_resets=False)


@pytest.mark.parametrize("vec_env", [DummyVecEnv, SubprocVecEnv])
def test_a_monitor_that_allows_no_early_resets_is_refused_where_there_would_be_some(vec_env):
    env = vec_env([strictly_monitored, strictly_monitored])
    try:
        with pytest.raises(ValueError, match=r"allow_early_resets=False .* environment 0.*allowed: .*n_steps"):
            REINFORCE("MlpPolicy", env)
        REINFORCE("MlpPolicy", env, n_steps=8).learn(32)
    finally:
        env.close()


def test_a_single_environment_is_never_reset_early():
    REINFORCE("MlpPolicy", strictly_monitored(), n_episodes=2).learn(60)


class Endless(RandomEnv):
    """No episode ends."""

    def step(self, action):
        obs, reward, *_ = super().step(action)
        return obs, reward, False, False, {}


def test_where_no_episode_ends_a_warning_says_what_to_do():
    model = REINFORCE("MlpPolicy", Endless(), device="cpu")
    message = "no episode has ended in 1024 steps, with total_timesteps=1000: .* n_steps=, or .*TimeLimit"
    with pytest.warns(RuntimeWarning, match=message):
        model.learn(1000, lambda caller, _: caller["self"].num_timesteps < 5000)


def test_episodes_longer_than_the_training_are_nothing_to_warn_of():
    model = REINFORCE("MlpPolicy", RandomEnv(length=600), device="cpu", n_episodes=4)
    model.learn(100)
    assert model.num_timesteps > 1200
