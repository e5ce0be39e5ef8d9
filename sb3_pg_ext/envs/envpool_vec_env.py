"""EnvPool's simulators as a ``VecEnv``."""

import re
import warnings
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs

from sb3_pg_ext.arguments import check_count
from sb3_pg_ext.envs.batched import BatchedVecEnv, Infos, Step, pick, separate, tree_map

SEEDS = 2**31
"""EnvPool's seeds are below this, SB3's below 2³²."""
ATARI: tuple[tuple[re.Pattern[str], dict[str, Any]], ...] = (
    (re.compile(r"ALE/(\w+)-v5"), {"repeat_action_probability": 0.25}),
    (re.compile(r"(\w+)NoFrameskip-v4"), {}),
)
"""Gymnasium's ids of Atari games, and what EnvPool's task of the same game has to be told."""
BOOKKEEPING = ("env_id", "players")
RENDERING = ("render_mode", "render_env_id", "render_width", "render_height", "render_camera_id")

Arrays = list[np.ndarray]
"""What the environments of a step have answered, [K, …] each, in an order that is the task's."""


class EnvPoolVecEnv(BatchedVecEnv):
    """A pool of environments of EnvPool, which steps them all in C++.

    EnvPool gives one step more after every episode, in which the action is unused and the reward is 0. Here the pool
    makes that step for the environments whose episode has ended alone, so every step is one of the task's, and
    observations, ends and time limits are as SB3 wants them. Where observations are vectors, each environment has a
    second one in the pool, which takes turns with it: when an episode of the one ends, the other has already begun its
    own, and the one begins its next within the pool's next step. Otherwise the pool makes the step at once. After a
    life that is lost (``episodic_life``) a game goes on.

    What EnvPool's infos say is in ``infos``. Statistics of Atari games are those of whole games with unclipped rewards,
    as with a ``Monitor`` inside an ``AtariWrapper``; their length is in steps of the agent.

    Spaces are those of gymnasium's environment of the same id where it is installed and has them in the same shape, so
    that models go from one to the other; EnvPool's own are in part of another type or with wrong bounds.

    The pool is made at the first ``reset``, and again at a ``reset`` after ``seed``: EnvPool's seeds are fixed when it
    is made. Without a seed it takes random ones. The seed of an environment decides about all its episodes, whatever
    the number of environments and threads; that of its second one comes from it.

    :param task_id: an id of gymnasium or EnvPool
    :param num_envs: number of environments
    :param num_threads: number of threads that step them
    :param task_kwargs: EnvPool's arguments of the task, and ``render_mode``
    :raises ValueError: if EnvPool is not installed, lacks the id, or does not know an argument; or if the task is for
        several players, or is not stepped as a whole
    """

    def __init__(self, task_id: str, num_envs: int = 1, num_threads: int = 1, **task_kwargs: Any) -> None:
        check_count("num_envs", num_envs)
        check_count("num_threads", num_threads)
        envpool = _import()
        self.task_id, presets = find_task(task_id)
        self._own_arguments = task_id, task_kwargs
        self._task_kwargs = {**presets, **task_kwargs}
        self._sizes = {"num_envs": num_envs, "num_threads": num_threads}
        self._pool: Any = None
        self._gymnasium_spec = gym.registry.get(task_id)
        config = {key: value for key, value in self._task_kwargs.items() if key not in RENDERING}
        spec = _make_spec(envpool, self.task_id, {**config, **self._sizes})
        super().__init__(num_envs, *_spaces(spec, task_id))
        self._actions_shape = num_envs, *(self.action_space.shape or ())
        self._action_type = [*spec.action_array_spec.values()][-1].dtype
        space, has_lives = self.observation_space, "episodic_life" in spec.config._fields
        self._takes_turns = isinstance(space, spaces.Box) and len(space.shape) == 1 and not has_lives

    def split(self) -> list[Callable[[], "EnvPoolVecEnv"]]:
        """For every environment what makes a pool of the same task with one environment and one thread.

        They go on with the file of results; each but the first has its own, with a number in its name.
        """
        files: list[Any] = [None] * self.num_envs
        if self._results_file is not None:
            name, keywords = self._results_file
            files = [(f"{name}_{i}" if i else name, keywords) for i in range(self.num_envs)]
        return [partial(_make_one, self._own_arguments, file) for file in files]

    def _reset_all(self) -> tuple[VecEnvObs, Infos]:
        if any(self._options):
            raise ValueError(f"options={self._options!r}; allowed: none, EnvPool's tasks take no options at a reset")
        if self._pool is None or self._seeds[0] is not None:
            self._make_pool()
        obs, info = self._pool.reset()
        n, n_all = self.num_envs, len(obs)
        infos = _separate(info, n_all)
        self._playing, self._waiting = np.arange(n, dtype=np.int32), np.arange(n, n_all, dtype=np.int32)
        self._to_begin = np.arange(0)
        self._first_obs, self._first_infos = obs[n:], infos[n:]
        return obs[:n], infos[:n]

    def _make_pool(self) -> None:
        self._free_pool()
        first = np.random.SeedSequence().generate_state(1)[0] if self._seeds[0] is None else self._seeds[0]
        seeds = [(int(first) + i) % SEEDS for i in range(self.num_envs)]
        if self._takes_turns:
            seeds += [int(np.random.SeedSequence(seed).generate_state(1)[0]) % SEEDS for seed in seeds]
        arguments = {**self._task_kwargs, **self._sizes, "num_envs": len(seeds)}
        arguments.pop("batch_size", None)  # all of them
        with warnings.catch_warnings():  # about the precision of bounds, when the pool makes its spaces
            warnings.simplefilter("ignore")
            pool = _import().make(self.task_id, env_type="gymnasium", seed=seeds, **arguments)
            pool.observation_space, pool.action_space  # noqa: B018
        self._pool = pool
        keys = list(pool._state_keys)
        # The pool says itself where among the arrays of a step it finds what.
        self._obs_at, self._rewards_at, _, self._truncated_at, infos_at = pool._to(range(len(keys)), False, True)
        self._infos_at = {name: place for name, place in infos_at.items() if name not in BOOKKEEPING}
        self._dones_at = keys.index("done")

    def _step_pool(self, actions: np.ndarray, ids: np.ndarray) -> Arrays:
        """The pool's ``step``, without all that it looks up and converts anew every time.

        :param actions: [K, …]
        :param ids: numbers of the environments, [K]
        """
        self._pool._send([ids, ids, actions])
        return self._pool._recv()

    def _make_infos(self, arrays: Arrays, rows: np.ndarray) -> Infos:
        infos = {name: tree_map(arrays.__getitem__, place) for name, place in self._infos_at.items()}
        return separate(infos, len(arrays[self._dones_at]), rows)

    def _step_all(self, actions: np.ndarray) -> Step:
        n, ids, begin = self.num_envs, self._playing, self._to_begin
        # Actions of another shape would end the process.
        actions = np.ascontiguousarray(actions, self._action_type).reshape(self._actions_shape)
        if len(begin):
            ids = np.concatenate([ids, self._waiting[begin]])
            actions = np.concatenate([actions, actions[begin]])
        arrays = self._step_pool(actions, ids)
        make_infos = partial(self._make_infos, arrays)
        obs = tree_map(arrays.__getitem__, self._obs_at)
        rewards, dones, truncated = (arrays[i] for i in (self._rewards_at, self._dones_at, self._truncated_at))
        if len(begin):
            self._first_obs[begin] = obs[n:]
            for i, first in zip(begin.tolist(), make_infos(np.arange(n, len(ids))), strict=True):
                self._first_infos[i] = first
            self._to_begin = begin[:0]
            obs, rewards, dones, truncated = obs[:n], rewards[:n], dones[:n], truncated[:n]
        scores = over = None
        if "terminated" in self._infos_at and "reward" in self._infos_at:  # Atari: of the game, …
            terminated, scores = (arrays[self._infos_at[name]] for name in ("terminated", "reward"))
            over = (terminated != 0) | truncated  # … and not of a life or a clipped reward
        return Step(obs, rewards, dones & ~truncated, truncated, make_infos, scores, over)

    def _reset_ended(self, ended: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, VecEnvObs, Infos]:
        if self._takes_turns:
            self._playing[ended], self._waiting[ended] = self._waiting[ended], self._playing[ended]
            self._to_begin = ended
            return ended, pick(self._first_obs, ended), [self._first_infos[i] for i in ended.tolist()]
        # A step and not reset(ids), which would begin a new game after a lost life.
        ids = ended.astype(np.int32)
        arrays = self._step_pool(np.asarray(actions, self._action_type)[ended], ids)
        obs = tree_map(arrays.__getitem__, self._obs_at)
        return ended, obs, self._make_infos(arrays, np.arange(len(ids)))

    def close(self) -> None:
        """Free the pool; the next ``reset`` makes another."""
        super().close()
        self._free_pool()

    def _free_pool(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _render(self) -> Sequence[Any]:
        if self._pool is None:
            raise ValueError("There is nothing to render before the first reset()")
        if self.render_mode == "rgb_array":
            return self._pool.render(self._playing)
        shown = self._playing[self._task_kwargs.get("render_env_id", 0)]  # "human" shows one environment
        return [self._pool.render(shown)] + [None] * (self.num_envs - 1)

    def _common_attributes(self) -> dict[str, Any]:
        return {"render_mode": self._task_kwargs.get("render_mode"), "spec": self._gymnasium_spec}


def _make_one(arguments: tuple[str, dict[str, Any]], file: tuple[str, tuple[str, ...]] | None) -> EnvPoolVecEnv:
    task_id, task_kwargs = arguments
    pool = EnvPoolVecEnv(task_id, **task_kwargs)
    if file is not None:
        pool.write_results(*file)
    return pool


def atari_options(
    noop_max: int = 30,
    frame_skip: int = 4,
    screen_size: int = 84,
    terminal_on_life_loss: bool = True,
    clip_reward: bool = True,
    action_repeat_probability: float = 0.0,
) -> dict[str, Any]:
    """EnvPool's arguments for what SB3's ``AtariWrapper`` does, whose arguments these are: single frames, not stacked.

    :raises ValueError: if ``noop_max`` is 0, which EnvPool cannot do
    """
    check_count("noop_max", noop_max)
    sticky = {"repeat_action_probability": action_repeat_probability} if action_repeat_probability else {}
    return {
        "noop_max": noop_max,
        "frame_skip": frame_skip,
        "img_height": screen_size,
        "img_width": screen_size,
        "episodic_life": terminal_on_life_loss,
        "reward_clip": clip_reward,
        "stack_num": 1,
        **sticky,  # otherwise as the id has it
    }


def find_task(env_id: str) -> tuple[str, dict[str, Any]]:
    """EnvPool's id for one of gymnasium's, and the arguments with which the tasks correspond.

    :param env_id: an id of gymnasium or EnvPool
    :raises ValueError: if EnvPool has no such task, or is not installed
    """
    tasks = _import().list_all_envs()
    if env_id in tasks:
        return env_id, {}
    for pattern, presets in ATARI:
        found = pattern.fullmatch(env_id)
        if found and f"{found[1]}-v5" in tasks:
            return f"{found[1]}-v5", dict(presets)
    close = get_close_matches(env_id.split("/")[-1], tasks, n=3)
    hint = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
    raise ValueError(f"env_id={env_id!r}{hint}; allowed with EnvPool: its own tasks, envpool.list_all_envs()")


def _import() -> ModuleType:
    try:
        import envpool
    except ImportError as error:
        raise ValueError(
            'backend="envpool" needs EnvPool, which cannot be imported here '
            f'({error}); allowed where it is installed: pip install "sb3_pg_ext[envpool]"'
        ) from error
    return envpool


def _make_spec(envpool: ModuleType, task_id: str, config: dict[str, Any]) -> Any:
    known = set(envpool.make_spec(task_id).config._fields)
    for name in config:
        if name not in known:
            close = get_close_matches(name, known)
            hint = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
            raise ValueError(f"{name}={config[name]!r}{hint}; allowed for {task_id}: {', '.join(sorted(known))}")
    spec = envpool.make_spec(task_id, **config)
    made = spec.config
    if made.batch_size not in (0, made.num_envs):
        raise ValueError(f"batch_size={made.batch_size!r}; allowed: num_envs, since SB3 steps all environments at once")
    if made.max_num_players != 1:
        raise ValueError(f"{task_id} is for {made.max_num_players} players; allowed: tasks for one")
    return spec


def _spaces(spec: Any, env_id: str) -> tuple[spaces.Space, spaces.Space]:
    """Observation and action space: gymnasium's where they can be had and go with the pool's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = spec.gymnasium_observation_space, spec.gymnasium_action_space
        theirs: tuple[spaces.Space | None, spaces.Space | None] = None, None
        try:
            env = gym.make(env_id)
            theirs = env.observation_space, env.action_space
            env.close()
        except Exception:  # unknown there, or something that it needs is not installed
            pass
    return _choose(own[0], theirs[0]), _choose(own[1], theirs[1])


def _choose(own: spaces.Space, theirs: spaces.Space | None) -> spaces.Space:
    """Gymnasium's space if it is there and means the same, otherwise EnvPool's."""
    if isinstance(own, spaces.Box) and isinstance(theirs, spaces.Box):
        alike = own.shape == theirs.shape and own.dtype.kind == theirs.dtype.kind
    else:
        alike = own == theirs
    return theirs if theirs is not None and alike else _mend(own)


def _mend(space: spaces.Space) -> spaces.Space:
    """EnvPool's space as it is meant: of some tasks the smallest positive number stands for minus infinity."""
    if not isinstance(space, spaces.Box) or space.dtype.kind != "f":
        return space
    smallest, largest = np.finfo(np.float32).tiny, np.finfo(np.float32).max
    unbounded = (space.low == smallest) & (space.high == largest)
    low, high = np.where(unbounded, -np.inf, space.low), np.where(unbounded, np.inf, space.high)
    return spaces.Box(low.astype(space.dtype), high.astype(space.dtype), dtype=space.dtype.type)


def _separate(info: dict[str, Any], n_envs: int, rows: np.ndarray | None = None) -> Infos:
    return separate({key: values for key, values in info.items() if key not in BOOKKEEPING}, n_envs, rows)
