"""Where the tuned hyper-parameters of an algorithm lie on the disk."""

import os
from importlib.util import find_spec
from pathlib import Path


def find_config(reference: str | os.PathLike[str]) -> Path:
    """Find the file that an ``AlgorithmSpec`` names as its ``config``.

    :param reference: a path, or ``"package:file"`` for a file inside the package or, as in a source checkout, beside
        the package's folder; the package may be part of another one, ``"package.part:file"``
    :return: the path of an existing file
    :raises ValueError: if there is no such file
    """
    path = os.fspath(reference)
    package, _, file = path.partition(":")
    candidates, found = [Path(path)], f"config={path!r}; allowed: a file, or 'package:file'. Looked for "
    if file and all(part.isidentifier() for part in package.split(".")):
        folders = _find_folders(package)
        if folders is None:
            found = f"config={path!r}: {package} is a module and no package, so that it has no files. Looked for "
        candidates += [place / file for folder in folders or [] for place in (folder, folder.parent)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ValueError(found + ", ".join(map(str, candidates)))


def _find_folders(package: str) -> list[Path] | None:
    """The folders of a package, none where there is no such package, and None where it is a module."""
    try:
        spec = find_spec(package)
    except ModuleNotFoundError:  # of a part of something that is not there, or is no package
        return []
    if spec is None:
        return []
    return None if spec.submodule_search_locations is None else [Path(at) for at in spec.submodule_search_locations]
