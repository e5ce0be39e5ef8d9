"""Playing complete episodes, each from a seed of its own."""

import inspect
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecEnvWrapper,
    VecNormalize,
    VecTransposeImage,
    unwrap_vec_normalize,
)
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_pg_ext.arguments import check_count, check_flag
from sb3_pg_ext.checkpoints.random_states import seeded
from sb3_pg_ext.envs.fast_dummy import FastDummyVecEnv
from sb3_pg_ext.envs.taking_apart import rewrappers
from sb3_pg_ext.policies.observations import Observations
from sb3_pg_ext.rollouts.action_masks import acts_with_masks

N_ENVS = 16
"""So many environments play side by side where nobody says otherwise."""


@dataclass(frozen=True)
class Episode:
    """A complete episode of T steps, as its environment saw it.

    :param seed: with which the environment was reset
    :param episode_return: the undiscounted sum of the environment's rewards; by ``Monitor`` where there is one, so that
        wrappers around it, such as those of Atari that clip rewards, do not count
    :param length: its steps, likewise by ``Monitor``; wrappers that skip frames make it larger than T
    :param is_success: what ``info["is_success"]`` says at its end; None where it says nothing
    :param steps: what happened at every step; None where it was not recorded
    """

    seed: int
    episode_return: float
    length: int
    is_success: bool | None = None
    steps: "Steps | None" = None


@dataclass(frozen=True)
class Steps:
    """The steps of an episode.

    :param observations: what the environment gave, neither normalised nor stacked by wrappers of the VecEnv; with the
        last one, [T + 1, …], or a dictionary of such arrays
    :param actions: as the environment got them, [T, …]
    :param rewards: as the environment gave them, [T], float64
    :param terminated: [T], Booleans. Only a wrapper outside of ``Monitor`` can end an episode within it, as those of
        Atari do with a life
    :param truncated: [T], likewise
    :param values: what the policy's critic said of the states, [T], float32; NaN where there is none
    """

    observations: Observations
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    values: np.ndarray


def play_episodes(
    model: BaseAlgorithm,
    env: str | Callable[[], gym.Env] | gym.Env | VecEnv,
    seeds: Sequence[int],
    deterministic: bool = True,
    *,
    n_envs: int | None = None,
    record: bool = False,
) -> list[Episode]:
    """Play a complete episode from every seed, several at a time, and count each once, whatever its length.

    Every episode begins with ``reset(seed=…)`` of its own seed, and an environment that is through with one takes the
    next seed of the list; so short episodes are not counted more often than long ones, and the same list gives the same
    episodes. (Up to the rounding of batched matrix products, which another ``n_envs`` may change.)

    ``VecNormalize`` is that of ``env``, with the statistics of the model's own environment where it has one. They are
    not updated, and rewards are not normalised. Where environments have ``action_masks()`` and the model takes them,
    it gets them. Recurrent policies keep their state through an episode.

    Nothing of the model or of the global random generators is different afterwards.

    :param model: an algorithm of SB3, sb3-contrib or this package
    :param env: the id of an environment or a function that makes one, which is wrapped as the model's own environments
        are; an environment; or a VecEnv: a ``DummyVecEnv`` or ``SubprocVecEnv``, wrapped as in training. It must not be
        the one that the model is training in
    :param seeds: of the episodes, distinct
    :param deterministic: whether the most probable actions are taken; otherwise they are sampled, by random numbers
        that depend on the first seed alone
    :param n_envs: number of environments for an id or a function, by default up to 16
    :param record: whether episodes keep their :class:`Steps`
    :return: the episodes, in the order of the seeds
    :raises ValueError: if an argument is wrong, or ``env`` does not go with the model
    """
    seeds = check_seeds("seeds", seeds)
    check_flag("deterministic", deterministic)
    with undisturbed(model, seeds[0]):
        is_own = not isinstance(env, gym.Env | VecEnv)
        if is_own and n_envs is None:
            n_envs = min(N_ENVS, len(seeds))
        vec_env = make_evaluation_env(model, env, n_envs)
        try:
            recorder = _Recorder(seeds, record)
            with _evaluating(vec_env, model), _seeded(vec_env, recorder) as seeded:
                _play(model, seeded, recorder, deterministic)
        finally:
            if is_own:
                vec_env.close()
    return [recorder.episodes[seed] for seed in seeds]


