"""Where the tuned hyper-parameters of an algorithm lie on the disk."""

from importlib.util import find_spec
from pathlib import Path


def find_config(reference: str) -> Path:
    """Find the file that an ``AlgorithmSpec`` names as its ``config``.

    :param reference: a path, or ``"package:file"`` for a file inside the package or, as in a source checkout, beside
        the package's folder
    :return: the path of an existing file
    :raises ValueError: if there is no such file
    """
    package, _, file = reference.partition(":")
    spec = find_spec(package) if file and package.isidentifier() else None
    folders = [Path(folder) for folder in spec.submodule_search_locations or []] if spec else []
    candidates = [Path(reference), *(place / file for folder in folders for place in (folder, folder.parent))]
    for path in candidates:
        if path.is_file():
            return path
    places = ", ".join(map(str, candidates))
    raise ValueError(f"config={reference!r}; allowed: a file, or 'package:file'. Looked for {places}")
