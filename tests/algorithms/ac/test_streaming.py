"""The streaming recipe, what it wraps environments in, and how that is saved."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, RandomEnv
from sb3_contrib.common.wrappers import TimeFeatureWrapper
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from sb3_pg_ext import ActorCritic
from sb3_pg_ext.algorithms.ac.learner import Learner
from sb3_pg_ext.algorithms.ac.samples import AutogradSamples
from sb3_pg_ext.envs import FastDummyVecEnv
from sb3_pg_ext.envs.step_infos import make_step

SMALL = {"net_arch": [8]}


def make(env="Pendulum-v1", **kwargs):
    arguments = {"seed": 0, "device": "cpu", "policy_kwargs": SMALL, "n_steps": 50, **kwargs}
    return ActorCritic.streaming("MlpPolicy", env, **arguments)


def test_one_call_turns_all_of_it_on():
    model = make()
    env = model.get_env()
    assert isinstance(env, VecNormalize)
    assert env.clip_obs == env.clip_reward == np.inf
    assert env.env_is_wrapped(TimeFeatureWrapper) == env.env_is_wrapped(Monitor) == [True]
    assert env.observation_space.shape == (4,)
    assert (model.optimizer, model.trace_lambda, model.learning_rate, model.ent_coef) == ("obgd", 0.8, 1.0, 0.01)
    assert (model.actor_kappa, model.critic_kappa, model.gamma) == (3.0, 2.0, 0.99)
    policy = model.policy
    assert policy.layer_norm
    assert policy.sparse_init == 0.9
    assert policy.activation_fn is nn.LeakyReLU
    assert policy.std_function == "softplus"
    model.learn(100)
    assert [info["l"] for info in model.ep_info_buffer] in ([], [200])


def test_overrides():
    model = make(gamma=0.9, optimizer="adaptive_obgd", time_feature=False)
    assert model.observation_space.shape == (3,)
    assert model.get_env().gamma == model.gamma == 0.9
    assert model.optimizer == "adaptive_obgd"
    assert model.policy.layer_norm  # beside net_arch, which is another


def test_environments_without_a_limit():
    model = make(RandomEnv(ACTION_SPACES["Discrete"]))
    assert model.observation_space.shape == (3,)
    with pytest.raises(ValueError, match=r"time_feature=True with .*; allowed: False, or a single environment"):
        make(RandomEnv(), time_feature=True)
    with pytest.raises(ValueError, match="time_feature='x'; allowed: True or False"):
        make(time_feature="x")


def test_a_normalised_environment_is_left_as_it_is():
    env = VecNormalize(DummyVecEnv([RandomEnv]))
    assert make(env).get_env() is env


def test_what_it_is_wrapped_in_is_saved_and_put_around_raw_environments(tmp_path):
    model = make().learn(120)
    model.save(tmp_path / "model")
    loaded = ActorCritic.load(tmp_path / "model", env=gym.make("Pendulum-v1"), device="cpu")
    assert loaded.get_env().env_is_wrapped(TimeFeatureWrapper) == [True]
    for one, other in zip(*([e.obs_rms, e.ret_rms] for e in (model.get_env(), loaded.get_env())), strict=True):
        for name in ("mean", "var", "count"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    raw = gym.make("Pendulum-v1")
    model.set_env(raw)
    for each in (model, loaded):
        each.set_random_seed(5)
        each.learn(100, reset_num_timesteps=False)
    th.testing.assert_close(model.get_parameters(), loaded.get_parameters(), rtol=0, atol=0)


def test_a_vec_env_without_the_time_feature(tmp_path):
    model = make().learn(60)
    model.save(tmp_path / "model")
    bare = DummyVecEnv([lambda: gym.make("Pendulum-v1")])
    for take in (model.set_env, lambda env: ActorCritic.load(tmp_path / "model", env=env, device="cpu")):
        with pytest.raises(ValueError, match="observations of 3 numbers, without the time feature; allowed: a single"):
            take(bare)
    model.set_env(DummyVecEnv([lambda: TimeFeatureWrapper(gym.make("Pendulum-v1"), 200)]))
    model.learn(60)


def test_it_is_evaluated_in_a_raw_environment():
    model = make().learn(120)
    env = model.evaluation_env(gym.make("Pendulum-v1"))
    own = model.get_env()
    own.training = own.norm_reward = False
    for each in (env, own):
        each.seed(7)
    assert evaluate_policy(model, env, 2) == evaluate_policy(model, own, 2)
    assert env.obs_rms.count == own.obs_rms.count
    model.learn(60, callback=EvalCallback(model.evaluation_env(gym.make("Pendulum-v1")), eval_freq=50, verbose=0))
    with pytest.raises(ValueError, match="not made by streaming"):
        ActorCritic("MlpPolicy", "CartPole-v1", device="cpu").evaluation_env(gym.make("CartPole-v1"))


def test_a_model_loaded_without_an_environment_takes_one_later(tmp_path):
    model = make().learn(60)
    count = model.get_env().obs_rms.count
    model.save(tmp_path / "model")
    loaded = ActorCritic.load(tmp_path / "model", device="cpu")
    loaded.save(tmp_path / "again")
    loaded = ActorCritic.load(tmp_path / "again", device="cpu")
    loaded.set_env(gym.make("Pendulum-v1"))
    assert loaded.get_env().obs_rms.count == count


@pytest.mark.parametrize("space", ["Box", "Discrete", "MultiDiscrete", "MultiBinary"])
@pytest.mark.parametrize(("optimizer", "n_envs"), [("sgd", 3), ("obgd", 1), ("obgd", 3), ("adaptive_obgd", 1)])
def test_all_engines_give_the_same_training(space, optimizer, n_envs):
    pytest.importorskip("numba")
    models = {}
    dense = {"policy_kwargs": {**SMALL, "sparse_init": 0.0}}  # else so few inputs reach nothing
    for engine in ("compiled", "array", "autograd"):
        env = DummyVecEnv([lambda: RandomEnv(ACTION_SPACES[space])] * n_envs)
        rate = 1e-3 if optimizer == "sgd" else 1.0
        models[engine] = make(env, engine=engine, optimizer=optimizer, learning_rate=rate, **dense).learn(60)
        assert models[engine].describe_engine().startswith(("compiled", "arrays", "autograd"))
    expected = th.nn.utils.parameters_to_vector(models.pop("autograd").policy.parameters())
    for model in models.values():
        actual = th.nn.utils.parameters_to_vector(model.policy.parameters())
        th.testing.assert_close(actual, expected, rtol=0, atol=2e-4 if optimizer == "adaptive_obgd" else 1e-5)


def test_a_single_normalised_environment_is_stepped_as_vec_normalize_does():
    """Bit by bit, with and without clipping and training."""
    for arguments in ({}, {"clip_obs": np.inf, "clip_reward": np.inf}, {"norm_obs": False}, {"norm_reward": False}):
        ours, theirs = (VecNormalize(FastDummyVecEnv([RandomEnv]), gamma=0.9, **arguments) for _ in range(2))
        for env in (ours, theirs):
            env.seed(3)
        steps = make_step(ours), theirs.step
        np.testing.assert_array_equal(ours.reset(), theirs.reset())
        for t in range(40):
            ours.training = theirs.training = t < 30
            action = np.array([[np.sin(t)]], np.float32)
            (*one, info), (*other, other_info) = (step(action) for step in steps)
            for a, b in zip(one, other, strict=True):
                np.testing.assert_array_equal(a, b)
                assert a.dtype == b.dtype
            assert info[0].keys() == other_info[0].keys()
            if one[2][0]:
                np.testing.assert_array_equal(info[0]["terminal_observation"], other_info[0]["terminal_observation"])
        np.testing.assert_array_equal(ours.returns, theirs.returns)
        np.testing.assert_array_equal(ours.get_original_obs(), theirs.get_original_obs())
        for name in ("mean", "var", "count"):
            assert np.array_equal(getattr(ours.ret_rms, name), getattr(theirs.ret_rms, name))


def test_the_terminal_reward_is_credited_before_traces_are_cleared():
    """Whatever came before the last step of an episode has its share in the last reward."""
    model = ActorCritic("MlpPolicy", OnlyAtTheEnd(), 0.01, seed=0, device="cpu", policy_kwargs=SMALL)
    bias = model.policy.value_net.bias.detach().clone()
    model.policy.value_net.weight.data.zero_()
    model.learn(3)
    # δ is 0, 0 and 1; the trace of the bias is 1 + γλ + (γλ)², but for what V itself has changed by
    decay = 0.99 * 0.8
    assert (model.policy.value_net.bias - bias).item() == pytest.approx(0.01 * (1 + decay + decay**2), rel=1e-4)
    model.learn(1, reset_num_timesteps=False)
    assert model.memory.critic_traces[0].abs().max() <= 8  # it begins anew


class OnlyAtTheEnd(RandomEnv):
    """Rewards the third and last step of an episode."""

    def __init__(self):
        super().__init__(length=3)

    def reset(self, **kwargs):
        obs, info = super().reset(**kwargs)
        self.n_episodes = 2
        return obs, info

    def step(self, action):
        obs, _, *rest = super().step(action)
        return obs, float(self.time == 3), *rest


def test_a_learner_on_arrays_uses_no_autograd(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("autograd was used")

    model = make(engine="array")
    monkeypatch.setattr(AutogradSamples, "__init__", fail)
    monkeypatch.setattr(th.autograd, "backward", fail)
    learner, _ = model._make_learner(10)
    assert isinstance(learner, Learner)
    model.learn(20)


def test_it_learns_from_a_stream():
    model = ActorCritic.streaming("MlpPolicy", "CartPole-v1", seed=0, device="cpu", engine="array", n_steps=100)
    model.policy.set_training_mode(False)
    model.learn(3000)
    returns = [info["r"] for info in model.ep_info_buffer]
    assert np.mean(returns[-5:]) > 3 * np.mean(returns[:10])