def check_seeds(name: str, seeds: Sequence[int]) -> list[int]:
    """Refuse what is not a list of distinct seeds.

    :param name: of the argument
    :param seeds: its value
    :return: the seeds, as integers
    :raises ValueError: if it is not
    """
    if not hasattr(seeds, "__iter__") or not len(seeds):
        raise ValueError(f"{name}={seeds!r}; allowed: a list of distinct integers, at least one")
    for seed in seeds:
        check_count(name, seed, 0, "distinct integers ≥ 0")
    if len(set(seeds)) < len(seeds):
        twice = next(seed for i, seed in enumerate(seeds) if seed in seeds[:i])
        raise ValueError(f"{name} has {twice} twice; allowed: distinct integers, since an episode counts once")
    return [int(seed) for seed in seeds]


@contextmanager
def undisturbed(model: BaseAlgorithm, seed: int) -> Iterator[None]:
    """Within the scope the global random generators run from a seed; then they, and the policy's mode, are put back.

    :param model: whose policy plays
    :param seed: of Python's, NumPy's and PyTorch's generators
    """
    modes = [(module, module.training) for module in model.policy.modules()]
    with seeded(seed % 2**32, model.device):
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


def make_evaluation_env(
    model: BaseAlgorithm, env: str | Callable[[], gym.Env] | gym.Env | VecEnv, n_envs: int | None = None
) -> VecEnv:
    """Environments to evaluate a model in, as it needs them.

    :param model: the model
    :param env: as :func:`play_episodes` takes it; of a VecEnv only images are transposed
    :param n_envs: number of environments for an id or a function, by default 16
    :raises ValueError: if an argument is wrong, or ``env`` does not go with the model
    """
    like = model.get_env()
    if isinstance(env, VecEnv):
        if n_envs not in (None, env.num_envs):
            raise ValueError(f"n_envs={n_envs!r} with {env.num_envs} environments; allowed: None")
        vec_env = env
    elif isinstance(env, gym.Env):
        if n_envs not in (None, 1):
            raise ValueError(f"n_envs={n_envs!r} with a single environment; allowed: None, or an id or a function")
        vec_env = _wrapped_like(FastDummyVecEnv([lambda: env]), like)
    elif isinstance(env, str) or callable(env):
        n_envs = N_ENVS if n_envs is None else n_envs
        check_count("n_envs", n_envs)
        factory = partial(gym.make, env) if isinstance(env, str) else env
        vec_env = _wrapped_like(FastDummyVecEnv([factory] * n_envs), like)
    else:
        raise ValueError(f"env={env!r}; allowed: an id, a function that makes an environment, an environment, a VecEnv")
    if vec_env.observation_space != model.observation_space:
        vec_env = _transposed(vec_env, model)
    check_for_correct_spaces(vec_env, model.observation_space, model.action_space)
    return vec_env


def _wrapped_like(env: VecEnv, like: VecEnv | None) -> VecEnv:
    for wrap in rewrappers(like) if like is not None else ():
        env = wrap(env)
    return env


def _transposed(env: VecEnv, model: BaseAlgorithm) -> VecEnv:
    """As SB3 transposes images, where that is what makes the difference."""
    try:
        transposed = VecTransposeImage(env)
    except AssertionError:  # there are no images to transpose
        return env
    return transposed if transposed.observation_space == model.observation_space else env


def check_env(model: BaseAlgorithm, env: VecEnv) -> None:
    """Refuse environments that show the model something else than it sees in training, or are those of its training.

    :param model: the model
    :param env: the environments
    :raises ValueError: if they do
    """
    source, shared = model.get_vec_normalize_env(), _parts(env) & _parts(model.get_env())
    if shared:
        raise ValueError("env is the environment that the model is training in; allowed: one of its own")
    if source is not None and source.norm_obs and unwrap_vec_normalize(env) is None:
        raise ValueError(
            f"env={env!r} has no VecNormalize, but the model sees normalised observations; allowed: an environment in "
            "VecNormalize, or an id or a function, which is wrapped as the model's"
        )


def _parts(env: VecEnv | None) -> set[int]:
    """The identities of a VecEnv and of the single environments in it."""
    if env is None:
        return set()
    base = env.unwrapped
    return {id(base), *(id(single.unwrapped) for single in getattr(base, "envs", ()))}


@contextmanager
def _evaluating(env: VecEnv, model: BaseAlgorithm) -> Iterator[None]:
    """Within the scope ``VecNormalize`` has the model's statistics, does not update them, and leaves rewards alone."""
    check_env(model, env)
    normalizer, source = unwrap_vec_normalize(env), model.get_vec_normalize_env()
    if normalizer is None:
        yield
        return
    if source is not None:
        copy_statistics(source, normalizer)
    before = normalizer.training, normalizer.norm_reward
    normalizer.training = normalizer.norm_reward = False
    try:
        yield
    finally:
        normalizer.training, normalizer.norm_reward = before


