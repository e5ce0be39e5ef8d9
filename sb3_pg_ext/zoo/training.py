"""A run of a sweep, trained as ``sb3-pg train`` does it."""

import argparse
import importlib
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import set_random_seed

from sb3_pg_ext.evaluation.episodes import play_episodes
from sb3_pg_ext.evaluation.records import Result
from sb3_pg_ext.evaluation.runs import Run
from sb3_pg_ext.plugins import registry
from sb3_pg_ext.zoo import bridge

FINAL_SEED = 1_000_000
"""The final policy plays the episodes of this seed and the following ones, whatever was trained."""
N_EVAL_ENVS = 16
REPORT_SECONDS = 1.0


def train(run: Run, folder: Path, report: Callable[[int], None]) -> Result:
    """Train, save the model, and evaluate it. A :class:`~sb3_pg_ext.evaluation.runs.Trainer`."""
    bridge.install(registry())
    for module in run.details["gym_packages"]:
        importlib.import_module(module)
    set_random_seed(run.seed)
    manager = RunManager(run, folder, report)
    prepared = manager.setup_experiment()
    assert prepared is not None
    model, _ = prepared
    model.set_logger(configure(str(folder), ["csv"]))
    manager.learn(model)
    model.save(folder / "model.zip")
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        normalizer.save(str(folder / "vecnormalize.pkl"))
    return {
        "lockstep": not hasattr(type(model), "vec_env_class"),
        "evaluation": manager.evaluate(model, run.options["final_episodes"]),
        "evaluations": _read_evaluations(folder / "evaluations.npz"),
    }


class RunManager(bridge.PluginExperimentManager):
    """RL Zoo's experiment manager for a run of a sweep: hyper-parameters come from the run, files go into its folder.

    :param run: what to train
    :param folder: of the run
    :param report: is called with the number of steps so far
    """

    def __init__(self, run: Run, folder: Path, report: Callable[[int], None]) -> None:
        options = {"algo": run.algo, "env": run.env, "seed": run.seed, "n_timesteps": run.n_timesteps, **run.options}
        super().__init__(
            argparse.Namespace(**options, env_kwargs=None),
            run.algo,
            run.env,
            str(folder.parent),
            n_timesteps=run.n_timesteps,
            eval_freq=run.options["eval_freq"],
            n_eval_episodes=run.options["eval_episodes"],
            n_eval_envs=min(N_EVAL_ENVS, run.options["eval_episodes"]),
            seed=run.seed,
            log_interval=-1,
            device=run.options["device"],
            config=run.details["config"],
        )
        self.save_path = self.params_path = str(folder)
        self._run, self._report = run, report

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Those of the run."""
        return dict(self._run.hyperparameters), OrderedDict(sorted(self._run.hyperparameters.items()))

    def create_callbacks(self) -> None:
        """RL Zoo's, and one that reports."""
        super().create_callbacks()
        self.callbacks.append(_Report(self._report))

    def evaluate(self, model: BaseAlgorithm, n_episodes: int) -> Result:
        """Play greedy episodes, each from its seed of the list that is the same for all runs.

        :param model: whose policy plays
        :param n_episodes: how many
        """
        seeds = list(range(FINAL_SEED, FINAL_SEED + n_episodes))
        env = self.create_envs(min(N_EVAL_ENVS, n_episodes), eval_env=True)
        try:
            episodes = play_episodes(model, env, seeds)
        finally:
            env.close()
        return {
            "timesteps": model.num_timesteps,
            "seeds": seeds,
            "returns": [episode.episode_return for episode in episodes],
            "lengths": [episode.length for episode in episodes],
        }


class _Report(BaseCallback):
    """Says how many steps were made, where a rollout begins and not too often."""

    def __init__(self, report: Callable[[int], None]) -> None:
        super().__init__()
        self._report, self._last = report, time.monotonic()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if time.monotonic() - self._last > REPORT_SECONDS:
            self._last = time.monotonic()
            self._report(self.num_timesteps)


def environment_modules(env_ids: list[str]) -> list[str]:
    """The modules that make environments, to import them before processes are forked.

    :param env_ids: ids of environments
    """
    entries = {gym.spec(env_id).entry_point for env_id in env_ids}
    return sorted({entry.partition(":")[0] for entry in entries if isinstance(entry, str)})


def _read_evaluations(path: Path) -> list[Result]:
    if not path.exists():
        return []
    with np.load(path) as file:
        return [
            {"timesteps": int(steps), "returns": returns.tolist()}
            for steps, returns in zip(file["timesteps"], file["results"], strict=True)
        ]
