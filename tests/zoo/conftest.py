from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import pytest
import rl_zoo3.train
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS
from stable_baselines3 import A2C, DQN
from stable_baselines3.common.type_aliases import Schedule

from sb3_pg_ext.plugins import AlgorithmSpec, Failure, Provider, Registry
from sb3_pg_ext.plugins.registry import Entry
from sb3_pg_ext.zoo import __main__, bridge

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


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "toy.yml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def plugins(config):
    """A registry with two algorithms, and a plug-in that failed."""
    provider = Provider("toys", "toy-box", "1.2")
    toys = (
        AlgorithmSpec("toy", Toy, str(config), sample_toy, convert_toy),
        AlgorithmSpec(
            "replay", ToyWithReplay, str(config), "no_module:sampler", "no_module:converter", off_policy=True
        ),
    )
    failure = Failure(Provider("broken", "broken-box", "0.1"), ImportError("no module named antigravity"))
    return Registry(tuple(Entry(toy, provider) for toy in toys), (failure,))


@pytest.fixture(autouse=True)
def _clean_tables(monkeypatch):
    """Undo what the bridge enters into RL Zoo."""
    monkeypatch.setattr(rl_zoo3.train, "ExperimentManager", rl_zoo3.train.ExperimentManager)
    with ExitStack() as tables:
        for table in (ALGOS, HYPERPARAMS_SAMPLER, HYPERPARAMS_CONVERTER, bridge.PluginExperimentManager.specs):
            tables.enter_context(patch.dict(table))
        yield


@pytest.fixture
def zoo(monkeypatch, plugins, tmp_path):
    """Run the command line on the toys, in a folder of its own."""

    def run(*arguments: str) -> None:
        monkeypatch.setattr("sys.argv", ["sb3-pg", *arguments])
        __main__.main()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(__main__, "registry", lambda: plugins)
    return run
