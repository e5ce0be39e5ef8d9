"""SB3's infos of a step, made when somebody looks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

Info = dict[str, Any]
MakeInfos = Callable[[np.ndarray], list[Info]]
"""From the numbers of some environments, in ascending order, to a new dictionary for each."""


class StepInfos(Sequence[Info]):
    """The infos of one step, one dictionary for every environment, made when somebody looks.

    Everything that reads SB3's list of dictionaries can read it. A dictionary that has been made stays, with what
    wrappers and callbacks write into it; copies and pickles are lists.

    A ``VecEnv`` with an attribute ``lazy_infos`` may return it from ``step_wait`` while that is true. This package's
    rollouts set it for the time of a step; they look at :meth:`news` alone.

    :param n_envs: N
    :param make: makes dictionaries; what it makes them of must not change later
    :param made: dictionaries that are there already, by the number of their environment
    """

    def __init__(self, n_envs: int, make: MakeInfos, made: dict[int, Info] | None = None) -> None:
        self._n_envs, self._make = n_envs, make
        self._made: dict[int, Info] = {} if made is None else made

    @classmethod
    def of_arrays(
        cls,
        terminated: np.ndarray,
        truncated: np.ndarray,
        final_obs: Any = None,
        episodes: Mapping[int, Info] | None = None,
        more: MakeInfos | None = None,
    ) -> "StepInfos":
        """From what simulators know to ``TimeLimit.truncated``, ``terminal_observation`` and ``episode``.

        None of the arguments may change later.

        :param terminated: [N], whether the episode has come to its end
        :param truncated: [N], whether it was cut off; both at once counts as terminated
        :param final_obs: the final observations of the K episodes that end, [K, …], in the order of the environments;
            with dictionaries and tuples of such arrays where observations are. None where none ends
        :param episodes: statistics of the episodes that end, by the number of the environment: a dictionary with the
            return ``r``, the length ``l`` and the time ``t``, as ``Monitor`` gives it
        :param more: makes the dictionaries, to which these entries are added; None for empty ones
        """
        ended = (terminated | truncated).nonzero()[0]

        def make(rows: np.ndarray) -> list[Info]:
            infos = [{} for _ in rows] if more is None else more(rows)
            for info, at_limit in zip(infos, (truncated[rows] & ~terminated[rows]).tolist(), strict=True):
                info["TimeLimit.truncated"] = at_limit
            return infos

        made = dict(zip(ended.tolist(), make(ended), strict=True)) if len(ended) else {}
        for k, info in enumerate(made.values()):
            info["terminal_observation"] = _row(final_obs, k)
        infos = cls(len(terminated), make, made)
        for i, episode in (episodes or {}).items():
            infos[i]["episode"] = episode
        return infos

    def news(self, dones: np.ndarray) -> list[int]:
        """The environments of which there may be news: where an episode ends, or somebody has looked.

        :param dones: [N], whether the episode ended
        """
        rows = dones.nonzero()[0].tolist()
        return sorted({*rows, *self._made}) if self._made else rows

    def __len__(self) -> int:
        return self._n_envs

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, slice) and index in self._made:
            return self._made[index]
        return self._make_all()[index]

    def __iter__(self) -> Iterator[Info]:
        return iter(self._make_all())

    def _make_all(self) -> list[Info]:
        made, n_envs = self._made, self._n_envs
        if len(made) < n_envs:
            missing = [i for i in range(n_envs) if i not in made]
            made.update(zip(missing, self._make(np.array(missing)), strict=True))
        return [made[i] for i in range(n_envs)]

    def __setitem__(self, index: int, info: Info) -> None:
        self._made[range(self._n_envs)[index]] = info

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as a list's

    def __add__(self, other: Any) -> list[Info]:
        return [*self, *other]

    def __radd__(self, other: Any) -> list[Info]:
        return [*other, *self]

    def copy(self) -> list[Info]:
        """A list of the dictionaries."""
        return list(self)

    def __reduce__(self) -> Any:
        return list, (list(self),)

    def __repr__(self) -> str:
        return repr(list(self))


def _row(obs: Any, k: int) -> Any:
    if isinstance(obs, dict):
        return {key: _row(part, k) for key, part in obs.items()}
    if isinstance(obs, tuple):
        return tuple(_row(part, k) for part in obs)
    return obs[k]


def make_step(env: VecEnv) -> Callable[[np.ndarray], VecEnvStepReturn]:
    """A VecEnv's ``step``, which may give :class:`StepInfos` where the VecEnv can, through all wrappers around it.

    :param env: the VecEnv
    """
    if type(env) is VecNormalize and env.num_envs == 1 and isinstance(env.observation_space, spaces.Box):
        return _make_normalized_step(env)
    innermost: Any = env.unwrapped
    if not hasattr(innermost, "lazy_infos"):
        return env.step

    def step(actions: np.ndarray) -> VecEnvStepReturn:
        innermost.lazy_infos = True
        try:
            return env.step(actions)
        finally:
            innermost.lazy_infos = False

    return step


def _make_normalized_step(env: VecNormalize) -> Callable[[np.ndarray], VecEnvStepReturn]:
    """What ``VecNormalize`` does around a single environment, at a quarter of the cost: a batch of one is its own mean,
    and has no variance. Statistics and results are the same, bit by bit.
    """
    inner = make_step(env.venv)

    def step(actions: np.ndarray) -> VecEnvStepReturn:
        obs, rewards, dones, infos = inner(actions)
        assert isinstance(obs, np.ndarray)
        env.old_obs, env.old_reward = obs, rewards
        rms: Any = env.obs_rms if env.norm_obs else None
        if rms is not None:
            if env.training:
                _update(rms, obs[0])
            obs = (obs - rms.mean) / np.sqrt(rms.var + env.epsilon)
            if env.clip_obs != np.inf:
                obs = obs.clip(-env.clip_obs, env.clip_obs)
            obs = obs.astype(np.float32)
        else:
            obs = obs.copy()
        if env.training:
            env.returns = env.returns * env.gamma + rewards
            _update(env.ret_rms, env.returns[0])
        if env.norm_reward:
            rewards = rewards / np.sqrt(env.ret_rms.var + env.epsilon)
            if env.clip_reward != np.inf:
                rewards = rewards.clip(-env.clip_reward, env.clip_reward)
        if dones[0]:
            info = infos[0]
            if "terminal_observation" in info:
                info["terminal_observation"] = env.normalize_obs(info["terminal_observation"])
            env.returns[0] = 0
        return obs, rewards.astype(np.float32), dones, infos

    return step


def _update(rms: Any, number: Any) -> None:
    """Let a ``RunningMeanStd`` see one sample, as its ``update`` does with a batch of one."""
    count = rms.count
    total = count + 1
    delta = number - rms.mean
    rms.var = (rms.var * count + np.square(delta) * count / total) / total
    rms.mean = rms.mean + delta / total
    rms.count = total
