"""A tiny AdaptiveKLPPO that tests share."""

import numpy as np
from envs import RandomEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_pg_ext import AdaptiveKLPPO
from sb3_pg_ext.gradients.array_backend import ArrayBackend


def make_model(env=None, n_envs=1, **kwargs):
    """A model on a :class:`RandomEnv`: 16 steps for an update, 2 epochs of minibatches of 8."""
    env = DummyVecEnv([RandomEnv] * n_envs) if env is None else env
    defaults = {"n_steps": 16, "batch_size": 8, "n_epochs": 2, "seed": 0, "device": "cpu"}
    policy_kwargs = {"net_arch": [4], **kwargs.pop("policy_kwargs", {})}
    return AdaptiveKLPPO("MlpPolicy", env, policy_kwargs=policy_kwargs, **defaults | kwargs)


def pretend_kl(monkeypatch, number):
    """Let every KL of a whole rollout be what a function says."""
    compare = ArrayBackend.compare

    def compare_otherwise(self, old, inputs, actions):
        log_probs, kls = compare(self, old, inputs, actions)
        return log_probs, np.full(len(kls), number())

    monkeypatch.setattr(ArrayBackend, "compare", compare_otherwise)
    monkeypatch.setattr(ArrayBackend, "mean_kl", lambda self, old, inputs: number())
