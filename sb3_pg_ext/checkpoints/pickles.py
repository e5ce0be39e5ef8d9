"""Pickles that refer to objects which the reader has already."""

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import cloudpickle


def dumps(value: Any, places: Mapping[int, Any]) -> bytes:
    """Pickle a value.

    :param value: the value
    :param places: of objects that are not to be pickled, by their identity, what stands for them
    """
    stream = io.BytesIO()
    _Pickler(stream, places).dump(value)
    return stream.getvalue()


def loads(pickled: bytes, find: Callable[[Any], Any]) -> Any:
    """Read a pickle.

    :param pickled: what :func:`dumps` gave
    :param find: gives the object for what stands for it
    """
    return _Unpickler(io.BytesIO(pickled), find).load()


class _Pickler(cloudpickle.Pickler):
    def __init__(self, stream: io.BytesIO, places: Mapping[int, Any]) -> None:
        super().__init__(stream)
        self._places = places

    def persistent_id(self, obj: Any) -> Any:
        return self._places.get(id(obj))


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, find: Callable[[Any], Any]) -> None:
        super().__init__(stream)
        self._find = find

    def persistent_load(self, place: Any) -> Any:
        return self._find(place)
