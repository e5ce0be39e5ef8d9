"""SB3's contract of a ``VecEnv`` on top of simulators that step all environments in one call."""

import time
import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from stable_baselines3.common import monitor
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from sb3_pg_ext.envs.fast_dummy import IMMUTABLE
from sb3_pg_ext.envs.step_infos import MakeInfos, StepInfos

Infos = list[dict[str, Any]]
"""One dictionary for every environment."""


class Step(NamedTuple):
    """What a step has led to, before anything is reset.

    :param obs: observations [N, …], of an episode that ends its final one; they are the caller's
    :param rewards: [N]
    :param terminated: [N], whether the episode has come to its end
    :param truncated: [N], whether it was cut off; both at once is possible
    :param infos: makes a new dictionary for each of some environments, also after later steps
    :param scores: [N], what statistics of episodes add up; None: the rewards
    :param over: [N], where an episode of the statistics ends; None: where one does that algorithms know
    """

    obs: VecEnvObs
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    infos: MakeInfos
    scores: np.ndarray | None = None
    over: np.ndarray | None = None


class BatchedVecEnv(VecEnv):
    """A ``VecEnv`` over one simulator that holds many environments.

    A subclass says how the simulator steps and resets. This class makes of it what SB3's algorithms and wrappers rely
    on: an episode that ends is followed by the first observation of the next one in the same step, its final
    observation is ``terminal_observation``, ``TimeLimit.truncated`` tells whether it was truncated and not terminated,
    and ``episode`` has its statistics, as ``Monitor`` gives them.

    :param num_envs: N, the number of environments
    :param observation_space: that of a single environment
    :param action_space: that of a single environment
    """

    lazy_infos = False
    """Whether ``step_wait`` gives :class:`~sb3_pg_ext.envs.StepInfos` instead of a list of dictionaries."""

    def __init__(self, num_envs: int, observation_space: gym.Space, action_space: gym.Space) -> None:
        super().__init__(num_envs, observation_space, action_space)
        self._actions: np.ndarray | None = None
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, dtype=np.int64)
        self._start = time.time()
        self._results: monitor.ResultsWriter | None = None
        self._results_file: tuple[str, tuple[str, ...]] | None = None
        self._info_keywords: tuple[str, ...] = ()

    @abstractmethod
    def _reset_all(self) -> tuple[VecEnvObs, Infos]:
        """Reset every environment, with the seeds and options that were given since the last time.

        :return: first observations [N, …], which are the caller's, and infos
        """

    @abstractmethod
    def _step_all(self, actions: np.ndarray) -> Step:
        """Step every environment.

        :param actions: [N, …]
        """

    @abstractmethod
    def _reset_ended(self, ended: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, VecEnvObs, Infos]:
        """Begin the episodes that follow those that have just ended.

        :param ended: [K], the numbers of the environments in ascending order; at least one
        :param actions: [N, …], those of the step in which they did
        :return: the numbers of the same environments in any order, and in that order their first observations [K, …]
            and infos
        """

    def reset(self) -> VecEnvObs:
        """Reset every environment.

        :return: first observations [N, …]
        """
        obs, self.reset_infos = self._reset_all()
        self._reset_seeds()
        self._reset_options()
        self._returns[:] = 0
        self._lengths[:] = 0
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for :meth:`step_wait`.

        :param actions: [N, …]
        """
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step every environment, and reset those whose episode ends.

        :return: observations [N, …], rewards [N], dones [N] and infos (N dictionaries)
        """
        assert self._actions is not None, "step_wait() without step_async()"
        obs, rewards, terminated, truncated, make_infos, scores, over = self._step_all(self._actions)
        dones = terminated | truncated
        ended = dones.nonzero()[0]
        final_obs = pick(obs, ended) if len(ended) else None
        infos = StepInfos.of_arrays(terminated, truncated, final_obs, more=make_infos)
        over = ended if over is None else over.nonzero()[0]
        self._record(rewards if scores is None else scores, over, infos)
        if len(ended):
            rows, first_obs, reset_infos = self._reset_ended(ended, self._actions)
            put(obs, rows, first_obs)
            for i, info in zip(rows.tolist(), reset_infos, strict=True):
                self.reset_infos[i] = info
        return obs, rewards.astype(np.float32), dones, infos if self.lazy_infos else list(infos)  # type: ignore[return-value]

    def _record(self, scores: np.ndarray, over: np.ndarray, infos: StepInfos) -> None:
        """Add a step to the statistics of the episodes, and give them where one ends, unless the simulator does.

        :param scores: [N], what is added
        :param over: [K], the numbers of the environments where one ends
        :param infos: get the statistics
        """
        self._returns += scores
        self._lengths += 1
        if len(over):
            seconds = round(time.time() - self._start, 6)
            sums = over.tolist(), self._returns[over].tolist(), self._lengths[over].tolist()
            for i, total, length in zip(*sums, strict=True):
                info = infos[i]
                episode = {"r": round(total, 6), "l": length, "t": seconds}
                if self._results is not None:
                    episode.update({key: info[key] for key in self._info_keywords})
                    self._results.write_row(episode)
                info.setdefault("episode", episode)
            self._returns[over] = 0
            self._lengths[over] = 0

    def write_results(self, filename: str, info_keywords: tuple[str, ...] = ()) -> None:
        """Write the statistics of episodes into a file, as ``Monitor`` does: one file for all environments.

        :param filename: the file; ``.monitor.csv`` is added where it is missing
        :param info_keywords: what of the infos at the end of an episode is to be added to its statistics
        """
        spec = self._common_attributes()["spec"]
        header: dict[str, float | str] = {"t_start": self._start, "env_id": str(spec and spec.id)}
        self._info_keywords = info_keywords
        self._results_file = filename.removesuffix(f".{Monitor.EXT}"), info_keywords
        self._results = monitor.ResultsWriter(filename, header=header, extra_keys=info_keywords)

    def close(self) -> None:
        """Close the file of results, if there is one; a subclass frees the simulator."""
        if self._results is not None:
            self._results.close()
            self._results = None

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Frames of all environments, N arrays [height, width, 3]; None where the render mode is another."""
        if self.render_mode != "rgb_array":
            warnings.warn(f"The render mode is {self.render_mode}; images need rgb_array", stacklevel=2)
            return [None] * self.num_envs
        return list(self._render())

    @abstractmethod
    def _render(self) -> Sequence[Any]:
        """Render every environment, in the render mode with which it was made."""

    # What only single environments know. A subclass whose simulator has them answers for them.

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Attributes of single environments; where the simulator has none, some are known all the same.

        :raises AttributeError: if the environments have no such attribute, or the simulator none that could be asked
        """
        # As of the Monitor that all count as wrapped in: its statistics allow a reset at any time.
        known = {**self._common_attributes(), "allow_early_resets": True}
        if attr_name not in known:
            raise self._no_single_environments(f"read {attr_name!r}", f"allowed: {', '.join(map(repr, known))}")
        return [known[attr_name] for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set attributes of single environments.

        :raises AttributeError: if the simulator has none that could be told
        """
        raise self._no_single_environments(f"set {attr_name!r}", "give it as an argument when the simulator is made")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> Any:
        """Call a method of single environments.

        :raises AttributeError: if they have no such method, or the simulator none that could be asked
        """
        if method_name == "render":  # so SB3 renders in every mode but rgb_array
            return list(self._render())
        raise self._no_single_environments(f"call {method_name!r}", "use a backend of single environments")

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Whether single environments are in a wrapper. All count as in a ``Monitor``: its statistics are given."""
        return [issubclass(Monitor, wrapper_class) for _ in self._get_indices(indices)]

    @abstractmethod
    def _common_attributes(self) -> dict[str, Any]:
        """Attributes that all environments have in common, ``render_mode`` and ``spec`` (None if there is none)."""

    def _no_single_environments(self, what: str, instead: str) -> AttributeError:
        return AttributeError(f"{type(self).__name__} cannot {what}: it has no single environments; {instead}")


def pick(obs: Any, i: Any) -> Any:
    """Copies of one or some of many observations."""
    return tree_map(lambda values: values.take(i, axis=0), obs)  # a fifth of what indexing by an array takes


def put(obs: Any, rows: Any, others: Any) -> None:
    """Replace one or some of many observations by others, in place."""
    if isinstance(obs, dict):
        for key, part in obs.items():
            put(part, rows, others[key])
    elif isinstance(obs, tuple):
        for part, other in zip(obs, others, strict=True):
            put(part, rows, other)
    else:
        obs[rows] = others


def tree_map(function: Callable[[Any], Any], obs: Any) -> Any:
    """Apply a function to every array of an observation, which may be a dictionary or a tuple of them."""
    if isinstance(obs, dict):
        return {key: tree_map(function, part) for key, part in obs.items()}
    if isinstance(obs, tuple):
        return tuple(tree_map(function, part) for part in obs)
    return function(obs)


def separate(infos: dict[str, Any], n_envs: int, rows: np.ndarray | None = None) -> Infos:
    """One dictionary for every environment, from gymnasium's dictionary of arrays and masks.

    :param infos: of every key ``key`` an array [N] or a dictionary of such, and under ``_key`` a mask [N] of the
        environments that have it; without a mask all have it
    :param rows: the numbers of the environments; None for all
    :return: dictionaries with copies of the values, numbers as Python's
    """
    rows = np.arange(n_envs) if rows is None else rows
    separated: Infos = [{} for _ in rows]
    for key, values in infos.items():
        mask = infos.get(f"_{key}")
        if mask is None and key[:1] == "_" and key[1:] in infos:
            continue  # is a mask itself
        if isinstance(values, dict):
            column: Any = separate(values, n_envs, rows)
        elif isinstance(values, np.ndarray) and values.shape[:1] == (n_envs,):
            column = values[rows]
            if values.ndim == 1 and values.dtype.kind in "biuf":
                column = column.tolist()
        elif isinstance(values, list | tuple) and len(values) == n_envs:
            column = [values[i] for i in rows]
        else:
            column = [values] * len(rows)
        owners = range(len(rows)) if mask is None else np.asarray(mask)[rows].nonzero()[0].tolist()
        for k in owners:
            value = column[k]
            separated[k][key] = value if type(value) in IMMUTABLE else deepcopy(value)
    return separated
