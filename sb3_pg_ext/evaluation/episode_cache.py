"""Episodes that were played, on the disk, so that none is played twice."""

import hashlib
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize, unwrap_vec_normalize

from sb3_pg_ext.arguments import check_count, check_flag
from sb3_pg_ext.evaluation.episodes import (
    Episode,
    Steps,
    check_env,
    check_seeds,
    make_evaluation_env,
    play_episodes,
)
from sb3_pg_ext.evaluation.records import whole_file

DICT_PREFIX = "observations."
"""Before the keys of observations that are dictionaries."""
OF_STEPS = ("actions", "rewards", "terminated", "truncated", "values")


@dataclass(frozen=True)
class CachedEpisode:
    """An episode in a file.

    :param path: the file
    :param episode: the episode
    :param timesteps: steps that its model had been trained for
    """

    path: Path
    episode: Episode
    timesteps: int


class EpisodeCache:
    """A folder of episodes: ``<folder>/<fingerprint>/<seed>.npz``.

    The fingerprint stands for the model's parameters, the statistics of ``VecNormalize``, the environment and whether
    actions are deterministic: see :func:`fingerprint`. An episode that is there is not played again.

    A file holds ``observations`` (or ``observations.<key>`` of dictionaries), ``actions``, ``rewards``, ``terminated``,
    ``truncated`` and ``values``, as :class:`~sb3_pg_ext.evaluation.episodes.Steps` has them, and the numbers ``seed``,
    ``timesteps`` (of training), ``episode_return``, ``length`` and ``is_success`` (NaN where the environment does not
    say). ``numpy.load`` reads it, without pickle. Files are written whole or not at all, so processes may share a
    folder.

    :param folder: the folder, made where it does not exist
    :param max_bytes: the oldest episodes are deleted while the files are larger than that together
    :raises ValueError: if an argument is wrong
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int = 2**30) -> None:
        check_count("max_bytes", max_bytes)
        self.folder, self.max_bytes = Path(folder), max_bytes
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"folder={str(folder)!r} is a file; allowed: a folder, or what is to become one")

    def play(
        self,
        model: BaseAlgorithm,
        env: str | Callable[[], gym.Env] | gym.Env | VecEnv,
        seeds: Sequence[int],
        deterministic: bool = True,
        n_envs: int | None = None,
    ) -> list[Episode]:
        """What :func:`~sb3_pg_ext.evaluation.episodes.play_episodes` gives, with steps; played are missing ones only.

        :param model: the model
        :param env: the environment
        :param seeds: of the episodes, distinct
        :param deterministic: whether the most probable actions are taken. Sampled actions depend on what is played
            together, so an episode from the cache need not be the one that would be played now
        :param n_envs: number of environments for an id or a function
        """
        seeds = check_seeds("seeds", seeds)
        check_flag("deterministic", deterministic)
        vec_env = make_evaluation_env(model, env, n_envs)
        try:
            folder = self.folder / fingerprint(model, vec_env, deterministic)
            episodes = {seed: cached.episode for seed in seeds if (cached := _read(folder / f"{seed}.npz")) is not None}
            missing = [seed for seed in seeds if seed not in episodes]
            played = play_episodes(model, vec_env, missing, deterministic, record=True) if missing else []
        finally:
            if not isinstance(env, gym.Env | VecEnv):
                vec_env.close()
        for episode in played:
            episodes[episode.seed] = episode
            _write(folder / f"{episode.seed}.npz", episode, model.num_timesteps)
        if played:
            self._shrink()
        return [episodes[seed] for seed in seeds]

    def worst(self, k: int, key: str | None = None) -> list[CachedEpisode]:
        """The k episodes with the lowest returns, lowest first.

        :param k: how many
        :param key: of the model with this fingerprint; None: of all
        """
        check_count("k", k)
        return sorted(self.episodes(key), key=lambda cached: cached.episode.episode_return)[:k]

    def episodes(self, key: str | None = None) -> Iterator[CachedEpisode]:
        """All episodes, without their steps.

        :param key: of the model with this fingerprint; None: of all
        """
        for path in sorted(self.folder.glob(f"{key or '*'}/*.npz")):
            if (cached := _read(path, steps_too=False)) is not None:
                yield cached

    def find(self, model: BaseAlgorithm, env: VecEnv, seed: int, deterministic: bool = True) -> CachedEpisode | None:
        """The episode of a seed, with its steps; None if it is not there.

        :param model: the model
        :param env: the environments that it was played in, or such
        :param seed: its seed
        :param deterministic: whether the most probable actions were taken
        """
        return _read(self.folder / fingerprint(model, env, deterministic) / f"{seed}.npz")

    def _shrink(self) -> None:
        files = []
        for path in self.folder.glob("*/*.npz"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another process has deleted it
                continue
            files.append((status.st_mtime_ns, str(path), status.st_size))
        total = sum(size for _, _, size in files)
        for _, path_name, size in sorted(files):
            if total <= self.max_bytes:
                return
            Path(path_name).unlink(missing_ok=True)
            total -= size


def fingerprint(model: BaseAlgorithm, env: VecEnv, deterministic: bool) -> str:
    """What an episode depends on beside its seed, as 32 hexadecimal digits.

    That is the policy's class and parameters; the statistics and limits of ``VecNormalize``, the model's own where it
    has one; of the environments their ``spec`` (id, arguments and wrappers) or class, their spaces, and the wrappers of
    the VecEnv; and whether actions are deterministic. Attributes of environments that were changed after they were made
    are not in it.

    :param model: the model
    :param env: what it plays in
    :param deterministic: whether the most probable actions are taken
    """
    check_env(model, env)
    policy = model.policy
    hasher = hashlib.blake2b(digest_size=16)

    def add(*parts: Any) -> None:
        for part in parts:
            content = part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode()
            hasher.update(len(content).to_bytes(8, "little") + content)

    add(f"{type(policy).__module__}.{type(policy).__qualname__}", deterministic)
    for name, tensor in sorted(policy.state_dict().items()):
        add(name, tuple(tensor.shape), tensor.detach().cpu().numpy())
    normalizer = model.get_vec_normalize_env() or unwrap_vec_normalize(env)
    if isinstance(normalizer, VecNormalize) and normalizer.norm_obs:
        add(normalizer.clip_obs, normalizer.epsilon, normalizer.norm_obs_keys)
        statistics: Any = normalizer.obs_rms
        for key, rms in sorted(statistics.items()) if isinstance(statistics, dict) else [("", statistics)]:
            add(key, np.asarray(rms.mean, np.float64), np.asarray(rms.var, np.float64))
    add(env.observation_space, env.action_space)
    while isinstance(env, VecEnvWrapper):
        add(type(env).__qualname__)
        env = env.venv
    spec = env.get_attr("spec")[0] if env.has_attr("spec") else None
    add(env.env_method("__str__")[0] if spec is None else _describe(spec))
    return hasher.hexdigest()


def _describe(spec: Any) -> tuple[Any, ...]:
    kwargs = {key: value for key, value in spec.kwargs.items() if key != "render_mode"}
    wrappers = [(w.name, w.kwargs) for w in spec.additional_wrappers if w.name != "Monitor"]
    return spec.id, spec.max_episode_steps, sorted(kwargs.items()), wrappers


def _write(path: Path, episode: Episode, timesteps: int) -> None:
    steps = episode.steps
    assert steps is not None
    observations = steps.observations
    arrays: dict[str, Any] = (
        {f"{DICT_PREFIX}{key}": array for key, array in observations.items()}
        if isinstance(observations, dict)
        else {"observations": observations}
    )
    arrays |= {name: getattr(steps, name) for name in OF_STEPS}
    arrays |= {"seed": episode.seed, "timesteps": timesteps, "length": episode.length}
    arrays |= {"episode_return": episode.episode_return}
    arrays["is_success"] = float("nan") if episode.is_success is None else float(episode.is_success)
    with whole_file(path) as file:
        np.savez_compressed(file, **arrays)


def _read(path: Path, steps_too: bool = True) -> CachedEpisode | None:
    """The episode in a file; None if there is no such file, or, with a warning, none that can be read."""
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            success = float(file["is_success"])
            episode = Episode(
                int(file["seed"]),
                float(file["episode_return"]),
                int(file["length"]),
                None if np.isnan(success) else bool(success),
                _read_steps(file) if steps_too else None,
            )
            return CachedEpisode(path, episode, int(file["timesteps"]))
    except FileNotFoundError:
        return None
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        warnings.warn(f"{path} is no episode that can be read, and is passed over: {error}", stacklevel=3)
        return None


def _read_steps(file: Any) -> Steps:
    observations: Any = {
        name.removeprefix(DICT_PREFIX): file[name] for name in file.files if name.startswith(DICT_PREFIX)
    }
    return Steps(observations or file["observations"], *(file[name] for name in OF_STEPS))
