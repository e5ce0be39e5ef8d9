"""Replay buffers, in chunks: one that has not changed since the last checkpoint is not written again.

Of every array only the rows that are in use are saved. Its bytes are cut into chunks, each a file. A chunk with the
check sum that it had in the checkpoint before is a link to the file there: so a checkpoint holds everything, and costs
the time to read the buffer and to write what is new.
"""

import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer

CHUNK = 1 << 24
"""Bytes of a chunk."""
FOLDER, REST = "replay_buffer", "rest.pkl"

Measures = dict[str, list[int]]
"""By the names of files in a checkpoint, their sizes and check sums."""


class ReplayBufferWriter:
    """Writes the replay buffer of one training into its checkpoints."""

    def __init__(self) -> None:
        self._before = Path()
        self._measures: Measures = {}

    def write(self, buffer: ReplayBuffer, path: Path) -> Measures:
        """Write a replay buffer.

        :param buffer: the buffer
        :param path: a new checkpoint
        :return: sizes and check sums of the chunks
        """
        (path / FOLDER).mkdir()
        n_rows, measures = _rows_in_use(buffer), {}
        for name, array in _arrays(buffer):
            bytes_in_use = array[:n_rows].data.cast("B")
            for number, start in enumerate(range(0, len(bytes_in_use), CHUNK)):
                chunk, file = bytes_in_use[start : start + CHUNK], f"{FOLDER}/{name}_{number:05d}.bin"
                measures[file] = [len(chunk), zlib.crc32(chunk)]
                if self._measures.get(file) == measures[file]:
                    _link(self._before / file, path / file)
                else:
                    (path / file).write_bytes(chunk)
        (path / FOLDER / REST).write_bytes(cloudpickle.dumps(_rest(buffer, n_rows)))
        self._measures = measures
        return measures

    def written_to(self, path: Path) -> None:
        """Know where the checkpoint is that was just written."""
        self._before = path


def read_replay_buffer(buffer: ReplayBuffer, path: Path) -> None:
    """Fill a replay buffer that was made as the saved one was.

    :param buffer: the buffer
    :param path: a checkpoint
    """
    rest = cloudpickle.loads((path / FOLDER / REST).read_bytes())
    n_rows, objects = rest["n_rows"], rest["objects"]
    for name, array in _arrays(buffer):
        bytes_in_use = array[:n_rows].data.cast("B")
        for number, start in enumerate(range(0, len(bytes_in_use), CHUNK)):
            with (path / FOLDER / f"{name}_{number:05d}.bin").open("rb") as file:
                file.readinto(bytes_in_use[start : start + CHUNK])
    for name, rows in objects.items():
        vars(buffer)[name][:n_rows] = rows
    vars(buffer).update(rest["attributes"])


def _rows_in_use(buffer: ReplayBuffer) -> int:
    """One that saves memory has an observation more than transitions."""
    return buffer.buffer_size if buffer.full else min(buffer.pos + 1, buffer.buffer_size)


def _arrays(buffer: ReplayBuffer) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays with a row for every step, by name: numbers alone."""
    for name, value in sorted(vars(buffer).items()):
        parts = value.values() if isinstance(value, dict) else [value]
        for number, part in enumerate(parts):
            if _has_rows(part, buffer) and part.dtype != object:
                yield f"{name}_{number}", part


def _has_rows(value: Any, buffer: ReplayBuffer) -> bool:
    return isinstance(value, np.ndarray) and value.shape[:1] == (buffer.buffer_size,) and value.flags.c_contiguous


def _rest(buffer: ReplayBuffer, n_rows: int) -> dict[str, Any]:
    """Everything else: attributes, and arrays of objects."""
    kept = {id(array) for _, array in _arrays(buffer)}
    attributes, objects = {}, {}
    for name, value in vars(buffer).items():
        if name in ("env", "device", "observation_space", "action_space"):
            continue
        if {id(part) for part in (value.values() if isinstance(value, dict) else [value])} <= kept:
            continue
        if _has_rows(value, buffer):
            objects[name] = value[:n_rows]
        else:
            attributes[name] = value
    return {"n_rows": n_rows, "objects": objects, "attributes": attributes}


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # the file system has no links
        shutil.copyfile(source, target)
