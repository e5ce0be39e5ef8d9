"""Where environments stand: noted, and put into environments that were made in the same way.

An environment is a chain of layers: wrappers of the VecEnv, the VecEnv, and in it, for every environment, its wrappers
and itself. Each layer's attributes are copied. What cannot be copied, such as a simulator that keeps its state to
itself, begins a new episode.
"""

import io
from collections.abc import Sequence
from typing import Any

import cloudpickle
import gymnasium as gym
from stable_baselines3.common.monitor import ResultsWriter
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper

from sb3_pg_ext.checkpoints.pickles import dumps, loads

BELOW = frozenset({"env", "venv", "envs"})
"""Attributes that hold the next layer."""
MADE = BELOW | {"class_attributes", "env_fns"}
"""Attributes that are as they were made: they are not copied."""


def vec_layers(env: VecEnv) -> list[VecEnv]:
    """Its wrappers, outermost first, and the VecEnv itself."""
    layers = [env]
    while isinstance(env, VecEnvWrapper):
        env = env.venv
        layers.append(env)
    return layers


def layers_of(env: gym.Env) -> list[gym.Env]:
    """Its wrappers, outermost first, and the environment itself."""
    layers = [env]
    while isinstance(env, gym.Wrapper):
        env = env.env
        layers.append(env)
    return layers


def single_environments(env: VecEnv) -> list[gym.Env] | None:
    """Those that lie in this process; None if they do not."""
    innermost = vec_layers(env)[-1]
    return list(innermost.envs) if isinstance(innermost, DummyVecEnv) else None


def note(env: VecEnv) -> dict[str, Any]:
    """Note where the environments stand.

    :param env: the environments
    :return: for :func:`put_back`; ``problem`` says, if it is not empty, why the running episodes cannot be gone on with
    """
    layers = vec_layers(env)
    noted: dict[str, Any] = {"layers": _names(layers), "state": _copy(layers), "envs": [], "problem": ""}
    singles = single_environments(env)
    if singles is None:
        noted["problem"] = f"{_name(layers[-1])} keeps the state of its environments to itself"
        return noted
    for index, single in enumerate(singles):
        chain = layers_of(single)
        try:
            state = _copy(chain)
        except Exception as error:  # whatever a class makes of being pickled
            noted["problem"] = f"the state of environment {index}, {single}, cannot be copied: {error}"
            state = None
        noted["envs"].append({"layers": _names(chain), "state": state})
    return noted


def put_back(env: VecEnv, noted: dict[str, Any]) -> str:
    """Put environments where others stood when they were noted.

    :param env: environments that were made as the others had been
    :param noted: what :func:`note` gave
    :return: why the episodes cannot be gone on with; empty if they can
    :raises ValueError: if the wrappers of the VecEnv differ, or the number of environments
    """
    layers = vec_layers(env)
    if _names(layers) != noted["layers"]:
        raise ValueError(f"env={env!r} is a {_chain(layers)}; allowed: {' of '.join(noted['layers'])}, as was saved")
    singles = single_environments(env) or []
    problem = noted["problem"]
    for single, state in zip(singles, noted["envs"], strict=True):
        names = _names(layers_of(single))
        if names != state["layers"]:
            problem = f"env consists of {' of '.join(names)}, and {' of '.join(state['layers'])} was saved"
    if not problem:
        for single, state in zip(singles, noted["envs"], strict=True):
            _paste(layers_of(single), state["state"])
    _paste(layers, noted["state"])
    return problem


def pack(env: VecEnv) -> bytes:
    """Environments as they are made, to be made again from the checkpoint alone.

    :raises Exception: whatever their classes raise if they cannot be pickled
    """
    stream = io.BytesIO()
    _Packer(stream).dump(env)
    return stream.getvalue()


def unpack(packed: bytes) -> VecEnv:
    """Make environments again."""
    return cloudpickle.loads(packed)


class _Packer(cloudpickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, VecEnv):
            attributes = {name: value for name, value in vars(obj).items() if name != "class_attributes"}
            return _make_empty, (type(obj),), attributes, None, None, _fill
        if isinstance(obj, ResultsWriter):
            return _reopen, (obj.file_handler.name, tuple(obj.logger.fieldnames)[3:])
        return super().reducer_override(obj)


def _make_empty(cls: type[VecEnv]) -> VecEnv:
    env = cls.__new__(cls)
    if issubclass(cls, VecEnvWrapper):
        vars(env)["class_attributes"] = {name: getattr(cls, name) for name in dir(cls)}
    return env


def _fill(env: VecEnv, attributes: dict[str, Any]) -> None:
    vars(env).update(attributes)


def _reopen(filename: str, extra_keys: tuple[str, ...]) -> ResultsWriter:
    return ResultsWriter(filename, None, extra_keys, override_existing=False)


def _name(layer: Any) -> str:
    return type(layer).__name__


def _names(layers: Sequence[Any]) -> list[str]:
    return [_name(layer) for layer in layers]


def _chain(layers: Sequence[Any]) -> str:
    return " of ".join(_names(layers))


def _copy(layers: Sequence[Any]) -> bytes:
    """The attributes of layers. Layers, spaces and files stay; of spaces the attributes are copied, of files the text.

    :raises Exception: whatever the class of an attribute raises if it cannot be pickled
    """
    places: dict[int, Any] = {id(layer): index for index, layer in enumerate(layers)}
    states, spaces, texts = [], {}, {}
    for index, layer in enumerate(layers):
        state = {}
        for name, value in vars(layer).items():
            if name in MADE:
                continue
            if isinstance(value, gym.Space):
                places.setdefault(id(value), (index, name))
                spaces[index, name] = vars(value)
            elif isinstance(value, ResultsWriter):
                places.setdefault(id(value), (index, name))
                texts[index, name] = _read(value)
            else:
                state[name] = value
        states.append(state)
    return dumps((states, spaces, texts), places)


def _paste(layers: Sequence[Any], copied: bytes) -> None:
    def find(place: Any) -> Any:
        if isinstance(place, int):
            return layers[place]
        index, name = place
        return vars(layers[index])[name]

    states, spaces, texts = loads(copied, find)
    for layer, state in zip(layers, states, strict=True):
        attributes = vars(layer)
        for name in attributes.keys() - state.keys() - MADE:
            if not isinstance(attributes[name], gym.Space | ResultsWriter):
                del attributes[name]
        attributes.update(state)
    for (index, name), state in spaces.items():
        vars(vars(layers[index])[name]).update(state)
    for (index, name), text in texts.items():
        writer = vars(layers[index]).get(name)
        if isinstance(writer, ResultsWriter):
            _rewrite(writer, text)


def _read(writer: ResultsWriter) -> str:
    with open(writer.file_handler.name, newline="\n", encoding="utf-8") as file:
        return file.read()


def _rewrite(writer: ResultsWriter, text: str) -> None:
    """Let a file hold what it held; what was written after that is gone."""
    writer.file_handler.seek(0)
    writer.file_handler.truncate()
    writer.file_handler.write(text)
    writer.file_handler.flush()
