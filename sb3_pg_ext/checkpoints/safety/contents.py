"""What a model's file holds, read without running anything of it."""

import base64
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import safetensors.torch
import torch as th

from sb3_pg_ext.checkpoints.safety.archives import read_archive, read_file
from sb3_pg_ext.checkpoints.safety.decoding import PICKLED, Decoder, UnknownNameError
from sb3_pg_ext.checkpoints.safety.documents import CLASS, Reader, name_of, read_arrays
from sb3_pg_ext.checkpoints.safety.names import known_classes, trusted_classes
from sb3_pg_ext.checkpoints.safety.pickles import (
    Budget,
    Name,
    Pickle,
    Refusing,
    UnsafeFileError,
    printable,
    read_pickle,
)

DOCUMENT, TENSORS, ARRAYS = "model.json", "tensors.safetensors", "arrays.npz"
"""The members of a file without pickles."""
VERSION = "_stable_baselines3_version"
PROTO = b"\x80"
"""With which pickles begin."""
MAX_DATA = 256 * 1024**2
MAX_JSON_DEPTH = 100
MAX_TENSORS_HEADER = 4 * 1024**2
MADE_OF = {"lr_schedule": "learning_rate"}
"""Of which attribute each model makes another anew."""
OF_THE_ENVIRONMENT = ("observation_space", "action_space")


@dataclass
class Refusal:
    """A part of a file that cannot be had.

    :param key: which part
    :param kind: what its writer said that it is
    :param names: what it would import that may not be imported
    :param reason: why it is refused
    :param trusted: of the names those of classes with which, if they are trusted, it can be had
    """

    key: str
    kind: str
    names: list[str]
    reason: str
    trusted: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kind = f" ({self.kind})" if self.kind else ""
        others = [name for name in self.names if name not in self.reason]
        return f"{self.key}{kind}: {self.reason}" + (f"; it wants {', '.join(others)}" if others else "")

    @property
    def supply(self) -> str:
        """The argument with which something else is taken instead."""
        return f"custom_objects={{{MADE_OF.get(self.key, self.key)!r}: …}}"

    @property
    def trust(self) -> str:
        """The argument with which it can be had, if its classes are known to be good."""
        return f"trusted={self.trusted}, if you know {'it' if len(self.trusted) == 1 else 'them'}"


@dataclass
class Contents:
    """What a model's file holds.

    :param file: the file itself
    :param data: the attributes of the model
    :param tensors: files of PyTorch's by the names of what they are of, as they are
    :param names: what the file would import, by the part that would do so
    :param refusals: the parts that cannot be had
    :param system_info: what the file says of the system that wrote it
    :param version: and of SB3's version
    :param is_document: whether it is a file without pickles
    :param budget: what it may still ask for
    """

    file: bytes
    budget: Budget
    data: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, bytes | memoryview] = field(default_factory=dict)
    names: dict[str, frozenset[Name]] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    system_info: str = ""
    version: str = ""
    is_document: bool = False


def read_contents(
    path: str | PathLike[str] | BinaryIO, trusted: Iterable[str] = (), instead: Iterable[str] = ()
) -> Contents:
    """Read a model's file.

    :param path: where it is
    :param trusted: names of classes, beyond those that are known, that it may refer to
    :param instead: attributes that are not looked at, since there is something else for them
    :raises UnsafeFileError: for a file that is no model of SB3's, or damaged, or too large. What single parts of it
        want is found among its ``refusals``
    """
    file = read_file(path)
    if file[:1] == PROTO:
        raise UnsafeFileError(
            "a pickle, and no model; statistics are read by safe_load_normalization, replay buffers by "
            "safe_load_replay_buffer"
        )
    members = read_archive(file)
    classes = {**known_classes(), **trusted_classes(trusted)}
    contents = Contents(file, Budget.of_file(len(file), sum(map(len, members.values()))))
    if DOCUMENT in members:
        _read_document(contents, members, classes, instead)
        return contents
    if "data" not in members:
        raise UnsafeFileError(f"no model of SB3's: there is no 'data' among {sorted(members)[:5]}")
    contents.system_info, contents.version = (
        bytes(members.get(name, b"")).decode(errors="replace") for name in ("system_info.txt", VERSION)
    )
    for key, item in read_json(bytes(members["data"]), contents.budget).items():
        if key not in instead:
            _read_attribute(contents, key, item, classes)
    for name, content in members.items():
        if PurePosixPath(name).suffix == ".pth":
            contents.tensors[name.removesuffix(".pth")] = content
    return contents


