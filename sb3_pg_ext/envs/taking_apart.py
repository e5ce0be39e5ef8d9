"""From the environments that a user gives to others like them: one for every worker, or some for evaluation."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pkgutil import resolve_name
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import SyncVectorEnv
from stable_baselines3.common.env_util import is_wrapped, make_vec_env, unwrap_wrapper
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecCheckNan,
    VecEnv,
    VecEnvWrapper,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

from sb3_pg_ext.envs.envpool_vec_env import EnvPoolVecEnv
from sb3_pg_ext.envs.fast_dummy import EnvFactory, FastDummyVecEnv
from sb3_pg_ext.envs.gymnasium_vec_env import GymnasiumVecEnv

DEFAULT_WORKERS = 2

ALLOWED = (
    "the id of an environment, a function that makes one, a list of such functions, or a VecEnv whose environments can "
    "be built again or copied: FastDummyVecEnv, EnvPoolVecEnv, GymnasiumVecEnv with SyncVectorEnv, or DummyVecEnv and "
    "SubprocVecEnv with environments that can be pickled"
)


NORMALIZER_ARGUMENTS = (
    "training",
    "norm_obs",
    "norm_reward",
    "clip_obs",
    "clip_reward",
    "gamma",
    "epsilon",
    "norm_obs_keys",
)
"""What ``VecNormalize`` is made with, beside the VecEnv."""


def make_environments(env: Any, n_workers: int | None) -> Any:
    """Turn what a user gives into something that SB3 takes, with one environment for every worker.

    :param env: an id, a function, a list of functions, an environment, a VecEnv or None
    :param n_workers: number of workers; None for as many as there are environments, or two
    :raises ValueError: if there is another number of environments than of workers
    """
    if isinstance(env, gym.Env | VecEnv) or env is None:
        _check_number(1 if isinstance(env, gym.Env) else getattr(env, "num_envs", n_workers), n_workers)
        return env
    if isinstance(env, list | tuple) and env and all(map(callable, env)):
        _check_number(len(env), n_workers)
        return FastDummyVecEnv([partial(_make_monitored, factory) for factory in env])
    if isinstance(env, str) or callable(env):
        return make_vec_env(env, n_workers or DEFAULT_WORKERS, vec_env_cls=FastDummyVecEnv)
    raise ValueError(f"env={env!r}; allowed: {ALLOWED}")


def _check_number(n_envs: int | None, n_workers: int | None) -> None:
    if n_workers not in (None, n_envs):
        raise ValueError(
            f"n_workers={n_workers!r} with {n_envs} environments; allowed: one environment for every worker. Give "
            f"n_workers={n_envs!r} or none, or, as env, an id or a function that makes an environment"
        )


def _make_monitored(factory: EnvFactory) -> gym.Env:
    env = factory()
    return env if is_wrapped(env, Monitor) else Monitor(env)


@dataclass(frozen=True)
class Recipe:
    """How a worker builds its environments, once: a VecEnv.

    :param make: makes it
    :param wrappers: wrap it, innermost first
    """

    make: Callable[[], VecEnv]
    wrappers: tuple[Callable[[VecEnv], VecEnv], ...]

    def __call__(self) -> VecEnv:
        """Build it."""
        env = self.make()
        for wrap in self.wrappers:
            env = wrap(env)
        return env


def split(env: VecEnv, n_per_worker: int = 1) -> list[Recipe]:
    """Recipes for the environments of a VecEnv, wrapped as that one is; of a simulator ones of the same kind.

    :param env: the VecEnv
    :param n_per_worker: so many of its environments are built together, in their order
    :raises ValueError: if its environments cannot be built again, or not together, or one of its wrappers is not known
    """
    wrappers = rewrappers(env)
    return [Recipe(make, wrappers) for make in _makers(env.unwrapped, n_per_worker)]


def rewrappers(env: VecEnv) -> tuple[Callable[[VecEnv], VecEnv], ...]:
    """What wraps other environments as a VecEnv's are wrapped, innermost first; statistics are copied.

    :param env: the VecEnv
    :raises ValueError: if one of its wrappers is not known
    """
    wrappers: list[VecEnvWrapper] = []
    while isinstance(env, VecEnvWrapper):
        wrappers.insert(0, env)
        env = env.venv
    return tuple(map(_rewrapper, wrappers))


def find_factory(env: VecEnv) -> EnvFactory:
    """What makes new environments like those in a VecEnv, without their wrappers around the VecEnv.

    That is gymnasium's ``make`` with their ``spec``: id, arguments, and the wrappers that tell how they were made;
    ``Monitor`` writes no file then. Where a wrapper does not tell, or there is no ``spec``, it is the function that a
    :class:`~sb3_pg_ext.envs.FastDummyVecEnv` was given, if it makes new ones that write no files.

    :param env: the VecEnv
    :raises ValueError: if there is neither
    """
    spec = env.get_attr("spec")[0] if env.has_attr("spec") else None
    silent = [wrapper.name for wrapper in spec.additional_wrappers if not _can_be_made(wrapper)] if spec else []
    if spec is not None and not silent:
        return partial(_make_from_spec, spec)
    base = env.unwrapped
    if isinstance(base, FastDummyVecEnv) and not any(map(_writes_a_file, base.envs)):
        another = base.env_fns[0]()
        if all(another.unwrapped is not single.unwrapped for single in base.envs):
            another.close()
            return base.env_fns[0]
    reason = f"the wrapper {silent[0]}, which does not tell how it was made" if silent else "no spec"
    raise ValueError(f"{env!r} has {reason}, so that its environments cannot be made again")


def _can_be_made(wrapper: Any) -> bool:
    return wrapper.kwargs is not None or wrapper.name == Monitor.__name__


def _make_from_spec(spec: EnvSpec) -> gym.Env:
    env = gym.make(replace(spec, additional_wrappers=()))
    for wrapper in spec.additional_wrappers:
        env = Monitor(env) if wrapper.kwargs is None else resolve_name(wrapper.entry_point)(env, **wrapper.kwargs)
    return env


def _writes_a_file(env: gym.Env) -> bool:
    monitor = unwrap_wrapper(env, Monitor)
    return getattr(monitor, "results_writer", None) is not None


def _makers(env: VecEnv, n_per_worker: int) -> list[Callable[[], VecEnv]]:
    if isinstance(env, EnvPoolVecEnv):
        if n_per_worker > 1:
            raise ValueError(
                f"env={env!r} with {n_per_worker} environments for each worker; allowed: one, since a pool is taken "
                "apart into pools of a single environment"
            )
        return list(env.split())
    if isinstance(env, GymnasiumVecEnv) and isinstance(env.env, SyncVectorEnv):
        mode = env.env.autoreset_mode
        return [partial(_make_synchronous, group, mode) for group in _grouped(env.env.env_fns, n_per_worker)]
    return [partial(FastDummyVecEnv, group) for group in _grouped(_factories(env), n_per_worker)]


def _grouped(factories: Sequence[EnvFactory], size: int) -> list[Sequence[EnvFactory]]:
    return [factories[start : start + size] for start in range(0, len(factories), size)]


def _make_synchronous(factories: Sequence[EnvFactory], mode: Any) -> VecEnv:
    return GymnasiumVecEnv(SyncVectorEnv(factories, autoreset_mode=mode))


def _factories(env: VecEnv) -> list[EnvFactory]:
    if isinstance(env, FastDummyVecEnv):
        return list(env.env_fns)
    if isinstance(env, DummyVecEnv):
        return [partial(_hand_over, sub_env) for sub_env in env.envs]
    if isinstance(env, SubprocVecEnv):
        return [partial(_hand_over, sub_env) for sub_env in _fetch_environments(env)]
    raise ValueError(f"env={env!r} is a {type(env).__name__}; allowed: {ALLOWED}")


def _hand_over(env: gym.Env) -> gym.Env:
    return env


def _fetch_environments(env: SubprocVecEnv) -> list[gym.Env]:
    try:
        # Of all attributes, a bound method brings the environment along, with all of its wrappers.
        return [method.__self__ for method in env.get_attr("reset")]
    except (EOFError, ConnectionError) as error:
        raise ValueError(
            f"env={env!r}: its environments cannot be pickled to be copied out of their processes; allowed: {ALLOWED}"
        ) from error


def _rewrapper(wrapper: VecEnvWrapper) -> Callable[[VecEnv], VecEnv]:
    """How to wrap another VecEnv as this wrapper does its own. By exact type: a subclass may do something else."""
    match wrapper:
        case VecNormalize() if type(wrapper) is VecNormalize:
            return partial(_normalize, _arguments(wrapper, NORMALIZER_ARGUMENTS), _statistics(wrapper))
        case VecFrameStack(stacked_obs=stacked) if type(wrapper) is VecFrameStack:
            return partial(VecFrameStack, n_stack=stacked.n_stack, channels_order=_channels_order(stacked))
        case VecTransposeImage(skip=skip) if type(wrapper) is VecTransposeImage:
            return partial(VecTransposeImage, skip=skip)
        case VecExtractDictObs(key=key) if type(wrapper) is VecExtractDictObs:
            return partial(VecExtractDictObs, key=key)
        case VecCheckNan() if type(wrapper) is VecCheckNan:
            return partial(VecCheckNan, **_arguments(wrapper, ("raise_exception", "warn_once", "check_inf")))
        case VecMonitor(results_writer=None, info_keywords=keywords) if type(wrapper) is VecMonitor:
            return partial(VecMonitor, info_keywords=keywords)
    raise ValueError(
        f"env is wrapped in {type(wrapper).__name__}, which cannot be built again for a single worker; allowed: "
        "VecNormalize, VecFrameStack, VecTransposeImage, VecExtractDictObs, VecCheckNan, VecMonitor without a file, "
        "and any wrapper around the single environments"
    )


def _arguments(wrapper: VecEnvWrapper, names: tuple[str, ...]) -> dict[str, Any]:
    """Arguments of a wrapper's constructor, which keeps them under their names."""
    return {name: getattr(wrapper, name) for name in names}


def _statistics(normalizer: VecNormalize) -> dict[str, Any]:
    """Copies of the running statistics, by attribute; without ``norm_obs`` there are none of observations."""
    return {name: deepcopy(vars(normalizer)[name]) for name in ("obs_rms", "ret_rms") if name in vars(normalizer)}


def _normalize(arguments: dict[str, Any], statistics: dict[str, Any], env: VecEnv) -> VecNormalize:
    """Normalise another VecEnv. The normaliser itself would not do: SB3 cannot pickle one that has no VecEnv."""
    normalizer = VecNormalize(env, **arguments)
    vars(normalizer).update(statistics)
    return normalizer


def _channels_order(stacked: StackedObservations) -> Any:
    if isinstance(stacked.observation_space, gym.spaces.Dict):
        return {key: _channels_order(part) for key, part in stacked.sub_stacked_observations.items()}
    return "first" if stacked.channels_first else "last"
