"""Where the tuned hyper-parameters of an algorithm lie on the disk."""

from importlib.util import find_spec
from os.path import dirname
from pathlib import Path


def find_config(reference: str) -> Path:
    """Find the YAML file that an ``AlgorithmSpec`` names.

    :param reference: a path, or ``"package:file"`` with a file inside the package or, as in a source checkout, beside
        the package's folder
    :return: the path of an existing file
    :raises ValueError: if there is no such file
    """
    candidates = [Path(reference), *_files_of_package(*reference.partition(":")[::2])]
    for path in candidates:
        if path.is_file():
            return path
    places = ", ".join(map(str, candidates))
    raise ValueError(f"config={reference!r} is no file; allowed: a path or 'package:file'. Looked for {places}")


def _files_of_package(package: str, file: str) -> list[Path]:
    spec = find_spec(package) if file else None
    if spec is None:
        return []
    folders = [Path(folder) for folder in spec.submodule_search_locations or [dirname(spec.origin or "")]]
    return [folder / file for folder in folders] + [folder.parent / file for folder in folders]
