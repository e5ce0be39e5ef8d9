"""Zip files, read within limits."""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from sb3_pg_ext.checkpoints.safety.pickles import Refusing, UnsafeFileError

MAX_MEMBERS = 10_000
MAX_BYTES = 2 * 1024**3
MAX_RATIO = 200
"""So much larger than it is compressed a member may be. Weights compress by a few per cent, JSON by a factor of ten."""


DAMAGED = "no zip file, or a damaged one"


def read_file(path: str | PathLike[str] | BinaryIO, suffix: str = ".zip") -> bytes:
    """A whole file, so that what is looked at is what is loaded.

    :param path: where it is, with or without its suffix as in SB3; or an open file
    :param suffix: the suffix
    :raises FileNotFoundError: if it is not there
    :raises UnsafeFileError: if it is larger than :data:`MAX_BYTES`
    """
    if not isinstance(path, str | PathLike):
        if path.seekable():  # as SB3 does, which looks for the end of the zip file
            path.seek(0)
        content = path.read(MAX_BYTES + 1)
    else:
        file = Path(path)
        if not file.exists() and file.suffix != suffix:
            file = Path(f"{file}{suffix}")
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UnsafeFileError(f"a file of more than {MAX_BYTES} bytes")
    return content


class Window(io.RawIOBase):
    """A file of what lies in memory, without a copy of it.

    :param content: what lies there
    """

    def __init__(self, content: bytes | memoryview) -> None:
        self._content = memoryview(content)
        self._at = 0

    def readable(self) -> bool:
        """That it is."""
        return True

    def seekable(self) -> bool:
        """That it is."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go somewhere else."""
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._content)}[whence]
        if at < 0:
            raise OSError(f"before the beginning: {at}")
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        """Read what there is, at most as much as is asked for."""
        part = self._content[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


def read_archive(content: bytes | memoryview) -> Mapping[str, memoryview]:
    """The members of a zip file by name; those that are not compressed lie within the file, and are no copies.

    :param content: the file
    :raises UnsafeFileError: for a damaged file, and for one with members of the same name, links, encrypted members,
        names that lead elsewhere, or more or larger members than :data:`MAX_MEMBERS`, :data:`MAX_BYTES` and
        :data:`MAX_RATIO` allow
    """
    with open_archive(content) as archive:
        return {info.filename: _read_member(archive, info, memoryview(content)) for info in archive.infolist()}


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, content: memoryview) -> memoryview:
    with archive.open(info) as member:  # which compares the two headers
        if info.compress_type == zipfile.ZIP_STORED:
            start = info.header_offset + LOCAL_HEADER + sum(LENGTHS.unpack_from(content, info.header_offset + 26))
            read = content[start : start + info.compress_size]
            if zlib.crc32(read) != info.CRC:
                raise UnsafeFileError(f"{info.filename!r} is damaged")
        else:
            read = memoryview(member.read(info.file_size))
            if member.read(1):
                raise UnsafeFileError(f"{info.filename!r} is larger than it says")
    if len(read) != info.file_size:
        raise UnsafeFileError(f"{info.filename!r} has another size than it says")
    return read


LOCAL_HEADER, LENGTHS = 30, struct.Struct("<HH")
"""In front of each member: so many bytes, then its name and more, whose lengths stand at byte 26."""


@contextmanager
def open_archive(content: bytes | memoryview) -> Iterator[zipfile.ZipFile]:
    """A zip file whose table of contents has nothing that :func:`read_archive` would refuse, for what is read of it."""
    with Refusing(DAMAGED), zipfile.ZipFile(Window(content)) as archive:
        _check(archive.infolist())
        yield archive


def check_archive(content: bytes | memoryview) -> None:
    """Refuse what :func:`read_archive` would refuse by its table of contents, without reading it."""
    with open_archive(content):
        pass


def _check(infos: list[zipfile.ZipInfo]) -> None:
    if len(infos) > MAX_MEMBERS:
        raise UnsafeFileError(f"{len(infos)} members; allowed: at most {MAX_MEMBERS}")
    total = sum(info.file_size for info in infos)
    if total > MAX_BYTES:
        raise UnsafeFileError(f"{total} bytes when unpacked; allowed: at most {MAX_BYTES}")
    names = set()
    for info in infos:
        name = info.filename
        if name in names:
            raise UnsafeFileError(f"two members are called {name!r}")
        names.add(name)
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or ".." in parts or "\0" in info.orig_filename or ":" in parts[0]:
            raise UnsafeFileError(f"a member is called {name!r}, which leads out of the file")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise UnsafeFileError(f"{name!r} is a link")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnsafeFileError(f"{name!r} is compressed in another way than SB3, PyTorch and NumPy do it")
        if info.flag_bits & 1:
            raise UnsafeFileError(f"{name!r} is encrypted")
        if info.file_size > 1024**2 and info.file_size > MAX_RATIO * max(info.compress_size, 1):
            raise UnsafeFileError(f"{name!r} unpacks to more than {MAX_RATIO} times its size")