def read_json(content: bytes, budget: Budget) -> dict[str, Any]:
    """A JSON object.

    :param content: its text
    :param budget: what its file may still ask for
    :raises UnsafeFileError: if it is none, or too large
    """
    if len(content) > MAX_DATA:
        raise UnsafeFileError(f"'data' has {len(content)} bytes; allowed: at most {MAX_DATA}")
    budget.spend(sum(map(content.count, (b",", b"[", b"{"))))
    with Refusing("'data' is no JSON"):
        decoded = json.loads(content.decode(), object_pairs_hook=_distinct)
    if not isinstance(decoded, dict):
        raise UnsafeFileError("'data' is no JSON object")
    _check_depth(decoded, MAX_JSON_DEPTH)
    return decoded


def _check_depth(value: dict[str, Any] | list[Any], left: int) -> None:
    if left == 0:
        raise UnsafeFileError("'data' is nested too deeply")
    for part in value.values() if isinstance(value, dict) else value:
        if isinstance(part, dict | list):
            _check_depth(part, left - 1)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return found


def _read_attribute(contents: Contents, key: str, item: Any, classes: Mapping[Name, type]) -> None:
    if not (isinstance(item, dict) and PICKLED in item):
        contents.data[key] = item
        return
    kind = printable(str(item.get(":type:", ""))[:200].removeprefix("<class '").removesuffix("'>"))
    pickled: Pickle | None = None
    decoder = Decoder(classes, contents.budget)
    try:
        pickled = read_pickle(base64.b64decode(item[PICKLED], validate=True), contents.budget)
        contents.names[key] = pickled.names
        contents.data[key] = decoder.decode(pickled.tree)
        unknown = [name for name in pickled.names if not decoder.knows(name)]
        if unknown:  # called for an effect, and left out of what is built
            del contents.data[key]
            raise UnknownNameError(unknown[0])
    except (ValueError, TypeError) as problem:
        unknown = [name for name in (pickled.names if pickled else ()) if not decoder.knows(name)]
        wanted = {*unknown, problem.name} if isinstance(problem, UnknownNameError) else {*unknown}
        is_called = pickled is None or not pickled.called.isdisjoint(wanted)
        contents.refusals.append(_refusal(key, kind, wanted, problem, [] if is_called else unknown))


def _refusal(key: str, kind: str, names: Iterable[Name], problem: Exception, trusted: Iterable[Name]) -> Refusal:
    named, known = (sorted(printable(name) for name in part) for part in (names, trusted))
    return Refusal(printable(key[:200]), kind, named, str(problem), known)


def _read_document(
    contents: Contents, members: Mapping[str, memoryview], classes: Mapping[Name, type], instead: Iterable[str]
) -> None:
    document = read_json(bytes(members[DOCUMENT]), contents.budget)
    if document.get("format") != 1 or not {TENSORS, ARRAYS} <= set(members):
        raise UnsafeFileError(f"{DOCUMENT} of format {document.get('format')!r}; allowed: 1")
    attributes, of_modules = (document.get(part, {}) for part in ("data", "tensors"))
    if not (isinstance(attributes, dict) and isinstance(of_modules, dict)):
        raise UnsafeFileError(f"{DOCUMENT} has lists where mappings are expected")
    if int.from_bytes(members[TENSORS][:8], "little") > MAX_TENSORS_HEADER:
        raise UnsafeFileError(f"{TENSORS} has too long a header")
    with Refusing(f"{TENSORS} is damaged"):
        tensors = safetensors.torch.load(bytes(members[TENSORS]))
    reader = Reader(read_arrays(read_archive(members[ARRAYS])), tensors)
    contents.is_document = True
    contents.version = str(document.get("stable_baselines3", ""))
    contents.system_info = str(document.get("system_info", ""))
    for key, value in attributes.items():
        if key in instead:
            continue
        try:
            contents.data[key] = Decoder(classes, contents.budget).decode(reader.read(value))
        except (ValueError, TypeError) as problem:
            named = [problem.name] if isinstance(problem, UnknownNameError) else []
            unknown = [name for name in _classes_of(value) if name not in classes]
            contents.refusals.append(_refusal(key, "", named, problem, unknown if {*named} <= {*unknown} else []))
    for name, value in of_modules.items():
        member = io.BytesIO()
        with Refusing(f"the parameters {name!r}"):
            th.save(Decoder({}, contents.budget).decode(reader.read(value)), member)
        contents.tensors[name] = member.getvalue()


def _classes_of(value: Any) -> Iterator[Name]:
    """The classes that a part of a document refers to."""
    if isinstance(value, dict) and isinstance(value.get(CLASS), str):
        yield name_of(value[CLASS])
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _classes_of(part)