def copy_statistics(source: VecNormalize, target: VecNormalize) -> None:
    """Give a ``VecNormalize`` the running statistics of another.

    :param source: has them
    :param target: gets copies of them
    """
    for name in ("obs_rms", "ret_rms"):
        if name in vars(source):  # without norm_obs there are none of observations
            setattr(target, name, deepcopy(getattr(source, name)))


def _play(model: BaseAlgorithm, env: VecEnv, recorder: "_Recorder", deterministic: bool) -> None:
    has_masks = acts_with_masks(model, env)
    values_of = _critic(model) if recorder.steps_too else None
    obs, states, starts = env.reset(), None, np.ones(env.num_envs, bool)
    while recorder.n_left:
        masks = {"action_masks": get_action_masks(env)} if has_masks else {}
        actions, states = model.predict(obs, states, starts, deterministic, **masks)  # type: ignore[arg-type]
        if values_of is not None:
            recorder.values = values_of(obs)
        obs, _, starts, _ = env.step(actions)


def _critic(model: BaseAlgorithm) -> Callable[[Any], np.ndarray] | None:
    """What gives V(s) of a batch of observations, [N]; None where the policy has no such thing, or needs a state."""
    predict_values = getattr(model.policy, "predict_values", None)
    if predict_values is None or len(inspect.signature(predict_values).parameters) > 1:
        return None

    def values_of(observations: Any) -> np.ndarray:
        with th.no_grad():
            return predict_values(model.policy.obs_to_tensor(observations)[0]).flatten().cpu().numpy()

    return values_of


