"""REINFORCE learns what little there is to learn."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sb3_pg_ext import REINFORCE


class Bandit(gym.Env):
    """One step; the second of three arms pays most. Beside it the payment is noisy."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action):
        reward = (0.2, 1.0, 0.5)[action] + 0.1 * self.np_random.normal()
        return np.ones(1, np.float32), reward, True, False, {}


class Chain(gym.Env):
    """Four states in a row. Going right pays at the end, giving up pays a little at once."""

    observation_space = spaces.Discrete(4)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = 0
        return self.state, {}

    def step(self, action):
        if action == 0:
            return self.state, 0.1, True, False, {}
        self.state += 1
        arrived = self.state == 3
        return self.state, float(arrived), arrived, False, {}


class Target(gym.Env):
    """One step; the reward is how near the action is to twice the observation."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Box(-2, 2, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.obs = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.obs, {}

    def step(self, action):
        return self.obs, -float((action[0] - 2 * self.obs[0]) ** 2), True, False, {}


def train(env, steps, seed, **kwargs):
    arguments = {"learning_rate": 0.1, "n_episodes": 20, "policy_kwargs": {"net_arch": []}, **kwargs}
    return REINFORCE("MlpPolicy", env, seed=seed, device="cpu", **arguments).learn(steps)


each_seed = pytest.mark.parametrize("seed", range(3))


@each_seed
@pytest.mark.parametrize("baseline", ["none", "mean", "value"])
def test_the_best_arm(seed, baseline):
    model = train(Bandit(), 400, seed, baseline=baseline)
    distribution = model.policy.get_distribution(model.policy.obs_to_tensor(np.ones((1, 1), np.float32))[0])
    assert distribution.distribution.probs[0, 1] > 0.7


@each_seed
@pytest.mark.parametrize("arguments", [{"returns": "total"}, {"n_steps": 40, "n_episodes": None}])
def test_patience(seed, arguments):
    model = train(Chain(), 1000, seed, **arguments)
    assert [model.predict(state, deterministic=True)[0] for state in range(3)] == [1, 1, 1]


@each_seed
def test_a_continuous_action(seed):
    model = train(Target(), 1000, seed, baseline="value", policy_kwargs={"net_arch": [], "log_std_init": -0.5})
    observations = np.array([[-0.8], [0.0], [0.8]], np.float32)
    actions, _ = model.predict(observations, deterministic=True)
    np.testing.assert_allclose(actions, 2 * observations, atol=0.4)
