"""One function for every kind of ``VecEnv``."""

import os
from collections.abc import Callable
from typing import Any

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from stable_baselines3.common import env_util
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv

from sb3_pg_ext.arguments import check_choice, check_count
from sb3_pg_ext.envs.batched import BatchedVecEnv
from sb3_pg_ext.envs.envpool_vec_env import EnvPoolVecEnv, atari_options
from sb3_pg_ext.envs.fast_dummy import EnvFactory, FastDummyVecEnv
from sb3_pg_ext.envs.gymnasium_vec_env import GymnasiumVecEnv

BACKENDS = ("auto", "dummy", "subproc", "gymnasium", "envpool")
VECTORIZATION_MODES = ("sync", "async", "vector_entry_point")


def make_vec_env(
    env_id: str | Callable[..., gym.Env],
    n_envs: int = 1,
    seed: int | None = None,
    backend: str = "auto",
    *,
    start_index: int = 0,
    monitor_dir: str | None = None,
    wrapper_class: Callable[[gym.Env], gym.Env] | None = None,
    env_kwargs: dict[str, Any] | None = None,
    vec_env_kwargs: dict[str, Any] | None = None,
    monitor_kwargs: dict[str, Any] | None = None,
    wrapper_kwargs: dict[str, Any] | None = None,
    vectorization_mode: str | None = None,
    num_threads: int | None = None,
) -> VecEnv:
    """SB3's ``make_vec_env`` with a choice of what steps the environments.

    ============== ================================================================================================
    backend        what steps the environments
    ============== ================================================================================================
    ``auto``       as ``dummy``
    ``dummy``      :class:`~sb3_pg_ext.envs.FastDummyVecEnv`
    ``subproc``    SB3's ``SubprocVecEnv``
    ``gymnasium``  gymnasium's ``SyncVectorEnv``, ``AsyncVectorEnv``, or the environment's own vector entry point
    ``envpool``    EnvPool, whose tasks are programs of their own; docs/environments.md tells how they differ
    ============== ================================================================================================

    ``dummy``, ``subproc``, and ``gymnasium`` in the modes ``sync`` and ``async`` give identical results.

    :param env_id: an id of gymnasium, or a function that makes an environment
    :param n_envs: number of environments
    :param seed: seed of the first environment, the others take those that follow; None for random ones
    :param backend: see above
    :param start_index: added to the seed, and to the numbers of the monitor files
    :param monitor_dir: folder for monitor files, made where it does not exist; None for none. Simulators that hold all
        environments write one file
    :param wrapper_class: wraps every environment, around its ``Monitor``; of SB3's ``AtariWrapper`` EnvPool does all
        that it does, with single frames [1, 84, 84]
    :param env_kwargs: arguments of the environment, or of EnvPool's task
    :param vec_env_kwargs: arguments of ``SubprocVecEnv``, of gymnasium's vector environment, or of its entry point
    :param monitor_kwargs: arguments of ``Monitor``; of simulators that hold all environments only ``info_keywords``
    :param wrapper_kwargs: arguments of the wrapper
    :param vectorization_mode: with ``gymnasium``: ``"sync"`` (default), ``"async"``, or ``"vector_entry_point"``
    :param num_threads: with ``envpool``: number of threads, by default 1
    :raises ValueError: if an argument is wrong, goes with another backend, or needs what is not installed
    """
    check_choice("backend", backend, BACKENDS)
    check_count("n_envs", n_envs)
    _check_backends_own(backend, "gymnasium", "vectorization_mode", vectorization_mode)
    _check_backends_own(backend, "envpool", "num_threads", num_threads)
    mode = "sync" if vectorization_mode is None else vectorization_mode
    check_choice("vectorization_mode", mode, VECTORIZATION_MODES)
    if backend == "envpool" and wrapper_class is AtariWrapper:
        env_kwargs = {**_atari_options(wrapper_kwargs or {}), **(env_kwargs or {})}
        wrapper_class = wrapper_kwargs = None
    if backend == "envpool" or (backend == "gymnasium" and mode == "vector_entry_point"):
        _check_simulator(backend, env_id, wrapper_class, wrapper_kwargs)
        assert isinstance(env_id, str)
        if backend == "envpool":
            if vec_env_kwargs:
                raise ValueError(f"vec_env_kwargs={vec_env_kwargs!r} with EnvPool; allowed: none, use env_kwargs")
            env: BatchedVecEnv = EnvPoolVecEnv(env_id, n_envs, num_threads=num_threads or 1, **(env_kwargs or {}))
        else:
            env = GymnasiumVecEnv(_enter(env_id, n_envs, env_kwargs, vec_env_kwargs))
        env.seed(None if seed is None else seed + start_index)
        return _monitor(env, monitor_dir, start_index, monitor_kwargs or {})
    return env_util.make_vec_env(
        env_id,
        n_envs,
        seed,
        start_index,
        monitor_dir,
        wrapper_class,
        env_kwargs,
        _single_environments(backend, mode),  # type: ignore[arg-type]  # SB3 only calls it
        vec_env_kwargs,
        monitor_kwargs,
        wrapper_kwargs,
    )


