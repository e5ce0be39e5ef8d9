"""Where environments stand: noted, and put into environments that were made in the same way.

A VecEnv is a chain of layers: its wrappers, itself and, in it, single environments
(:mod:`~sb3_pg_ext.checkpoints.episodes`).
"""

import inspect
import io
from collections.abc import Callable
from typing import Any

import cloudpickle
import gymnasium as gym
from stable_baselines3.common.monitor import Monitor, ResultsWriter
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper

from sb3_pg_ext.checkpoints import episodes
from sb3_pg_ext.checkpoints.layers import copy, find_uncopyable, layers_of, names_of, paste


def vec_layers(env: VecEnv) -> list[VecEnv]:
    """The wrappers of a VecEnv, outermost first, and the VecEnv itself."""
    layers = [env]
    while isinstance(env, VecEnvWrapper):
        env = env.venv
        layers.append(env)
    return layers


def prepare(env: VecEnv, seed: int | None) -> None:
    """Before a training: record episodes of environments whose state cannot be copied.

    :param env: environments that have just been reset
    :param seed: of the first; the others follow. ``None`` if that is not known
    """
    seeds = [None if seed is None else seed + index for index in range(env.num_envs)]
    _for_each(env, episodes.prepare, "prepare_for_checkpoints", seeds)


def note(env: VecEnv) -> dict[str, Any]:
    """Note where environments stand.

    :return: for :func:`put_back`; ``problem`` says, if it is not empty, why the running episodes cannot be gone on with
    """
    layers = vec_layers(env)
    singles = _for_each(env, episodes.note, "note_for_checkpoint")
    problems = [f"{names_of(layers)[-1]} does not tell the state of its environments"] if singles is None else []
    problems += [single["problem"] for single in singles or [] if single["problem"]]
    left_out = set(find_uncopyable(layers))
    if not isinstance(layers[-1], DummyVecEnv):  # it holds handles of what lies elsewhere; its spaces are here
        names = {name for name, value in vars(layers[-1]).items() if not isinstance(value, gym.Space)}
        left_out |= {(len(layers) - 1, name) for name in names}
    return {
        "layers": names_of(layers),
        "state": copy(layers, left_out),
        "envs": singles,
        "problem": problems[0] if problems else "",
    }


def put_back(env: VecEnv, noted: dict[str, Any]) -> str:
    """Put environments where others stood when they were noted.

    :param env: environments that were made as the others had been
    :param noted: what :func:`note` gave
    :return: why the episodes cannot be gone on with; empty if they can
    :raises ValueError: if the wrappers of the VecEnv are others
    """
    layers = vec_layers(env)
    if names_of(layers) != noted["layers"]:
        names = (" of ".join(each) for each in (names_of(layers), noted["layers"]))
        raise ValueError("env is {}; allowed: {}, as the training had".format(*names))
    problem = noted["problem"]
    if noted["envs"] is not None:
        problems = _for_each(env, episodes.put_back, "put_back_from_checkpoint", noted["envs"]) or []
        problem = problem or next(filter(None, problems), "")
    paste(layers, noted["state"], complete=False)
    return problem


def _for_each(
    env: VecEnv, function: Callable[..., Any], method: str, arguments: list[Any] | None = None
) -> list[Any] | None:
    """Call a function of every single environment.

    :param env: the environments
    :param function: to be called where they lie in this process
    :param method: of :class:`~sb3_pg_ext.checkpoints.episodes.MonitorInWorker`, where they lie in others
    :param arguments: a further argument for each
    :return: what it gives for each; None if the environments are out of reach
    """
    innermost = vec_layers(env)[-1]
    each = [() if arguments is None else (argument,) for argument in arguments or range(env.num_envs)]
    if isinstance(innermost, DummyVecEnv):
        return [function(single, *more) for single, more in zip(innermost.envs, each, strict=True)]
    if not isinstance(innermost, SubprocVecEnv) or not _can_be_asked(innermost):
        return None
    return [innermost.env_method(method, *more, indices=index)[0] for index, more in enumerate(each)]


def _can_be_asked(env: SubprocVecEnv) -> bool:
    """Let the environments of other processes answer, if a ``Monitor`` is around them, as ``make_vec_env`` puts it."""
    modules = set(env.get_attr("__module__"))  # a class could not always be sent
    if modules == {Monitor.__module__}:
        env.set_attr("__class__", episodes.MonitorInWorker)
        return True
    return modules == {episodes.__name__}


def pack(env: VecEnv) -> bytes:
    """Environments as they are made, to be made again from the checkpoint alone.

    :raises Exception: whatever their classes raise if they cannot be pickled
    """
    stream = io.BytesIO()
    _Packer(stream, env).dump(env)
    return stream.getvalue()


def unpack(packed: bytes) -> VecEnv:
    """Make environments again."""
    return cloudpickle.loads(packed)


class _Packer(cloudpickle.Pickler):
    def __init__(self, stream: io.BytesIO, env: VecEnv) -> None:
        super().__init__(stream)
        self._left_out: dict[int, set[str]] = {}
        for single in getattr(vec_layers(env)[-1], "envs", []):
            if recording := vars(single).get("recording"):
                layers = layers_of(single)
                self._left_out[id(single)] = {"recording"}
                for index, name in recording.left_out:
                    self._left_out.setdefault(id(layers[index]), set()).add(name)

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, VecEnv):
            attributes = {name: value for name, value in vars(obj).items() if name != "class_attributes"}
            return _make_empty, (type(obj),), attributes, None, None, _fill
        if isinstance(obj, ResultsWriter):
            return _reopen, (obj.file_handler.name, tuple(obj.logger.fieldnames)[3:])
        if id(obj) in self._left_out:
            return self._as_made(obj)
        return super().reducer_override(obj)

    def _as_made(self, env: gym.Env) -> Any:
        """How an environment is pickled that is not recorded, without what cannot be."""
        state: Any = env.__reduce_ex__(4)[2]
        kept = {name: value for name, value in state.items() if name not in self._left_out[id(env)]}
        return _new, (type(env).__base__ if "recording" in vars(env) else type(env),), kept


def _new(cls: Any) -> Any:
    return cls.__new__(cls)


def _make_empty(cls: type[VecEnv]) -> VecEnv:
    env = cls.__new__(cls)
    if issubclass(cls, VecEnvWrapper):
        vars(env)["class_attributes"] = dict(inspect.getmembers(cls))
    return env


def _fill(env: VecEnv, attributes: dict[str, Any]) -> None:
    vars(env).update(attributes)


def _reopen(filename: str, extra_keys: tuple[str, ...]) -> ResultsWriter:
    return ResultsWriter(filename, None, extra_keys, override_existing=False)
