"""Estimates for a policy that has not been run, against slow ones from a record of the training."""

import numpy as np
import pytest
import torch as th
from envs import RandomEnv
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from scripted import Script, ScriptedEnv
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_pg_ext import A3C, DAC, IMPALA, NPG, REINFORCE, ActorCritic
from sb3_pg_ext.callbacks import OffPolicyEvaluationCallback

SCRIPTS = Script((5.0, 1.0, 2.0, -1.5)), Script((0.5, 3.0)), Script((-2.0,))
ALL = ("trajectory", "per_decision", "normalized_trajectory", "normalized_per_decision", "weighted_doubly_robust")
TINY = {"n_steps": 6, "learning_rate": 0.1}
ALGORITHMS = {
    "PPO": (PPO, {**TINY, "batch_size": 6, "n_epochs": 2}),
    "NPG": (NPG, TINY),
    "REINFORCE": (REINFORCE, {"n_episodes": 4, "learning_rate": 0.1}),
}
each_algorithm = pytest.mark.parametrize("name", ALGORITHMS)


def make_model(name, env=None):
    algorithm, arguments = ALGORITHMS[name]
    envs = [ScriptedEnv(spaces.Discrete(2), *SCRIPTS[i:], *SCRIPTS[:i], first=10 * i) for i in range(2)]
    env = env or DummyVecEnv([lambda env=env: env for env in envs])
    return algorithm("MlpPolicy", env, seed=0, device="cpu", policy_kwargs={"net_arch": [4]}, **arguments)


def log_prob(policy, obs, action):
    with th.no_grad():
        distribution = policy.get_distribution(th.as_tensor(obs)[None])
        return distribution.log_prob(th.as_tensor([int(action)])).item()


@each_algorithm
def test_trajectories_against_what_the_environments_noted(name):
    """Episodes go on over the ends of rollouts; every piece has the policy of its own time."""
    model, callback = make_model(name), OffPolicyEvaluationCallback(estimates=ALL, n_episodes=50, gamma=0.9)
    envs = [env.unwrapped for env in model.env.envs]
    acted = {}

    class Note(OffPolicyEvaluationCallback):
        """Notes log μ of every step as it is made."""

        def _on_step(self):
            for n, env in enumerate(envs):
                k, t = len(env.played) - 1, len(env.played[-1].rewards) - 1
                if t < 0:  # the episode has just ended, and the environment was reset
                    k, t = k - 1, len(env.played[-2].rewards) - 1
                episode = env.played[k]
                acted[n, k, t] = log_prob(self.model.policy, episode.observations[t], episode.actions[t])
            return True

    model.learn(30, [callback, Note()])
    found, weighted = callback.measure(), []
    assert len(callback._episodes) > 6
    for episode in callback._episodes:
        n, k, record = next(
            (n, k, record)
            for n, env in enumerate(envs)
            for k, record in enumerate(env.played)
            if record.complete and np.array_equal(record.observations[:-1], episode.inputs.observations)
        )
        assert [int(a) for a in record.actions] == episode.actions.flatten().astype(int).tolist()
        new = sum(log_prob(model.policy, s, a) for s, a in zip(record.observations, record.actions, strict=False))
        ratio = np.exp(new - sum(acted[n, k, t] for t in range(len(record.rewards))))
        weighted.append((ratio, sum(0.9**t * r for t, r in enumerate(record.rewards))))
    ratios, returns = np.transpose(weighted)
    assert found["trajectory/mean"] == pytest.approx(np.mean(ratios * returns), rel=1e-4)
    assert found["normalized_trajectory/mean"] == pytest.approx(np.average(returns, weights=ratios), rel=1e-4)
    assert found["effective_sample_size"] == pytest.approx(
        ratios.sum() ** 2 / (ratios**2).sum() / len(ratios), rel=1e-4
    )
    assert all(found[f"{each}/low"] < found[f"{each}/mean"] < found[f"{each}/high"] for each in ALL)


@each_algorithm
def test_training_goes_on_as_without_it(name):
    models = [make_model(name).learn(30, callback) for callback in (None, OffPolicyEvaluationCallback())]
    th.testing.assert_close(*(model.get_parameters() for model in models), rtol=0, atol=0)