def _check_backends_own(backend: str, owner: str, name: str, value: Any) -> None:
    if value is not None and backend != owner:
        raise ValueError(f"{name}={value!r} with backend={backend!r}; allowed with backend={owner!r} alone")


def _atari_options(wrapper_kwargs: dict[str, Any]) -> dict[str, Any]:
    try:
        return atari_options(**wrapper_kwargs)
    except TypeError as error:
        raise ValueError(f"wrapper_kwargs={wrapper_kwargs!r}: {error}; allowed: those of AtariWrapper") from error


def _check_simulator(backend: str, env_id: Any, wrapper_class: Any, wrapper_kwargs: Any) -> None:
    what = "EnvPool" if backend == "envpool" else "a vector entry point"
    if not isinstance(env_id, str):
        raise ValueError(f"env_id={env_id!r} with {what}; allowed: an id")
    if wrapper_class is not None or wrapper_kwargs:
        allowed = "None, or SB3's AtariWrapper" if backend == "envpool" else "None"
        raise ValueError(
            f"wrapper_class={wrapper_class!r} with {what}, which has no single environments to wrap; allowed: "
            f"{allowed}. Use a VecEnvWrapper around the VecEnv, or another backend"
        )


def _single_environments(backend: str, mode: str) -> Callable[..., VecEnv]:
    if backend == "subproc":
        return SubprocVecEnv
    if backend == "gymnasium":
        return sync_vec_env if mode == "sync" else _async
    return FastDummyVecEnv


def sync_vec_env(env_fns: list[EnvFactory], **kwargs: Any) -> VecEnv:
    """Single environments in gymnasium's ``SyncVectorEnv``, for SB3.

    :param env_fns: functions that make the environments
    :param kwargs: arguments of ``SyncVectorEnv``
    """
    return GymnasiumVecEnv(SyncVectorEnv(env_fns, **_left_to_the_adapter(kwargs)))


def _async(env_fns: list[EnvFactory], **kwargs: Any) -> VecEnv:
    return GymnasiumVecEnv(AsyncVectorEnv(env_fns, **_left_to_the_adapter(kwargs)))


def _left_to_the_adapter(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments with which a vector environment neither resets nor copies, unless somebody wants it to."""
    if not hasattr(gym.vector, "AutoresetMode"):
        raise ValueError(f'backend="gymnasium" needs gymnasium ≥ 1.1, this is {gym.__version__}; allowed: the others')
    return {"autoreset_mode": "Disabled", "copy": False, **kwargs}


def _enter(env_id: str, n_envs: int, env_kwargs: Any, vec_env_kwargs: Any) -> Any:
    arguments = {**(env_kwargs or {}), **(vec_env_kwargs or {})}
    try:
        return gym.make_vec(env_id, n_envs, vectorization_mode="vector_entry_point", **arguments)
    except gym.error.Error as error:
        raise ValueError(f"env_id={env_id!r} with vectorization_mode='vector_entry_point': {error}") from error


def _monitor(env: BatchedVecEnv, folder: str | None, start_index: int, kwargs: dict[str, Any]) -> VecEnv:
    unknown = sorted(kwargs.keys() - {"info_keywords"})
    if unknown or (kwargs and folder is None):
        raise ValueError(
            f"monitor_kwargs={kwargs!r} with a simulator that holds all environments; allowed: info_keywords, with "
            "monitor_dir"
        )
    if folder is not None:
        os.makedirs(folder, exist_ok=True)
        env.write_results(os.path.join(folder, str(start_index)), **kwargs)
    return env
