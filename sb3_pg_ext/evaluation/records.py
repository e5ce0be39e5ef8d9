"""``result.json``, the record that every run leaves: written whole or not at all, and checked when it is read."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

RESULT_FILE = "result.json"
FORMAT = 1
"""The number of the format that is written, and the highest that is read."""
STATUSES = ("finished", "failed", "interrupted")
"""A run that has begun is ``"interrupted"`` until it is known better, so that it is even after a power cut."""

Result = dict[str, Any]
"""What stands in a record; docs/sweeps.md lists the keys."""

_KINDS = {"algo": str, "setting": str, "env": str, "seed": int, "n_timesteps": int, "status": str}
"""The keys that every record has, and what they hold."""
_SERIES = {"curve": ("timesteps", "returns", "lengths"), "evaluation": ("seeds", "returns", "lengths")}
"""Keys with lists that belong together, item by item."""


class RecordError(ValueError):
    """A record that cannot be used. The message names the file and says what is wrong."""


def write_result(folder: str | os.PathLike[str], result: Mapping[str, Any]) -> None:
    """Write the record of a run, in place of an earlier one. Whoever reads meanwhile finds either of them, whole.

    :param folder: the folder of the run
    :param result: what is to be written; NumPy's numbers and arrays become JSON's, non-finite numbers ``null``, and
        objects that JSON does not know their ``repr``
    :raises ValueError: if a key is missing or holds something that does not belong there
    """
    path = Path(folder, RESULT_FILE)
    record = plain({"format": FORMAT, **result})
    _check(record, path)
    write_atomically(path, json.dumps(record, indent=1, allow_nan=False).encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, on the disk when this returns.

    :param path: the file, replaced if it is there; its folder is made if it is not
    :param content: what it is to hold
    """
    with whole_file(path) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that takes its place when the scope ends well, and is not there otherwise.

    :param path: its place; what is there is replaced, and a missing folder made
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            yield file
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def read_result(path: str | os.PathLike[str]) -> Result:
    """Read a record.

    :param path: the file, or the folder of the run
    :return: what stands in it, with keys that this version does not know
    :raises FileNotFoundError: if there is none
    :raises RecordError: if it was cut short, is of a later format, or is no record
    """
    path = Path(path)
    if path.is_dir():
        path /= RESULT_FILE
    try:
        record = json.loads(path.read_bytes())
    except ValueError as error:  # of JSON, or of an encoding
        raise RecordError(f"{path} is no JSON; was it cut short? ({error})") from error
    if not isinstance(record, dict):
        raise RecordError(f"{path} holds {type(record).__name__}; allowed: an object")
    _check(record, path)
    return record


def read_results(*folders: str | os.PathLike[str]) -> tuple[list[Result], list[str]]:
    """Read all records below some folders; one that cannot be used does not hide the others.

    :param folders: where to look, at any depth
    :return: the records, ordered by path, and a message about each one that was passed over
    """
    records, problems = [], []
    for path in sorted({path for folder in folders for path in Path(folder).rglob(RESULT_FILE)}):
        try:
            records.append(read_result(path))
        except (RecordError, OSError) as error:
            problems.append(str(error))
    return records, problems


def plain(value: Any) -> Any:
    """A value as JSON can hold it: the same value that reading the JSON gives.

    :param value: anything; what JSON does not know becomes its ``repr``
    """
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | range):
        return [plain(item) for item in (sorted(value, key=repr) if isinstance(value, set | frozenset) else value)]
    return repr(value)


def _check(record: Result, path: Path) -> None:
    number: Any = record.get("format")
    if not _is_a(number, int) or number < 1:
        raise RecordError(f"{path}: format={number!r}; allowed: an integer from 1 to {FORMAT}")
    if number > FORMAT:
        raise RecordError(f"{path} has format {number}, written by a later version; this one reads up to {FORMAT}")
    for key, kind in _KINDS.items():
        if not _is_a(record.get(key), kind):
            raise RecordError(f"{path}: {key}={record.get(key)!r}; allowed: {kind.__name__}")
    if record["status"] not in STATUSES:
        raise RecordError(f"{path}: status={record['status']!r}; allowed: {', '.join(map(repr, STATUSES))}")
    for key, names in _SERIES.items():
        _check_series(record.get(key), names, f"{path}: {key}")
    for item in _listed(record.get("evaluations"), f"{path}: evaluations"):
        if not isinstance(item, dict) or not isinstance(item.get("returns"), list):
            raise RecordError(f"{path}: evaluations holds {item!r}; allowed: objects with a list 'returns'")


def _check_series(series: Any, names: Iterable[str], where: str) -> None:
    if series is None:
        return
    if not isinstance(series, dict):
        raise RecordError(f"{where}={series!r}; allowed: an object")
    lengths = {name: len(_listed(series.get(name), f"{where}.{name}")) for name in names if name in series}
    if len(set(lengths.values())) > 1:
        raise RecordError(f"{where} holds lists of different lengths: {lengths}")


def _listed(value: Any, where: str) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise RecordError(f"{where}={value!r}; allowed: a list")
    return value or []


def _is_a(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
