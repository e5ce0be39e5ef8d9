"""Every distinct entry of every shipped configuration, and how to run it for two updates."""

import inspect
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import rl_zoo3.import_envs  # noqa: F401  (registers the environments of optional packages)
import yaml
from rl_zoo3.utils import get_wrapper_class
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_pg_ext import IMPALA, GumbelDDPG
from sb3_pg_ext.plugins import AlgorithmSpec, registry
from sb3_pg_ext.plugins.configs import find_config
from sb3_pg_ext.zoo.bridge import register_minatar

register_minatar()

SHIPPED = Path(__file__).parents[2] / "zoo_configs"
STAND_INS = {"default": "Pusher-v5", "atari": "BreakoutNoFrameskip-v4"}
"""Environments for the entries that are named after none."""
OF_CHOICES = "MountainCar-v0"
"""Another, where actions have to be discrete."""


@dataclass(frozen=True)
class Entry:
    """One entry of a configuration.

    :param algo: the Zoo id of the algorithm
    :param name: the name of the entry
    :param env_id: an environment that it serves
    :param config: the file
    :param hyperparams: what it says
    :param cls: the class of the algorithm
    """

    algo: str
    name: str
    env_id: str
    config: Path
    hyperparams: dict[str, Any]
    cls: type

    def __str__(self) -> str:
        return f"{self.config.stem if self.is_ours else self.algo}-{self.name}"

    @property
    def is_ours(self) -> bool:
        """Whether this package ships it; the ``fast_*`` algorithms read RL Zoo's own files."""
        return self.config.parent == SHIPPED

    def arguments(self) -> list[str]:
        """What ``sb3-pg train`` needs for two updates with the entry's own settings."""
        given = ["--algo", self.algo, "--env", self.env_id, "-conf", str(self.config)]
        if issubclass(self.cls, OffPolicyAlgorithm):  # the first updates come once a batch was collected
            start, every = self._argument("batch_size"), self._argument("train_freq")
            return [*given, "-n", str(start + 2 * every), "-params", f"learning_starts:{start}"]
        episodes, limit = self.hyperparams.get("n_episodes"), gym.spec(self.env_id).max_episode_steps
        length = episodes * limit if episodes else self._argument("n_steps") * self.hyperparams.get("n_envs", 1)
        unrolls = self._argument("batch_size") if issubclass(self.cls, IMPALA) else 1
        return [*given, "-n", str(2 * unrolls * length)]

    def _argument(self, name: str) -> Any:
        """What the entry says, or the default of the first constructor that has one."""
        constructors = [inspect.signature(cls.__init__).parameters for cls in self.cls.__mro__]
        defaults = [parameters[name].default for parameters in constructors if name in parameters]
        return self.hyperparams.get(
            name, next(default for default in defaults if default is not inspect.Parameter.empty)
        )

    def reason_to_skip(self) -> str | None:
        """What is not installed that the entry needs, or why it is none for the algorithm."""
        if self.name == "atari":
            return None if find_spec("ale_py") else "ale-py is not installed"
        if self.name.startswith("MinAtar/") and not find_spec("minatar"):
            return "MinAtar is not installed"
        if self.is_ours:
            return None
        try:  # one of RL Zoo's, for an environment of any package or age
            wrap = get_wrapper_class(self.hyperparams) or (lambda env: env)
            env = wrap(gym.make(self.env_id))
        except (gym.error.Error, ImportError) as error:
            return f"{self.env_id}: {type(error).__name__}"
        env.close()
        if issubclass(self.cls, MaskablePPO) and isinstance(env.action_space, gym.spaces.Box):
            return f"{self.env_id}: MaskablePPO chooses among discrete actions"
        return None


def _stand_in(cls: type, name: str) -> str:
    return OF_CHOICES if name == "default" and cls is GumbelDDPG else STAND_INS.get(name, name)


def find_entries() -> list[Entry]:
    """Equal entries of a file once, for the last environment that has them."""
    algorithms = [registry().find(AlgorithmSpec, name) for name in registry().names(AlgorithmSpec)]
    configs = [(find_config(file), spec.name, spec.cls) for spec in algorithms for file in spec.configs]
    known = {path for path, *_ in configs}
    configs += [(path, "ppo", PPO) for path in sorted(SHIPPED.glob("*.yml")) if path not in known]
    found = []
    for path, algo, cls in configs:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
        distinct = {repr(hyperparams): (name, hyperparams) for name, hyperparams in entries.items()}
        found += [
            Entry(algo, name, _stand_in(cls, name), path, hyperparams, cls) for name, hyperparams in distinct.values()
        ]
    return found
