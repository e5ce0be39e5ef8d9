"""Files of PyTorch's, read without its unpickler."""

from collections.abc import Iterable
from typing import Any

from sb3_pg_ext.checkpoints.safety.archives import open_archive, read_archive
from sb3_pg_ext.checkpoints.safety.decoding import Decoder, UnknownNameError
from sb3_pg_ext.checkpoints.safety.pickles import Budget, Call, Name, Refusing, UnsafeFileError, read_pickle


def check_tensors_file(content: bytes | memoryview, budget: Budget) -> list[Any]:
    """Refuse a file of PyTorch's that would import anything but what tensors need, without reading its tensors.

    :param content: the file
    :param budget: what it may still ask for
    :return: the names of what is in it
    :raises UnsafeFileError: if it would, or is damaged, or unpacks to far more
    """
    keys: list[Any] = []
    with open_archive(content) as archive:
        for info in archive.infolist():
            if info.filename.endswith("/data.pkl"):
                tree, names, _ = read_pickle(archive.read(info), budget)
                _check_names(names, Decoder({}, budget))
                keys += [key for key, _ in tree.pairs] if isinstance(tree, Call) else tree or ()
    for key in keys:
        if isinstance(key, str) and not key.isprintable():  # PyTorch's messages would print it
            raise UnsafeFileError(f"it has parameters called {key!r}")
    return keys


def _check_names(names: Iterable[Name], decoder: Decoder) -> None:
    for name in names:
        if not decoder.knows(name):
            raise UnknownNameError(name)


def read_tensors(content: bytes | memoryview, budget: Budget) -> tuple[Any, frozenset[Name]]:
    """What ``torch.save`` has written: state dictionaries, on the CPU.

    :param content: the file
    :param budget: what it may still ask for
    :return: tensors in dictionaries and lists, and the names that the file would import
    :raises UnsafeFileError: if there is anything but tensors, numbers and strings in it
    """
    members = read_archive(content)
    with Refusing("a damaged file of PyTorch's"):
        (folder,) = {name.partition("/")[0] for name in members}
        if members.get(f"{folder}/byteorder", b"little") != b"little":
            raise UnsafeFileError("its numbers are big-endian")
        prefix = f"{folder}/data/"
        memory = {name.removeprefix(prefix): part for name, part in members.items() if name.startswith(prefix)}
        pickled = read_pickle(bytes(members[f"{folder}/data.pkl"]), budget)
    decoder = Decoder({}, budget, memory)
    _check_names(pickled.names, decoder)
    return decoder.decode(pickled.tree), pickled.names