class _Running:
    """An episode that is being played."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.observations: list[Any] = []
        self.steps: list[tuple[Any, float, bool, bool, float]] = []
        self.episode_return = 0.0
        self.length = 0

    def all_steps(self) -> Steps:
        actions, rewards, terminated, truncated, values = zip(*self.steps, strict=True)
        first = self.observations[0]
        return Steps(
            {key: np.stack([obs[key] for obs in self.observations]) for key in first}
            if isinstance(first, dict)
            else np.stack(self.observations),
            np.stack(actions),
            np.array(rewards, np.float64),
            np.array(terminated, bool),
            np.array(truncated, bool),
            np.array(values, np.float32),
        )


class _Recorder:
    """Gives out the seeds, and keeps the episodes.

    :param seeds: one for every episode
    :param steps_too: whether episodes keep their steps
    """

    def __init__(self, seeds: list[int], steps_too: bool) -> None:
        self.seeds, self.steps_too = seeds, steps_too
        self.pending = deque(seeds)
        self.episodes: dict[int, Episode] = {}
        self.values: np.ndarray | None = None

    @property
    def n_left(self) -> int:
        """So many episodes are not over."""
        return len(self.seeds) - len(self.episodes)

    def begin(self) -> _Running | None:
        """The episode of the next seed; None when all have begun."""
        return _Running(self.pending.popleft()) if self.pending else None

    def observe(self, running: _Running | None, observation: Any) -> None:
        """What the environment shows: at the beginning of an episode, and after every step."""
        if self.steps_too and running is not None:
            running.observations.append(deepcopy(observation))

    def step(self, running: _Running, i: int, action: Any, reward: float, terminated: bool, truncated: bool) -> None:
        """A step of the episode in environment i."""
        running.episode_return += reward
        running.length += 1
        if self.steps_too:
            value = math.nan if self.values is None else float(self.values[i])
            running.steps.append((np.array(action), reward, terminated, truncated, value))

    def finish(self, running: _Running, info: dict[str, Any]) -> None:
        """The episode is over."""
        monitored = info.get("episode", {"r": running.episode_return, "l": running.length})
        success = info.get("is_success")
        self.episodes[running.seed] = Episode(
            running.seed,
            float(monitored["r"]),
            int(monitored["l"]),
            None if success is None else bool(success),
            running.all_steps() if self.steps_too else None,
        )


class _InProcess(FastDummyVecEnv):
    """Takes the place of a ``DummyVecEnv``: an environment whose episode ends begins that of the next seed.

    When all have begun it waits at the beginning of an episode.
    """

    def __init__(self, env: DummyVecEnv, recorder: _Recorder) -> None:
        super().__init__([lambda single=single: single for single in env.envs])  # type: ignore[misc]
        self.recorder = recorder
        self._monitored = [is_wrapped(single, Monitor) for single in self.envs]

    def reset(self) -> VecEnvObs:
        self._running = [self._begin(i) for i in range(self.num_envs)]
        return self._obs_from_buf()

    def _begin(self, i: int) -> _Running | None:
        running = self.recorder.begin()
        obs, self.reset_infos[i] = self.envs[i].reset(seed=running.seed if running else self.recorder.seeds[0])
        self._save_obs(i, obs)
        self.recorder.observe(running, obs)
        return running

    def step_wait(self) -> VecEnvStepReturn:
        infos: list[dict[str, Any]] = [{} for _ in self.envs]
        rewards, dones = np.zeros(self.num_envs, np.float32), np.zeros(self.num_envs, bool)
        for i, (env, running) in enumerate(zip(self.envs, self._running, strict=True)):
            if running is None:
                continue
            obs, reward, terminated, truncated, info = env.step(self.actions[i])
            self.recorder.step(running, i, self.actions[i], float(reward), bool(terminated), bool(truncated))
            rewards[i], dones[i], infos[i] = reward, terminated or truncated, dict(info)
            if not dones[i]:
                self._save_obs(i, obs)
                self.recorder.observe(running, obs)
                continue
            infos[i] |= {"terminal_observation": deepcopy(obs), "TimeLimit.truncated": truncated and not terminated}
            if _is_over(info, self._monitored[i]):
                self.recorder.observe(running, obs)
                self.recorder.finish(running, info)
                self._running[i] = self._begin(i)
            else:
                obs, self.reset_infos[i] = env.reset()
                self._save_obs(i, obs)
                self.recorder.observe(running, obs)
        return self._obs_from_buf(), rewards, dones, infos


class _InWaves(VecEnvWrapper):
    """Goes around a ``SubprocVecEnv``, which resets environments to seeds all at once: so all wait for the slowest.

    Until then the end of an episode is held back, lest wrappers or a recurrent policy begin with the next too early.
    """

    def __init__(self, env: SubprocVecEnv, recorder: _Recorder) -> None:
        super().__init__(env)
        self.recorder = recorder
        self._monitored = env.env_is_wrapped(Monitor)

    def reset(self) -> VecEnvObs:
        self._running = [self.recorder.begin() for _ in range(self.num_envs)]
        self._ends: dict[int, dict[str, Any]] = {}
        self.venv._seeds = [running.seed if running else self.recorder.seeds[0] for running in self._running]
        obs = self.venv.reset()
        for i, running in enumerate(self._running):
            self.recorder.observe(running, _row(obs, i))
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions
        super().step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        obs, rewards, dones, given = self.venv.step_wait()
        infos = list(given)
        for i, (running, info) in enumerate(zip(self._running, infos, strict=True)):
            if running is None:
                rewards[i], dones[i], infos[i] = 0, False, {}
                continue
            truncated = bool(dones[i] and info["TimeLimit.truncated"])
            terminated = bool(dones[i] and not truncated)
            self.recorder.step(running, i, self._actions[i], float(rewards[i]), terminated, truncated)
            is_over = dones[i] and _is_over(info, self._monitored[i])
            self.recorder.observe(running, info["terminal_observation"] if is_over else _row(obs, i))
            if is_over:
                self.recorder.finish(running, info)
                self._running[i], self._ends[i], dones[i] = None, info, False
        if not any(self._running):
            for i, info in self._ends.items():
                dones[i], infos[i] = True, info
            if self.recorder.n_left:
                obs = self.reset()
        return obs, rewards, dones, infos


def _row(observations: Any, i: int) -> Any:
    if isinstance(observations, dict):
        return {key: array[i] for key, array in observations.items()}
    return observations[i]


def _is_over(info: dict[str, Any], is_monitored: bool) -> bool:
    """Whether an episode is over where it ends: a wrapper outside of ``Monitor`` may end one that goes on."""
    return "episode" in info or not is_monitored


@contextmanager
def _seeded(env: VecEnv, recorder: _Recorder) -> Iterator[VecEnv]:
    """Within the scope the innermost environments play the episodes of a recorder's seeds.

    :param env: the environments; within the scope they are what this gives
    :param recorder: has the seeds
    """
    innermost = None
    base = env
    while isinstance(base, VecEnvWrapper):
        innermost, base = base, base.venv
    if isinstance(base, DummyVecEnv):
        seeded: VecEnv = _InProcess(base, recorder)
    elif isinstance(base, SubprocVecEnv):
        seeded = _InWaves(base, recorder)
    else:
        raise ValueError(
            f"env={env!r} is a {type(base).__name__}, which cannot reset each environment to a seed; allowed: a "
            "DummyVecEnv or a SubprocVecEnv, in any wrappers"
        )
    if innermost is None:
        yield seeded
        return
    innermost.venv = seeded
    try:
        yield env
    finally:
        innermost.venv = base
