"""A folder of checkpoints: each is a folder of its own, complete or not there at all; the latest two are kept.

A checkpoint is written under another name, and renamed when it is whole. Its ``record.json`` says what it is, its
``files.json`` how long its files are, with their check sums, so that one that was damaged later is noticed.
"""

import json
import os
import re
import shutil
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

KEPT = 2
FORMAT = 1
RECORD, FILES = "record.json", "files.json"
UNFINISHED = ".unfinished_"
PIECE = 1 << 20


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    found = [path for path in folder.glob("*_steps") if path.is_dir() and re.fullmatch(r"\d+_\d+_steps", path.name)]
    return sorted(found, key=_number)


def _number(path: Path) -> int:
    return int(path.name.partition("_")[0])


class Unfinished(NamedTuple):
    """A checkpoint that is being written.

    :param path: where it is now
    :param place: where it will be
    :param measures: sizes and check sums of files, by name, where they are known
    """

    path: Path
    place: Path
    measures: dict[str, list[int]]


@contextmanager
def new_checkpoint(folder: Path, num_timesteps: int, record: dict[str, Any]) -> Iterator["Unfinished"]:
    """Within the scope, files are written into an unfinished checkpoint; then it takes its name and its place.

    :param folder: the folder of checkpoints; it is made if it is not there
    :param num_timesteps: number of steps of the training
    :param record: what its record is to say beside format and steps
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(leftover)
    earlier = checkpoints(folder)
    name = f"{_number(earlier[-1]) + 1 if earlier else 1:06d}_{num_timesteps}_steps"
    path = folder / f"{UNFINISHED}{name}"
    path.mkdir()
    try:
        unfinished = Unfinished(path, folder / name, {})
        yield unfinished
        _write(path / RECORD, {"format": FORMAT, "num_timesteps": num_timesteps, **record})
        _write(path / FILES, _measure_all(path, unfinished.measures))
        for file in _files_of(path):
            _flush(file)
        os.replace(path, folder / name)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    for old in earlier[: 1 - KEPT]:
        shutil.rmtree(old)


def usable_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The latest checkpoint that is whole, and its record. Those that are damaged are passed over, with a warning.

    :param folder: a folder of checkpoints, or a checkpoint
    :raises FileNotFoundError: if there is none
    """
    found = [folder] if (folder / RECORD).is_file() else checkpoints(folder)
    for path in reversed(found):
        try:
            return path, _read_record(path)
        except (OSError, ValueError) as damage:
            warnings.warn(
                f"The checkpoint {path} is damaged and is passed over: {damage}", RuntimeWarning, stacklevel=3
            )
    damaged = f"; {len(found)} are damaged" if found else ""
    raise FileNotFoundError(f"There is no checkpoint in {folder}{damaged}")


def _read_record(path: Path) -> dict[str, Any]:
    written, found = json.loads((path / FILES).read_text(encoding="utf-8")), _measure_all(path, {})
    if damaged := sorted(name for name in written.keys() | found.keys() if written.get(name) != found.get(name)):
        raise ValueError(f"{', '.join(damaged)} not as written")
    record = json.loads((path / RECORD).read_text(encoding="utf-8"))
    if record["format"] != FORMAT:
        raise ValueError(f"it has format {record['format']}; allowed: {FORMAT}")
    return record


def _write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


def _measure_all(path: Path, known: dict[str, list[int]]) -> dict[str, list[int]]:
    names = {file.relative_to(path).as_posix(): file for file in _files_of(path) if file.name != FILES}
    return {name: known.get(name) or _measure(file) for name, file in names.items()}


def _measure(file: Path) -> list[int]:
    """Number of bytes, and their check sum."""
    size = check_sum = 0
    with file.open("rb") as stream:
        while piece := stream.read(PIECE):
            size, check_sum = size + len(piece), zlib.crc32(piece, check_sum)
    return [size, check_sum]


def _flush(file: Path) -> None:
    """See to it that the disk has it before the folder gets its name."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
