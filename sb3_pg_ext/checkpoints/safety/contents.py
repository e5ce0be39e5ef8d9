"""What a model's file holds, read without running anything of it."""

import base64
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import safetensors.torch
import torch as th

from sb3_pg_ext.checkpoints.safety.archives import read_archive, read_file
from sb3_pg_ext.checkpoints.safety.decoding import PICKLED, Decoder, UnknownNameError
from sb3_pg_ext.checkpoints.safety.documents import Reader, read_arrays
from sb3_pg_ext.checkpoints.safety.names import known_classes, trusted_classes
from sb3_pg_ext.checkpoints.safety.pickles import Name, Pickle, UnsafeFileError, read_pickle

DOCUMENT, TENSORS, ARRAYS = "model.json", "tensors.safetensors", "arrays.npz"
"""The members of a file without pickles."""
MAX_DATA = 256 * 1024**2


@dataclass
class Refusal:
    """A part of a file that cannot be had.

    :param key: which part
    :param kind: what its writer said that it is
    :param names: what it would import that may not be imported
    :param reason: why it is refused
    """

    key: str
    kind: str
    names: list[str]
    reason: str

    def __str__(self) -> str:
        kind = f" ({self.kind})" if self.kind else ""
        wants = f"; it wants {', '.join(self.names)}" if self.names else ""
        return f"{self.key}{kind}: {self.reason}{wants}"


@dataclass
class Contents:
    """What a model's file holds.

    :param file: the file itself
    :param data: the attributes of the model
    :param tensors: files of PyTorch's by the names of what they are of, as they are
    :param names: what the file would import, by the part that would do so
    :param called: what of that it would call
    :param refusals: the parts that cannot be had
    :param system_info: what the file says of the system that wrote it
    :param version: and of SB3's version
    :param is_document: whether it is a file without pickles
    """

    file: bytes
    data: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, bytes] = field(default_factory=dict)
    names: dict[str, frozenset[Name]] = field(default_factory=dict)
    called: set[Name] = field(default_factory=set)
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
    members = read_archive(file)
    classes = {**known_classes(), **trusted_classes(trusted)}
    if DOCUMENT in members:
        return _read_document(file, members, classes, instead)
    if "data" not in members:
        raise UnsafeFileError(f"no model of SB3's: there is no 'data' among {sorted(members)[:5]}")
    contents = Contents(file)
    contents.system_info = members.get("system_info.txt", b"").decode(errors="replace")
    contents.version = members.get("_stable_baselines3_version", b"").decode(errors="replace").strip()
    for key, item in read_json(members["data"]).items():
        if key not in instead:
            _read_attribute(contents, key, item, classes)
    for name, content in members.items():
        if PurePosixPath(name).suffix == ".pth":
            contents.tensors[name.removesuffix(".pth")] = content
    return contents


def read_json(content: bytes) -> dict[str, Any]:
    """A JSON object.

    :raises UnsafeFileError: if it is none
    """
    if len(content) > MAX_DATA:
        raise UnsafeFileError(f"'data' has {len(content)} bytes; allowed: at most {MAX_DATA}")
    try:
        decoded = json.loads(content.decode(), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as problem:
        raise UnsafeFileError(f"'data' is no JSON: {problem}") from None
    if not isinstance(decoded, dict):
        raise UnsafeFileError("'data' is no JSON object")
    return decoded


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return found


def _read_attribute(contents: Contents, key: str, item: Any, classes: Mapping[Name, type]) -> None:
    if not (isinstance(item, dict) and PICKLED in item):
        contents.data[key] = item
        return
    kind = str(item.get(":type:", ""))[:200].removeprefix("<class '").removesuffix("'>")
    pickled: Pickle | None = None
    decoder = Decoder(classes)
    try:
        pickled = read_pickle(base64.b64decode(item[PICKLED], validate=True))
        contents.names[key] = pickled.names
        contents.called |= pickled.called
        contents.data[key] = decoder.decode(pickled.tree)
        unknown = [name for name in pickled.names if not decoder.knows(name)]
        if unknown:  # called for an effect, and left out of what is built
            del contents.data[key]
            raise UnknownNameError(unknown[0])
    except (ValueError, TypeError) as problem:
        names = sorted(str(name) for name in (pickled.names if pickled else ()) if not decoder.knows(name))
        contents.refusals.append(Refusal(key, kind, names, str(problem)))


def _read_document(
    file: bytes, members: Mapping[str, bytes], classes: Mapping[Name, type], instead: Iterable[str]
) -> Contents:
    document = read_json(members[DOCUMENT])
    if document.get("format") != 1 or not {TENSORS, ARRAYS} <= set(members):
        raise UnsafeFileError(f"{DOCUMENT} of format {document.get('format')!r}; allowed: 1")
    try:
        tensors = safetensors.torch.load(members[TENSORS])
    except (safetensors.SafetensorError, KeyError) as problem:
        raise UnsafeFileError(f"{TENSORS} is damaged: {problem}") from None
    reader = Reader(read_arrays(members[ARRAYS]), tensors)
    contents = Contents(file, is_document=True)
    contents.version = str(document.get("stable_baselines3", ""))
    contents.system_info = str(document.get("system_info", ""))
    for key, value in document.get("data", {}).items():
        if key in instead:
            continue
        try:
            contents.data[key] = Decoder(classes).decode(reader.read(value))
        except (ValueError, TypeError) as problem:
            names = [str(problem.name)] if isinstance(problem, UnknownNameError) else []
            contents.refusals.append(Refusal(key, "", names, str(problem)))
    for name, value in document.get("tensors", {}).items():
        member = io.BytesIO()
        th.save(Decoder({}).decode(reader.read(value)), member)
        contents.tensors[name] = member.getvalue()
    return contents
