"""Files of PyTorch's, read without its unpickler."""

from typing import Any

from sb3_pg_ext.checkpoints.safety.archives import read_archive
from sb3_pg_ext.checkpoints.safety.decoding import Decoder, UnknownNameError
from sb3_pg_ext.checkpoints.safety.pickles import Name, UnsafeFileError, read_pickle


def read_tensors(content: bytes) -> tuple[Any, frozenset[Name]]:
    """What ``torch.save`` has written: state dictionaries, on the CPU.

    :param content: the file
    :return: tensors in dictionaries and lists, and the names that the file would import
    :raises UnsafeFileError: if there is anything but tensors, numbers and strings in it
    """
    members = read_archive(content)
    (folder,) = {name.partition("/")[0] for name in members}
    if members.get(f"{folder}/byteorder", b"little") != b"little":
        raise UnsafeFileError("its numbers are big-endian")
    prefix = f"{folder}/data/"
    memory = {name.removeprefix(prefix): part for name, part in members.items() if name.startswith(prefix)}
    pickled = read_pickle(members[f"{folder}/data.pkl"])
    decoder = Decoder({}, memory)
    for name in pickled.names:
        if not decoder.knows(name):
            raise UnknownNameError(name)
    return decoder.decode(pickled.tree), pickled.names
