"""Evaluation during training by complete episodes, and a best model whose score is not its luck."""

import io
import json
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, EventCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_pg_ext.arguments import check_count, check_flag
from sb3_pg_ext.envs.taking_apart import find_factory
from sb3_pg_ext.evaluation.episodes import Episode, check_env, make_evaluation_env, play_episodes
from sb3_pg_ext.evaluation.records import write_atomically
from sb3_pg_ext.evaluation.statistics import iqm, mean_interval, median

STATISTICS = ("obs_rms", "ret_rms")
"""Of ``VecNormalize``; it has the first only if it normalises observations."""


@dataclass
class BestModel:
    """What is kept of the best model so far.

    :param timesteps: steps of training by then
    :param mean: of the returns of the episodes that chose it
    :param parameters: of its policy
    :param statistics: of ``VecNormalize``, by attribute; empty without one
    :param report: returns of the episodes that report it; None until they are played
    """

    timesteps: int
    mean: float
    parameters: dict[str, Any]
    statistics: dict[str, Any]
    report: list[float] | None = None


class EpisodeEvalCallback(EventCallback):
    """SB3's ``EvalCallback`` with complete episodes from fixed seeds, intervals, and a best model that is not just
    lucky.

    Every ``eval_freq`` calls it plays the same ``n_eval_episodes`` episodes (see
    :func:`~sb3_pg_ext.evaluation.episodes.play_episodes`) with the current policy, and logs of their returns
    ``eval/mean_reward``, its 95 % interval from ``eval/reward_low`` to ``eval/reward_high`` by Student's t,
    ``eval/median_reward``, ``eval/iqm_reward`` and ``eval/std_reward``; also ``eval/mean_ep_length`` and, where infos
    have ``is_success``, ``eval/success_rate``.

    The best model is the one with the highest mean. Being the best of many, that mean is too high. So when training
    ends the best model plays as many episodes from other seeds, and these report it: ``eval/best_mean_reward``,
    ``eval/best_reward_low`` and ``eval/best_reward_high``.

    Training goes on as without it, bit by bit: the environments are its own, and the states of all random generators,
    the policy's mode and the statistics of ``VecNormalize`` are put back.

    :param eval_env: the id of an environment, or a function that makes one, which is wrapped as the training
        environments are; an environment; or a VecEnv, a ``DummyVecEnv`` or ``SubprocVecEnv``, wrapped as in training.
        None: what makes the training environments. That is gymnasium's ``make`` with their ``spec``, so attributes set
        afterwards are not in it; or the functions given to a ``FastDummyVecEnv``, if they write no files
    :param callback_on_new_best: called when there is a new best model; ``parent.best_mean_reward`` is its mean
    :param callback_after_eval: called after every evaluation
    :param n_eval_episodes: number of episodes, at least 2
    :param eval_freq: evaluate after every so many calls, as in SB3: steps of the vectorised environment
    :param log_path: folder of ``evaluations.npz``, which holds what SB3's does; None for none
    :param best_model_save_path: folder of ``best_model.zip``, of ``vecnormalize.pkl`` where training has one, and of
        ``best_model.json``, which says how good it is; None for none
    :param deterministic: whether the most probable actions are taken
    :param seed: of the first episode that chooses the best model; the others have those that follow
    :param report_seed: of the first episode that reports it, likewise
    :param n_envs: number of environments where ``eval_env`` is an id, a function or None; by default 16
    :param verbose: 0 for no output, 1 for the results
    :raises ValueError: for a bad argument; at the beginning of training, if ``eval_env`` does not go with the model
    """

    def __init__(
        self,
        eval_env: str | Callable[[], gym.Env] | gym.Env | VecEnv | None = None,
        callback_on_new_best: BaseCallback | None = None,
        callback_after_eval: BaseCallback | None = None,
        n_eval_episodes: int = 200,
        eval_freq: int = 10_000,
        log_path: str | os.PathLike[str] | None = None,
        best_model_save_path: str | os.PathLike[str] | None = None,
        deterministic: bool = True,
        seed: int = 100_000,
        report_seed: int = 1_000,
        n_envs: int | None = None,
        verbose: int = 1,
    ) -> None:
        super().__init__(callback_after_eval, verbose)
        check_count("n_eval_episodes", n_eval_episodes, 2)
        check_count("eval_freq", eval_freq)
        check_flag("deterministic", deterministic)
        for name, value in (("seed", seed), ("report_seed", report_seed)):
            check_count(name, value, 0)
        if abs(seed - report_seed) < n_eval_episodes:
            raise ValueError(
                f"report_seed={report_seed!r} with seed={seed!r} and n_eval_episodes={n_eval_episodes!r}: the same "
                "episodes would choose the best model and report it; allowed: seeds at least n_eval_episodes apart"
            )
        self.eval_env = eval_env
        self.callback_on_new_best = callback_on_new_best
        if callback_on_new_best is not None:
            callback_on_new_best.parent = self
        self.n_eval_episodes = n_eval_episodes
        self.eval_freq = eval_freq
        self.log_path = log_path
        self.best_model_save_path = best_model_save_path
        self.deterministic = deterministic
        self.seed = seed
        self.report_seed = report_seed
        self.n_envs = n_envs
        self.best_mean_reward = self.last_mean_reward = -np.inf
        self.best: BestModel | None = None
        self.evaluations_timesteps: list[int] = []
        self.evaluations_results: list[list[float]] = []
        self.evaluations_length: list[list[int]] = []
        self.evaluations_successes: list[list[bool]] = []

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """All evaluations so far: ``[{"timesteps": …, "returns": […]}, …]``."""
        both = zip(self.evaluations_timesteps, self.evaluations_results, strict=True)
        return [{"timesteps": timesteps, "returns": list(returns)} for timesteps, returns in both]

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, for a checkpoint of the training."""
        names = ("n_calls", "num_timesteps", "best_mean_reward", "last_mean_reward", "best")
        kept = [*names, *(name for name in vars(self) if name.startswith("evaluations_"))]
        return {name: deepcopy(getattr(self, name)) for name in kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember what :meth:`state_dict` gave.

        :param state: that
        """
        vars(self).update(deepcopy(state))

    def _init_callback(self) -> None:
        source = self.eval_env
        if source is None:
            try:
                source = find_factory(self.training_env)
            except ValueError as error:
                raise ValueError(f"eval_env=None, but {error}; allowed: environments for evaluation") from error
        self._env = make_evaluation_env(self.model, source, self.n_envs)
        self._closes_env = not isinstance(source, gym.Env | VecEnv)
        check_env(self.model, self._env)
        if self.callback_on_new_best is not None:
            self.callback_on_new_best.init_callback(self.model)

    def _on_step(self) -> bool:
        if self.n_calls % self.eval_freq:
            return True
        episodes = self._play(self.seed)
        mean = self._log(episodes)
        self.last_mean_reward = mean
        if self.log_path is not None:
            self._write_evaluations(Path(self.log_path))
        goes_on = True
        if mean > self.best_mean_reward:
            self.best_mean_reward = mean
            self._keep_best()
            if self.callback_on_new_best is not None:
                goes_on = self.callback_on_new_best.on_step()
        return goes_on and self._on_event()

    def _on_training_end(self) -> None:
        try:
            if self.best is not None and self.best.report is None:
                self._report()
        finally:
            if self._closes_env:
                self._env.close()

    def _play(self, first_seed: int) -> list[Episode]:
        seeds = range(first_seed, first_seed + self.n_eval_episodes)
        return play_episodes(self.model, self._env, seeds, self.deterministic)

    def _log(self, episodes: list[Episode]) -> float:
        returns = [episode.episode_return for episode in episodes]
        lengths = [episode.length for episode in episodes]
        successes = [episode.is_success for episode in episodes if episode.is_success is not None]
        self.evaluations_timesteps.append(self.num_timesteps)
        self.evaluations_results.append(returns)
        self.evaluations_length.append(lengths)
        self.evaluations_successes.append(successes)
        interval = mean_interval(returns)
        numbers = {
            "mean_reward": interval.estimate,
            "reward_low": interval.low,
            "reward_high": interval.high,
            "median_reward": median(returns),
            "iqm_reward": iqm(returns),
            "std_reward": np.std(returns, ddof=1),
            "mean_ep_length": np.mean(lengths),
        }
        if successes:
            numbers["success_rate"] = np.mean(successes)
        self._record(numbers)
        if self.verbose >= 1:
            print(
                f"Eval num_timesteps={self.num_timesteps}, {len(returns)} episodes: "
                f"mean {_with_interval(interval)}, median {numbers['median_reward']:.2f}, "
                f"IQM {numbers['iqm_reward']:.2f}, length {numbers['mean_ep_length']:.2f}"
            )
        return float(interval.estimate)

    def _record(self, numbers: dict[str, Any]) -> None:
        for name, number in numbers.items():
            self.logger.record(f"eval/{name}", float(number))
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(self.num_timesteps)

    def _write_evaluations(self, folder: Path) -> None:
        arrays: dict[str, Any] = {
            "timesteps": self.evaluations_timesteps,
            "results": self.evaluations_results,
            "ep_lengths": self.evaluations_length,
        }
        if all(len(successes) == self.n_eval_episodes for successes in self.evaluations_successes):
            arrays["successes"] = self.evaluations_successes
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        write_atomically(folder / "evaluations.npz", buffer.getvalue())

    def _keep_best(self) -> None:
        normalizer = self.model.get_vec_normalize_env()
        statistics = {name: vars(normalizer)[name] for name in STATISTICS if normalizer and name in vars(normalizer)}
        parameters = self.model.policy.state_dict()
        self.best = BestModel(self.num_timesteps, self.best_mean_reward, *deepcopy((parameters, statistics)))
        if self.best_model_save_path is None:
            return
        folder, buffer = Path(self.best_model_save_path), io.BytesIO()
        self.model.save(buffer)
        (folder / "best_model.json").unlink(missing_ok=True)
        if normalizer is not None:
            write_atomically(folder / "vecnormalize.pkl", pickle.dumps(normalizer))
        write_atomically(folder / "best_model.zip", buffer.getvalue())
        if self.verbose >= 1:
            print("New best mean reward!")

    def _report(self) -> None:
        """Play the best model from seeds that had no part in the choice."""
        assert self.best is not None
        with self._playing_as(self.best):
            self.best.report = [episode.episode_return for episode in self._play(self.report_seed)]
        interval = mean_interval(self.best.report)
        self._record(
            {
                "best_mean_reward": interval.estimate,
                "best_reward_low": interval.low,
                "best_reward_high": interval.high,
            }
        )
        if self.verbose >= 1:
            print(
                f"Best model, of {self.best.timesteps} steps, in {self.n_eval_episodes} other episodes: mean "
                f"{_with_interval(interval)}; {self.best.mean:.2f} in those that chose it"
            )
        if self.best_model_save_path is not None:
            report = {
                "timesteps": self.best.timesteps,
                "chosen_by": {"first_seed": self.seed, "mean": self.best.mean},
                "reported_by": {"first_seed": self.report_seed, "returns": self.best.report, **interval._asdict()},
            }
            content = json.dumps(report, indent=1, default=float).encode()
            write_atomically(Path(self.best_model_save_path, "best_model.json"), content)

    @contextmanager
    def _playing_as(self, best: BestModel) -> Iterator[None]:
        """Within the scope the model is the best one."""
        policy, normalizer = self.model.policy, self.model.get_vec_normalize_env()
        parameters = deepcopy(policy.state_dict())
        statistics = {name: getattr(normalizer, name) for name in best.statistics}
        policy.load_state_dict(best.parameters)
        try:
            for name, value in best.statistics.items():
                setattr(normalizer, name, value)
            yield
        finally:
            policy.load_state_dict(parameters)
            for name, value in statistics.items():
                setattr(normalizer, name, value)


def _with_interval(interval: Any) -> str:
    return f"{interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
