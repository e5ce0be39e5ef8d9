"""Zip files, read within limits."""

import io
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO

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


def read_archive(content: bytes) -> Mapping[str, bytes]:
    """The members of a zip file by name.

    :param content: the file
    :raises UnsafeFileError: for a damaged file, and for one with members of the same name, links, encrypted members,
        names that lead elsewhere, or more or larger members than :data:`MAX_MEMBERS`, :data:`MAX_BYTES` and
        :data:`MAX_RATIO` allow
    """
    members: dict[str, bytes] = {}
    with open_archive(content) as archive:
        for info in archive.infolist():
            with archive.open(info) as member:
                members[info.filename] = member.read(info.file_size)
                if member.read(1):
                    raise UnsafeFileError(f"{info.filename!r} is larger than it says")
    return members


@contextmanager
def open_archive(content: bytes) -> Iterator[zipfile.ZipFile]:
    """A zip file whose table of contents has nothing that :func:`read_archive` would refuse, for what is read of it."""
    with Refusing(DAMAGED), zipfile.ZipFile(io.BytesIO(content)) as archive:
        _check(archive.infolist())
        yield archive


def check_archive(content: bytes) -> None:
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
