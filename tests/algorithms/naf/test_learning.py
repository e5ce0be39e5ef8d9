"""NAF learns what little there is to learn, does not diverge, and says what it does."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise

from sb3_pg_ext import NAF


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


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "arguments",
    [
        {"action_noise": NormalActionNoise(np.zeros(1), 0.3 * np.ones(1))},
        {"exploration": "covariance", "temperature": 0.1, "double": True, "loss": "huber"},
        {"action_noise": NormalActionNoise(np.zeros(1), 0.3 * np.ones(1)), "policy_kwargs": {"layer_norm": True}},
    ],
)
def test_a_continuous_action(seed, arguments):
    arguments = {**arguments, "policy_kwargs": {"net_arch": [32], **arguments.get("policy_kwargs", {})}}
    model = NAF(
        "MlpPolicy", Target(), learning_rate=1e-2, batch_size=64, buffer_size=1000, seed=seed, device="cpu", **arguments
    ).learn(800)
    observations = np.array([[-0.8], [0.0], [0.8]], np.float32)
    actions, _ = model.predict(observations, deterministic=True)
    np.testing.assert_allclose(actions, 2 * observations, atol=0.3)


@pytest.mark.thorough
def test_large_rewards_do_not_make_it_diverge():
    env = gym.wrappers.TransformReward(gym.make("Pendulum-v1"), lambda reward: 1e3 * reward)
    model = NAF(
        "MlpPolicy",
        env,
        action_noise=NormalActionNoise(np.zeros(1), 0.1 * np.ones(1)),
        policy_kwargs={"net_arch": [32, 32]},
        batch_size=32,
        buffer_size=6_000,
        seed=0,
        device="cpu",
    ).learn(6_000)
    observations = th.as_tensor(model.replay_buffer.observations[::10, 0])
    with th.no_grad():
        values, _ = model.policy.critic(observations)
    assert model.n_skipped_updates == 0
    assert (values.abs() < 2 * 16.3e3 / (1 - model.gamma)).all()  # no reward is below −16.3


class Latest(KVWriter):
    def __init__(self):
        self.values = {}

    def write(self, key_values, key_excluded, step=0):
        self.values.update(key_values)

    def close(self):
        """Nothing is open."""


@pytest.mark.parametrize("double", [False, True])
def test_the_log(double):
    model = NAF("MlpPolicy", Monitor(Target()), double=double, batch_size=16, buffer_size=200, seed=0, device="cpu")
    latest = Latest()
    model.set_logger(Logger(None, [latest]))
    model.learn(130, log_interval=1)
    model.dump_logs()
    logged, update = latest.values, model._latest
    q, y, v = (th.as_tensor(x, dtype=th.float64) for x in (update.q_values, update.targets, update.values))
    diagonal = th.as_tensor(update.outputs[..., 1])
    expected = {
        "train/critic_loss": sum(((q[:, h] - y[:, 0]) ** 2).mean() for h in range(1 + double)),
        "train/td_error_mean": (y - q).mean(),
        "train/td_error_std": np.std((y - q).numpy()),
        "train/explained_variance": 1 - np.var((y - q).numpy()) / np.var(y.numpy()),
        "train/q_mean": q.mean(),
        "train/q_max": q.max(),
        "train/value_mean": v.mean(),
        "train/advantage_mean": (q - v).mean(),
        "train/advantage_std": np.std((q - v).numpy()),
        "train/advantage_share": (v - q).sum() / ((v - q).sum() + v.abs().sum()),
        "train/precision_min": th.exp(4 * th.tanh(diagonal / 4)).square().min(),
        "train/precision_max": th.exp(4 * th.tanh(diagonal / 4)).square().max(),
    }
    for key, value in expected.items():
        assert logged[key] == pytest.approx(float(value), rel=1e-4, abs=1e-6), key
    assert logged["train/grad_norm"] > 0
    assert logged["train/step_norm"] > 0
    assert logged["train/n_skipped"] == logged["rollout/n_dropped"] == 0
    assert logged["rollout/reward_mean"] == pytest.approx(model.replay_buffer.rewards[129, 0], rel=1e-5)


def test_the_log_of_a_second_run_tells_nothing_of_the_first():
    model = NAF("MlpPolicy", Monitor(Target()), batch_size=16, buffer_size=200, seed=0, device="cpu")
    latest = Latest()
    model.set_logger(Logger(None, [latest]))
    model.learn(130, log_interval=1)
    assert "train/td_error_mean" in latest.values
    latest.values.clear()
    model.learn(50, log_interval=1)  # shorter than learning_starts
    assert "rollout/reward_mean" in latest.values
    assert "train/td_error_mean" not in latest.values
