"""Trees as JSON, with arrays and tensors beside it: what a pickle would build, in a form that anybody can read."""

import base64
import io
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import cloudpickle
import numpy as np
import torch as th

from sb3_pg_ext.checkpoints.safety.decoding import Decoder
from sb3_pg_ext.checkpoints.safety.pickles import Budget, Call, Name, Refusing, UnsafeFileError, read_pickle

CLASS = "$class"
"""The key under which the name of a class stands."""
LONGEST_LIST = 64
"""Arrays of more numbers than this stand beside the JSON."""


def _free(place: str, taken: Mapping[str, Any]) -> str:
    """A name like this one that is not taken: ``a.b`` may be a key, and one of a dictionary in another."""
    return next(name for name in (place, *(f"{place}~{n}" for n in range(len(taken)))) if name not in taken)


def _unlimited() -> Budget:
    """For what is written here."""
    return Budget(*[2**62] * 3)


class Writer:
    """Writes objects that have been decoded, and collects their arrays and tensors."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.tensors: dict[str, th.Tensor] = {}
        self._places: dict[Any, tuple[str, th.Tensor]] = {}

    def write(self, value: Any, place: str) -> Any:
        """An object, as JSON can hold it.

        :param value: the object; one that the decoder has made
        :param place: a name for where it stands, from which the names of its arrays are made
        """
        match value:
            case None | bool() | str():
                return value
            case int() | float() if type(value) in (int, float):
                return value if isinstance(value, int) or math.isfinite(value) else {"$float": str(value)}
            case bytes() | bytearray():
                return {f"${type(value).__name__}": base64.b64encode(value).decode()}
            case th.Tensor():
                return self._tensor(value, place)
            case np.ndarray() if value.dtype.kind in "biufc":
                return self._array(value, place)
            case np.ndarray() if value.dtype.kind == "O":
                return self._infos(value, place)
            case np.generic():
                return {"$number": value.dtype.str, "value": self.write(value.item(), place)}
            case np.dtype():
                return {"$dtype": value.str}
            case OrderedDict():
                pairs = [[self.write(k, place), self.write(v, f"{place}.{k}")] for k, v in value.items()]
                metadata = getattr(value, "_metadata", None)
                return {"$ordered": pairs} | ({} if metadata is None else {"metadata": self.write(metadata, place)})
            case dict():
                if all(isinstance(key, str) and not key.startswith("$") for key in value):
                    return {key: self.write(item, f"{place}.{key}") for key, item in value.items()}
                return {"$dict": [[self.write(k, place), self.write(v, f"{place}.{k}")] for k, v in value.items()]}
            case list():
                return [self.write(item, f"{place}.{index}") for index, item in enumerate(value)]
            case tuple() | set() | frozenset() if type(value) in (tuple, set, frozenset):
                items = [self.write(item, f"{place}.{index}") for index, item in enumerate(value)]
                return {f"${type(value).__name__}": items}
            case Name():
                return {CLASS: str(value)}
            case Call():
                parts = {"args": value.args, "kwargs": value.kwargs, "state": value.state}
                parts |= {"items": value.items, "pairs": value.pairs}
                kept = {name: part for name, part in parts.items() if part}
                return {"$object": str(value.function), "new": value.new} | {
                    name: self.write(part, f"{place}.{name}" if name != "state" else place)
                    for name, part in kept.items()
                }
        return self.write(self._without_numpy(read_pickle(cloudpickle.dumps(value), _unlimited()).tree), place)

    def _without_numpy(self, tree: Any) -> Any:
        """Arrays, numbers and types instead of the calls that NumPy would make them by."""
        if isinstance(tree, Call):
            if str(tree.function).startswith(NUMPY):
                return Decoder({}, _unlimited()).decode(tree)
            tree.args = tuple(map(self._without_numpy, tree.args))
            tree.state, tree.items = self._without_numpy(tree.state), list(map(self._without_numpy, tree.items))
        elif isinstance(tree, dict):
            return {key: self._without_numpy(item) for key, item in tree.items()}
        elif type(tree) in (list, tuple):
            return type(tree)(map(self._without_numpy, tree))
        return tree

    def _array(self, value: np.ndarray, place: str) -> dict[str, Any]:
        if value.size <= LONGEST_LIST and value.dtype.kind != "c":
            numbers = [self.write(number, place) for number in value.ravel().tolist()]
            return {"$array": value.dtype.str, "shape": list(value.shape), "numbers": numbers}
        place = _free(place, self.arrays)
        self.arrays[place] = value
        return {"$array": place}

    def _infos(self, value: np.ndarray, place: str) -> dict[str, Any]:
        """An array of dictionaries, of which most often all are empty."""
        items = value.ravel().tolist()
        written = [self.write(item, f"{place}.{index}") for index, item in enumerate(items)] if any(items) else []
        return {"$infos": written, "shape": list(value.shape)}

    def _tensor(self, value: th.Tensor, place: str) -> dict[str, Any]:
        same = (value.data_ptr(), value.shape, value.stride(), value.dtype) if value.numel() else value
        if same not in self._places:
            place = _free(place, self.tensors)
            self._places[same] = place, value  # held, lest another come to lie in its memory
            self.tensors[place] = value.detach().contiguous().clone()
        place, _ = self._places[same]
        kind = "$parameter" if isinstance(value, th.nn.Parameter) else "$tensor"
        return {kind: place} | ({"requires_grad": True} if value.requires_grad else {})


NUMPY = ("numpy.dtype", "numpy._core.", "numpy.core.")


class Reader:
    """Reads what :class:`Writer` writes: trees for the decoder.

    :param arrays: the arrays beside the JSON
    :param tensors: the tensors beside it
    """

    def __init__(self, arrays: Any, tensors: Any) -> None:
        self._arrays, self._tensors = arrays, tensors

    def read(self, value: Any, depth: int = 0) -> Any:
        """The tree of a JSON value.

        :raises UnsafeFileError: if it is none that is written
        """
        if depth > 100:
            raise UnsafeFileError("it is nested too deeply")

        def read(part: Any) -> Any:
            return self.read(part, depth + 1)

        if isinstance(value, list):
            return [read(item) for item in value]
        if not isinstance(value, dict):
            return value
        kind = next((key for key in value if key.startswith("$")), None)
        if kind is None:
            return {key: read(item) for key, item in value.items()}
        if kind not in READERS:
            raise UnsafeFileError(f"it holds a {kind!r}")
        with Refusing("a damaged document"):
            return READERS[kind](self, value[kind], value, read)

    def array(self, place: str, more: dict[str, Any], read: Callable[[Any], Any]) -> np.ndarray:
        """An array of numbers, from the JSON or from beside it."""
        if "numbers" in more:
            return np.array([read(number) for number in more["numbers"]], numbers_type(place)).reshape(more["shape"])
        return self._arrays[place]

    def tensor(self, place: str, more: dict[str, Any]) -> th.Tensor:
        """A tensor from beside the JSON."""
        tensor = self._tensors[place]
        return tensor.requires_grad_() if more.get("requires_grad") else tensor


def read_arrays(members: Mapping[str, memoryview]) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz``.

    :param members: what is in it
    :raises UnsafeFileError: for a damaged file, and for arrays of anything but numbers and texts
    """
    arrays = {}
    for name, member in members.items():
        with Refusing(repr(name)):
            array = np.lib.format.read_array(io.BytesIO(member), allow_pickle=False)
        if array.dtype.kind not in "biufcU":
            raise UnsafeFileError(f"{name!r}: an array of {array.dtype}")
        arrays[name.removesuffix(".npy")] = array
    return arrays


