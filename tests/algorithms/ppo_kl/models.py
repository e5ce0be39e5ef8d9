"""A tiny AdaptiveKLPPO that tests share."""

from envs import RandomEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_pg_ext import AdaptiveKLPPO


def make_model(env=None, n_envs=1, **kwargs):
    """A model on a :class:`RandomEnv`: 16 steps for an update, 2 epochs of minibatches of 8."""
    env = DummyVecEnv([RandomEnv] * n_envs) if env is None else env
    defaults = {"n_steps": 16, "batch_size": 8, "n_epochs": 2, "seed": 0, "device": "cpu"}
    policy_kwargs = {"net_arch": [4], **kwargs.pop("policy_kwargs", {})}
    return AdaptiveKLPPO("MlpPolicy", env, policy_kwargs=policy_kwargs, **defaults | kwargs)
