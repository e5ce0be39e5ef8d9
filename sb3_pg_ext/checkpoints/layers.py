"""The attributes of the layers that environments consist of: copied, and pasted into layers made in the same way."""

from collections.abc import Sequence, Set
from typing import Any

import gymnasium as gym
from stable_baselines3.common.monitor import ResultsWriter

from sb3_pg_ext.checkpoints.pickles import dumps, loads

MADE = frozenset({"env", "venv", "envs", "env_fns", "class_attributes", "recording"})
"""Attributes that are as they were made: the next layer, how it was made, and what this package adds."""

Place = tuple[int, str]
"""The number of a layer, and the name of an attribute."""


def layers_of(env: gym.Env) -> list[gym.Env]:
    """The wrappers of an environment, outermost first, and the environment itself."""
    layers = [env]
    while isinstance(env, gym.Wrapper):
        env = env.env
        layers.append(env)
    return layers


def names_of(layers: Sequence[Any]) -> list[str]:
    """The names of the classes of layers."""
    return [getattr(type(layer), "stands_for", type(layer).__name__) for layer in layers]


def copy(layers: Sequence[Any], left_out: Set[Place] = frozenset()) -> bytes:
    """The attributes of layers. Layers, spaces and files stay; of spaces the attributes are copied, of files the text.

    :param layers: the layers
    :param left_out: attributes that are not copied
    :raises Exception: whatever the class of an attribute raises if it cannot be pickled
    """
    places: dict[int, Any] = {id(layer): index for index, layer in enumerate(layers)}
    states: list[dict[str, Any]] = []
    spaces, texts = {}, {}
    for index, layer in enumerate(layers):
        states.append({})
        for name, value in vars(layer).items():
            if name in MADE or (index, name) in left_out:
                continue
            if isinstance(value, gym.Space):
                places.setdefault(id(value), (index, name))
                spaces[index, name] = vars(value)
            elif isinstance(value, ResultsWriter):
                places.setdefault(id(value), (index, name))
                texts[index, name] = _read(value)
            else:
                states[index][name] = value
    return dumps((states, spaces, texts), places)


def find_uncopyable(layers: Sequence[Any]) -> dict[Place, str]:
    """The attributes of layers that cannot be pickled, and why."""
    found = {}
    places = {(index, name) for index, layer in enumerate(layers) for name in vars(layer).keys() - MADE}
    for place in sorted(places):
        try:
            copy(layers, places - {place})
        except Exception as error:  # whatever a class makes of being pickled
            found[place] = str(error)
    return found


def paste(layers: Sequence[Any], copied: bytes, *, complete: bool) -> None:
    """Give layers the attributes of others.

    :param layers: layers of the same classes
    :param copied: what :func:`copy` gave
    :param complete: whether it was copied without leaving anything out: then attributes that the others did not have go
    """

    def find(place: Any) -> Any:
        if isinstance(place, int):
            return layers[place]
        index, name = place
        return vars(layers[index])[name]

    states, spaces, texts = loads(copied, find)
    for layer, state in zip(layers, states, strict=True):
        attributes = vars(layer)
        for name in attributes.keys() - state.keys() - MADE if complete else ():
            if not isinstance(attributes[name], gym.Space | ResultsWriter):
                del attributes[name]
        attributes.update(state)
    for place, state in spaces.items():
        vars(find(place)).update(state)
    for (index, name), text in texts.items():
        if isinstance(writer := vars(layers[index]).get(name), ResultsWriter):
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
