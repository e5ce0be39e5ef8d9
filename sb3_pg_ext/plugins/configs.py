"""Where the tuned hyper-parameters of an algorithm lie on the disk, and what they may set."""

import inspect
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ZOO_KEYS = frozenset(
    {
        "callback",
        "env_kwargs",
        "env_wrapper",
        "frame_stack",
        "monitor_kwargs",
        "n_envs",
        "n_timesteps",
        "noise_std",
        "noise_type",
        "normalize",
        "policy",
        "vec_env_wrapper",
    }
)
"""What RL Zoo itself reads of an entry."""


VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def find_config(reference: str | os.PathLike[str]) -> Path:
    """Find a file that an ``AlgorithmSpec`` names in its ``config``.

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


def find_constructors(cls: type) -> list[Callable[..., Any]]:
    """The constructors of a class and of those from which it is derived, in the order in which they call each other."""
    return [vars(base)["__init__"] for base in inspect.getmro(cls)[:-1] if "__init__" in vars(base)]


def known_hyperparameters(cls: type) -> set[str]:
    """What an entry for an algorithm may set: the arguments of its constructor, and what RL Zoo itself reads.

    A constructor with ``**kwargs`` takes those of the next one, too. What begins with an underscore is SB3's own.

    :param cls: the class of the algorithm
    """
    taken: set[str] = set()
    for constructor in find_constructors(cls):
        _, *parameters = inspect.signature(constructor).parameters.values()
        kinds = {parameter.kind for parameter in parameters}
        taken |= {each.name for each in parameters if each.kind not in VARIADIC and not each.name.startswith("_")}
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break
    return taken | ZOO_KEYS