def test_the_policy_that_acted_has_the_mean_return_of_its_episodes():
    model = make_model("REINFORCE")
    model.learning_rate = 0.0
    model._setup_lr_schedule()
    callback = OffPolicyEvaluationCallback(estimates=ALL[:4], n_episodes=8)
    model.learn(30, callback)
    found, returns = callback.measure(), [episode.rewards.sum() for episode in callback._episodes]
    assert found["effective_sample_size"] == pytest.approx(1)
    half = 2.3646 * np.std(returns, ddof=1) / np.sqrt(8)  # Student's quantile for 7 degrees of freedom
    for name in ALL[:4]:
        assert found[f"{name}/mean"] == pytest.approx(np.mean(returns), rel=1e-5)
        assert found[f"{name}/high"] - found[f"{name}/mean"] == pytest.approx(half, rel=1e-3)


class Bandit(ScriptedEnv):
    """Pays what one does."""

    def step(self, action):
        obs, _, *rest = super().step(action)
        return obs, float(action), *rest


def test_another_policy_by_the_episodes_of_this_one():
    """One that nearly always chooses what pays."""
    env = DummyVecEnv([lambda: Bandit(spaces.Discrete(2), Script((0.0,)))])
    model = REINFORCE("MlpPolicy", env, learning_rate=0.0, n_episodes=400, seed=0, device="cpu")
    target = make_model("REINFORCE").policy
    with th.no_grad():
        target.action_net.weight.zero_()
        target.action_net.bias.copy_(th.tensor([0.0, 2.0]))
    callback = OffPolicyEvaluationCallback(target, ALL, n_episodes=400)
    found = (model.learn(400, callback), callback.measure())[1]
    truth = 1 / (1 + np.exp(-2))
    for name in ALL:
        assert found[f"{name}/low"] < truth < found[f"{name}/high"]
        assert found[f"{name}/high"] - found[f"{name}/low"] < 0.2


def test_bad_arguments():
    for arguments, message in {
        ("estimates", ("unbiased",)): "estimates='unbiased'; allowed: 'trajectory'",
        ("estimates", ()): r"estimates=\(\); allowed: at least one of 'trajectory'",
        ("target", "x"): "target='x'; allowed: a policy of an on-policy algorithm, such as model.policy",
        ("n_episodes", 1): "n_episodes=1; allowed: an integer ≥ 2",
        ("gamma", 2): r"gamma=2; allowed: \[0, 1\]",
        ("confidence", 1.0): r"confidence=1\.0; allowed: a number in \[0, 1\)",
    }.items():
        with pytest.raises(ValueError, match=message):
            OffPolicyEvaluationCallback(**dict([arguments]))
    env = RandomEnv(action_space=spaces.Box(-1, 1, (2,), np.float32))
    for model, message in {
        SAC("MlpPolicy", env, device="cpu"): "in SAC; allowed: on-policy algorithms",
        RecurrentPPO("MlpLstmPolicy", env, device="cpu"): "RecurrentActorCriticPolicy; allowed: no recurrence",
        DAC("MlpPolicy", env, device="cpu"): "in DAC",
        ActorCritic(
            "MlpPolicy", env, device="cpu"
        ): "in ActorCritic, which keeps no rollouts to weigh; allowed: on-pol",
        A3C("MlpPolicy", env, device="cpu"): "in A3C, which keeps no rollouts .*; allowed: .* with a rollout buffer",
        IMPALA("MlpPolicy", env, device="cpu"): "in IMPALA, which keeps no rollouts",
        REINFORCE("MlpPolicy", env, n_steps=4, device="cpu"): "n_steps=4 of REINFORCE; allowed: n_episodes",
        REINFORCE("MlpPolicy", env, reuse_batches=2, device="cpu"): "reuse_batches=2; allowed: 1",
    }.items():
        with pytest.raises(ValueError, match=message):
            OffPolicyEvaluationCallback().init_callback(model)
    target, model = make_model("REINFORCE").policy, REINFORCE("MlpPolicy", env, device="cpu")
    target.observation_space = env.observation_space
    with pytest.raises(ValueError, match="target has the action_space Discrete"):
        OffPolicyEvaluationCallback(target).init_callback(model)
