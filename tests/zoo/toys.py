"""Algorithms of a plug-in that is not there."""

from typing import Any

from stable_baselines3 import A2C, DQN
from stable_baselines3.common.type_aliases import Schedule

CONFIG = """
default: &default
  policy: MlpPolicy
  n_timesteps: 100
  n_steps: 8
  temperature: lin_0.5
  policy_kwargs: "dict(ortho_init=False, net_arch=[4])"
CartPole-v1:
  <<: *default
  n_envs: 2
"""


class Toy(A2C):
    """A stand-in for an algorithm of a plug-in, with a schedule that RL Zoo does not know."""

    def __init__(self, policy: Any, env: Any, *arguments: Any, temperature: float | Schedule = 1.0, **keywords: Any):
        super().__init__(policy, env, *arguments, **keywords)
        self.temperature = temperature


class ToyWithReplay(DQN):
    pass


def sample_toy(trial: Any, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    return convert_toy({"one_minus_gamma": trial.suggest_float("one_minus_gamma", 0.01, 0.1)})


def convert_toy(sampled: dict[str, Any]) -> dict[str, Any]:
    return {"gamma": 1 - sampled["one_minus_gamma"], "policy_kwargs": {"net_arch": [16]}}
