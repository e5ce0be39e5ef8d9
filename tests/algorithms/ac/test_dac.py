"""Deterministic actor-critics on their own policy: a slow version in double precision replays a training."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from envs import ACTION_SPACES, RandomEnv
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_pg_ext import DAC

from .test_updates import (
    GAMMA,
    Recorder,
    Terminates,
    compare,
    gradient,
    in_double_precision,
    move,
    tensor,
    transitions,
)


def train(critic, engine, trace_lambda=0.5, n_steps=23):
    env = DummyVecEnv([lambda: Terminates(ACTION_SPACES["Box of two dimensions"])])
    arguments = {"gamma": GAMMA, "trace_lambda": trace_lambda, "seed": 1, "device": "cpu", "n_steps": 10}
    model = DAC("MlpPolicy", env, 0.02, critic=critic, engine=engine, policy_kwargs={"net_arch": [6]}, **arguments)
    policy, q_net = (in_double_precision(part) for part in (model.policy, model.memory.q_net))
    recorder = Recorder()
    model.learn(n_steps, recorder)
    return model, policy, q_net, list(transitions(recorder.steps))


def mean_of(policy, obs):
    return policy.get_distribution(tensor(obs)).distribution.mean[0]


@pytest.mark.parametrize("engine", ["array", "autograd"])
def test_with_sarsa(engine):
    model, policy, q_net, rows = train("q", engine)
    parameters, of_q = list(policy.parameters()), list(q_net.parameters())
    trace = zero = [th.zeros_like(p) for p in of_q]
    for (obs, action, reward, terminal, next_obs, ends), following in zip(rows, [*rows[1:], None], strict=True):
        if following is None and not terminal:
            return  # the training ended before the next action was taken
        q_value = q_net(tensor(obs), tensor(action.reshape(-1))).sum()
        following_q = 0.0 if terminal else q_net(tensor(next_obs), tensor(following[1].reshape(-1))).sum().item()
        delta = reward + GAMMA * following_q - q_value.item()
        trace = [GAMMA * 0.5 * z + g for z, g in zip(trace, gradient(q_value, of_q), strict=True)]
        move(of_q, 0.02 * delta, trace)
        move(parameters, 0.02, gradient(q_net(tensor(obs), mean_of(policy, obs)[None]).sum(), parameters))
        trace = zero if ends else trace
    compare(model, policy)


@pytest.mark.parametrize("engine", ["array", "autograd"])
def test_with_a_compatible_critic(engine):
    model, policy, _, rows = train("compatible", engine)
    parameters = list(policy.parameters())
    weights = trace = v_trace = zero = [th.zeros_like(p) for p in parameters]
    for obs, action, reward, terminal, next_obs, ends in rows:
        mean, taken = mean_of(policy, obs), tensor(action.reshape(-1))[0]
        features = gradient(((taken - mean.detach()) * mean).sum(), parameters)
        value, next_value = (policy.predict_values(tensor(each)).sum() for each in (obs, next_obs))
        q_value = value.item() + sum(float((w * f).sum()) for w, f in zip(weights, features, strict=True))
        delta = reward + GAMMA * (0.0 if terminal else next_value.item()) - q_value
        trace = [GAMMA * 0.5 * z + g for z, g in zip(trace, features, strict=True)]
        v_trace = [GAMMA * 0.5 * z + g for z, g in zip(v_trace, gradient(value, parameters), strict=True)]
        move(parameters, 0.02 * delta, v_trace)
        weights = [w + 0.02 * delta * z for w, z in zip(weights, trace, strict=True)]
        rows_of_jacobian = [gradient(mean_of(policy, obs)[k], parameters) for k in range(2)]
        of_action = [sum(float((w * g).sum()) for w, g in zip(weights, row, strict=True)) for row in rows_of_jacobian]
        direction = [
            sum(u * g for u, g in zip(of_action, column, strict=True)) for column in zip(*rows_of_jacobian, strict=True)
        ]
        move(parameters, 0.02, direction)
        trace, v_trace = (zero, zero) if ends else (trace, v_trace)
    compare(model, policy)


def test_it_explores_with_sigma_which_stays():
    model = DAC("MlpPolicy", RandomEnv(), exploration_std=0.7, device="cpu", seed=0).learn(50)
    assert model.policy.log_std.exp().item() == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"critic": "v"}, "critic='v'.*; allowed: 'q', 'compatible'"),
        ({"exploration_std": 0}, "exploration_std=0; allowed: a number > 0"),
        ({"policy_kwargs": {"log_std_init": -1}}, "policy_kwargs has log_std_init=-1; allowed: not to have it"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        DAC("MlpPolicy", RandomEnv(), device="cpu", **kwargs)


class Bandit(gym.Env):
    """The reward is −(a − 1)²."""

    observation_space, action_space = spaces.Box(-1, 1, (1,)), spaces.Box(-3, 3, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action):
        return np.ones(1, np.float32), -float((action[0] - 1) ** 2), True, False, {}


@pytest.mark.parametrize("critic", ["q", "compatible"])
def test_it_finds_the_best_action(critic):
    rates = {"actor_learning_rate": 3e-3, "critic_learning_rate": 0.03}
    kwargs = {"net_arch": [16]}
    model = DAC(
        "MlpPolicy", Bandit(), critic=critic, seed=0, device="cpu", engine="array", policy_kwargs=kwargs, **rates
    )
    model.learn(3000)
    action, _ = model.predict(np.ones(1, np.float32), deterministic=True)
    assert action[0] == pytest.approx(1.0, abs=0.2)