def numbers_type(code: Any) -> np.dtype:
    """A type of numbers.

    :raises UnsafeFileError: for a type of anything else
    """
    if not isinstance(code, str) or len(code) > 8:
        raise UnsafeFileError(f"an array of {code!r}")
    dtype = np.dtype(code)
    if dtype.kind not in "biufc":
        raise UnsafeFileError(f"an array of {dtype}")
    return dtype


def name_of(text: str) -> Name:
    """The name that :class:`Writer` has written."""
    module, _, name = text.rpartition(".")
    return Name(module, name)


def _ordered(pairs: Any, more: dict[str, Any], read: Callable[[Any], Any]) -> Call:
    made = Call(Name("collections", "OrderedDict"), (), pairs=[(read(key), read(item)) for key, item in pairs])
    made.state = {"_metadata": read(more["metadata"])} if "metadata" in more else None
    return made


MAX_INFOS = 2_000_000


def _infos(items: Any, more: dict[str, Any], read: Callable[[Any], Any]) -> Call:
    """The call by which NumPy makes the array."""
    shape = tuple(more["shape"])
    if math.prod(shape) > MAX_INFOS:
        raise UnsafeFileError(f"{math.prod(shape)} infos; allowed: at most {MAX_INFOS}")
    content = [read(item) for item in items] or [{} for _ in range(math.prod(shape))]
    dtype = Call(Name("numpy", "dtype"), ("O8",))
    return Call(Name("numpy._core.multiarray", "_reconstruct"), (), state=(1, shape, dtype, False, content))


def _object(name: str, more: dict[str, Any], read: Callable[[Any], Any]) -> Call:
    parts = {part: read(more[part]) for part in ("args", "kwargs", "state", "items", "pairs") if part in more}
    parts["args"] = tuple(parts.get("args", ()))
    return Call(name_of(name), new=bool(more.get("new")), **parts)


READERS: dict[str, Callable[[Reader, Any, dict[str, Any], Callable[[Any], Any]], Any]] = {
    "$float": lambda reader, value, more, read: float(value),
    "$bytes": lambda reader, value, more, read: base64.b64decode(value),
    "$bytearray": lambda reader, value, more, read: bytearray(base64.b64decode(value)),
    "$array": lambda reader, value, more, read: reader.array(value, more, read),
    "$infos": lambda reader, value, more, read: _infos(value, more, read),
    "$number": lambda reader, value, more, read: numbers_type(value).type(read(more["value"])),
    "$dtype": lambda reader, value, more, read: numbers_type(value),
    "$ordered": lambda reader, value, more, read: _ordered(value, more, read),
    "$dict": lambda reader, value, more, read: {read(key): read(item) for key, item in value},
    "$tuple": lambda reader, value, more, read: tuple(map(read, value)),
    "$set": lambda reader, value, more, read: set(map(read, value)),
    "$frozenset": lambda reader, value, more, read: frozenset(map(read, value)),
    CLASS: lambda reader, value, more, read: name_of(value),
    "$object": lambda reader, value, more, read: _object(value, more, read),
    "$tensor": lambda reader, value, more, read: reader.tensor(value, more),
    "$parameter": lambda reader, value, more, read: th.nn.Parameter(
        reader.tensor(value, {}), bool(more.get("requires_grad"))
    ),
}
