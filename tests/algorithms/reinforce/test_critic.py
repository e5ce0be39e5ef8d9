"""The critic's own passes, against gradient descent by hand in double precision, on both backends."""

import numpy as np
import pytest
import torch as th
from envs import OBSERVATION_SPACES, RandomEnv
from gymnasium import spaces
from scripted import Script, ScriptedEnv

from sb3_pg_ext import REINFORCE

SCRIPTS = Script((5.0, 1.0, 2.0, -1.5)), Script((0.5, 3.0)), Script((-2.0,))
each_engine = pytest.mark.parametrize("engine", ["array", "autograd"])


def make_model(optimizer=th.optim.SGD, policy_kwargs=None, **arguments):
    kwargs = {"net_arch": [], "optimizer_class": optimizer, **(policy_kwargs or {})}
    arguments = {"learning_rate": 0.25, "n_episodes": 3, "baseline": "value", **arguments}
    env = ScriptedEnv(spaces.Discrete(2), *SCRIPTS)
    return REINFORCE("MlpPolicy", env, seed=3, device="cpu", policy_kwargs=kwargs, **arguments)


def copy_of(model):
    return {name: p.detach().double().numpy().copy() for name, p in model.policy.named_parameters()}


def descend(weights, bias, obs, returns, learning_rate, n_steps, max_norm=np.inf):
    """Steps of gradient descent on mean((w·s + b − G)²)."""
    for _ in range(n_steps):
        errors = obs @ weights + bias - returns
        gradient = 2 * np.append(errors @ obs, errors.sum()) / len(errors)
        gradient *= min(1, max_norm / np.linalg.norm(gradient))
        weights, bias = weights - learning_rate * gradient[:-1], bias - learning_rate * gradient[-1]
    return weights, bias


@each_engine
@pytest.mark.parametrize("max_grad_norm", [None, 0.5])
@pytest.mark.parametrize("n_critic_updates", [1, 5])
def test_passes_over_the_whole_rollout_are_gradient_descent(engine, n_critic_updates, max_grad_norm):
    arguments = {"critic_learning_rate": 0.125, "n_critic_updates": n_critic_updates, "max_grad_norm": max_grad_norm}
    model = make_model(engine=engine, **arguments)
    before = copy_of(model)
    model.learn(1)
    buffer, after = model.rollout_buffer, copy_of(model)
    start = before["value_net.weight"][0], before["value_net.bias"][0]
    obs, returns = buffer.observations[:, 0].astype(float), buffer.returns[:, 0].astype(float)
    weights, bias = descend(*start, obs, returns, 0.125, n_critic_updates, max_grad_norm or np.inf)
    np.testing.assert_allclose(after["value_net.weight"][0], weights, rtol=1e-5)
    np.testing.assert_allclose(after["value_net.bias"], bias, rtol=1e-5)
    assert n_critic_updates == 5 or not np.allclose(before["value_net.bias"], bias)


@each_engine
def test_small_minibatches_reach_the_regression(engine):
    model = make_model(engine=engine, batch_size=4, n_critic_updates=400, critic_learning_rate=0.05).learn(1)
    buffer = model.rollout_buffer
    features = np.column_stack([buffer.observations[:, 0], np.ones(len(buffer.returns))]).astype(float)
    best = np.linalg.lstsq(features, buffer.returns[:, 0].astype(float), rcond=None)[0]
    after = copy_of(model)
    np.testing.assert_allclose([*after["value_net.weight"][0], *after["value_net.bias"]], best, atol=0.15)


@each_engine
@pytest.mark.parametrize("optimizer", [th.optim.SGD, th.optim.Adam])
def test_the_policy_makes_the_step_that_it_makes_without_a_critic_of_its_own(engine, optimizer):
    """Of the same rollout, update by update: what the critic's steps remember is none of the policy's business."""
    models = [make_model(optimizer, engine=engine, baseline="mean")]
    models.append(make_model(optimizer, engine=engine, bootstrap_truncated=True, baseline="mean"))
    for model in models:
        for seed in range(3):
            model.set_random_seed(seed)  # the order of minibatches is random
            model.learn(7, reset_num_timesteps=False)
    without, with_critic = map(copy_of, models)
    for name in ("action_net.weight", "action_net.bias"):
        np.testing.assert_allclose(with_critic[name], without[name], rtol=1e-6)
    assert not np.allclose(with_critic["value_net.bias"], without["value_net.bias"])


def test_the_learning_rate_of_the_critic_follows_its_schedule():
    """Steps of policy and critic alternate; two updates of seven steps."""
    rates = []

    def note(optimizer, *_):
        rates.append(optimizer.param_groups[0]["lr"])

    model = make_model(critic_learning_rate=lambda left: 0.5 * left, n_critic_updates=1)
    hook = model.policy.optimizer.register_step_post_hook(note)
    model.learn(14)
    hook.remove()
    assert rates == [0.25, 0.25, 0.25, 0.0]
    assert model.policy.optimizer.param_groups[0]["lr"] == 0.25


def test_a_shared_extractor_is_left_to_the_policy():
    env = RandomEnv(observation_space=OBSERVATION_SPACES["image"])
    arguments = {"n_episodes": 2, "baseline": "value", "learning_rate": 0.0, "critic_learning_rate": 0.1, "seed": 0}
    model = REINFORCE("CnnPolicy", env, device="cpu", policy_kwargs={"net_arch": []}, **arguments)
    before = copy_of(model)
    after = copy_of(model.learn(1))
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {"value_net.weight", "value_net.bias"}


def test_a_saved_model_goes_on_as_the_original(tmp_path):
    model = make_model(th.optim.Adam, critic_learning_rate=0.01).learn(14)
    model.save(tmp_path / "model")
    loaded = REINFORCE.load(tmp_path / "model", device="cpu")
    for each in (model, loaded):
        each.set_env(each._wrap_env(ScriptedEnv(spaces.Discrete(2), *SCRIPTS)))
        each.set_random_seed(1)
        each.learn(14, reset_num_timesteps=False)
    for name, numbers in copy_of(model).items():
        np.testing.assert_array_equal(copy_of(loaded)[name], numbers)
