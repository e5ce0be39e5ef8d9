"""A run of a sweep, trained as ``sb3-pg train`` does it."""

import argparse
import importlib
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
from rl_zoo3.utils import ALGOS
from sb3_contrib.common.vec_env import AsyncEval
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv

from sb3_pg_ext.callbacks import EpisodeEvalCallback, TrainingCheckpointCallback
from sb3_pg_ext.checkpoints import resume
from sb3_pg_ext.evaluation.episodes import play_episodes
from sb3_pg_ext.evaluation.records import Result
from sb3_pg_ext.evaluation.runs import CHECKPOINT_FOLDER, Run
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
    model, resumed = prepared[0], True
    try:
        model = resume(folder / CHECKPOINT_FOLDER, model.get_env())
    except FileNotFoundError:
        resumed = False
    model.set_logger(configure(str(folder), ["csv"]))
    manager.learn(model)
    model.save(folder / "model.zip")
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        normalizer.save(str(folder / "vecnormalize.pkl"))
    return {
        "resumed": resumed,
        "lockstep": not hasattr(type(model), "vec_env_class"),
        "evaluation": manager.evaluate(model, run.options["final_episodes"]),
        "evaluations": [each for callback in manager.evaluators for each in callback.evaluations],
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
            eval_freq=-1,  # RL Zoo's own evaluation counts short episodes more often
            seed=run.seed,
            log_interval=-1,
            device=run.options["device"],
            config=run.details["config"],
        )
        self.save_path = self.params_path = str(folder)
        self.evaluators: list[EpisodeEvalCallback] = []
        self._eval_envs: list[VecEnv] = []
        self._run, self._report = run, report

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Those of the run."""
        return dict(self._run.hyperparameters), OrderedDict(sorted(self._run.hyperparameters.items()))

    def create_callbacks(self) -> None:
        """RL Zoo's, and those that report, evaluate, and, where the algorithm has rollouts, save checkpoints."""
        super().create_callbacks()
        self.callbacks.append(_Report(self._report))
        if self._run.options["eval_freq"] > 0:
            n_episodes = self._run.options["eval_episodes"]
            env = self.create_envs(min(N_EVAL_ENVS, n_episodes), eval_env=True)
            self._eval_envs.append(env)
            freq = max(1, self._run.options["eval_freq"] // self.n_envs)
            self.evaluators.append(EpisodeEvalCallback(env, n_eval_episodes=n_episodes, eval_freq=freq))
            self.callbacks += self.evaluators
        if issubclass(ALGOS[self.algo], OnPolicyAlgorithm | OffPolicyAlgorithm):
            folder = Path(self.save_path) / CHECKPOINT_FOLDER
            self.callbacks.append(TrainingCheckpointCallback(self._run.details["checkpoint_freq"], folder))

    def learn(self, model: BaseAlgorithm) -> None:
        """Train, or go on. RL Zoo's takes a training that Ctrl-C has ended for a finished one.

        :param model: as it was made, or as it was resumed
        """
        keywords: dict[str, Any] = {}
        if self.algo == "ars" and self.n_envs > 1:
            makers: list[Callable[[], VecEnv]] = [partial(self.create_envs, 1, no_log=True)] * self.n_envs
            keywords["async_eval"] = AsyncEval(makers, model.policy)
        assert model.env is not None
        steps = self.n_timesteps - model.num_timesteps
        try:
            model.learn(steps, callback=self.callbacks, reset_num_timesteps=model.num_timesteps == 0, **keywords)
        finally:
            model.env.close()
            model.logger.close()
            for env in self._eval_envs:
                env.close()

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

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint holds: not to whom it reports."""
        return {"n_calls": self.n_calls, "num_timesteps": self.num_timesteps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on counting."""
        vars(self).update(state)


def environment_modules(env_ids: list[str]) -> list[str]:
    """The modules that make environments, to import them before processes are forked.

    :param env_ids: ids of environments
    """
    entries = {gym.spec(env_id).entry_point for env_id in env_ids}
    return sorted({entry.partition(":")[0] for entry in entries if isinstance(entry, str)})
