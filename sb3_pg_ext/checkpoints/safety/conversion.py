"""Models without pickles: JSON and safetensors in a zip file, and back to what SB3 reads."""

import io
import json
import pickle
import zipfile
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import save_to_zip_file
from stable_baselines3.common.vec_env import VecNormalize

from sb3_pg_ext.checkpoints.safety.archives import read_file
from sb3_pg_ext.checkpoints.safety.contents import ARRAYS, DOCUMENT, TENSORS, Contents, Refusal, read_contents
from sb3_pg_ext.checkpoints.safety.documents import Writer
from sb3_pg_ext.checkpoints.safety.loading import VARIABLES, RefusedPartsError
from sb3_pg_ext.checkpoints.safety.objects import object_of, read_object, write_object
from sb3_pg_ext.checkpoints.safety.tensors import read_tensors

FORMAT = 1


def safe_save(model: BaseAlgorithm, path: str | PathLike[str], trusted: Iterable[str] = ()) -> None:
    """Save a model without pickles. :func:`~sb3_pg_ext.safe_load` loads it, :func:`convert` makes SB3's file of it.

    What it holds is what ``model.save`` writes: as JSON, with tensors in the format of safetensors.

    :param model: the model
    :param path: where to; ``.zip`` is added where there is no suffix
    :param trusted: names of classes of your own that it refers to
    :raises UnsafeFileError: if the model holds something that cannot be written without a pickle: a function as a
        schedule, a class that is not named in ``trusted``. The message says what
    """
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    contents = read_contents(file, trusted)
    if contents.refusals:
        raise RefusedPartsError(contents.refusals, _how_to_save)
    _write(contents, _with_suffix(path))


def _how_to_save(refusal: Refusal) -> str:
    return f"give {refusal.trust}" if refusal.trusted else f"set model.{refusal.key} to something else"


def convert(source: str | PathLike[str], target: str | PathLike[str], trusted: Iterable[str] = ()) -> None:
    """Convert a file without running anything of it: to one without pickles; and one without pickles back to SB3's.

    Of a model, with ``.zip``; of statistics of ``VecNormalize`` or a replay buffer, ``.pkl`` to ``.npz`` and back.

    :param source: the file
    :param target: where to
    :param trusted: names of classes of your own that it may refer to; they are imported
    :raises FileNotFoundError: if there is no such file
    :raises UnsafeFileError: if it wants what it may not have
    """
    content = read_file(source)
    if content[:2] != b"PK" or Path(source).suffix == ".npz":
        name, state = read_object(source, list(trusted))
        if content[:2] == b"PK":
            _pickle(name, state, target, list(trusted))
        else:
            write_object(name, state, target)
        return
    contents = read_contents(io.BytesIO(content), trusted)
    if contents.refusals:
        raise RefusedPartsError(contents.refusals, _how_to_convert)
    if contents.is_document:
        save_to_zip_file(_with_suffix(target), contents.data, *_tensors(contents))
    else:
        _write(contents, _with_suffix(target))


def _how_to_convert(refusal: Refusal) -> str:
    load = f"load it by safe_load with {refusal.supply}, and save that by safe_save"
    if not refusal.trusted:
        return load
    return f"give {refusal.trust} ({' '.join(f'--trusted {name}' for name in refusal.trusted)}), or {load}"


def _write(contents: Contents, path: Path) -> None:
    writer = Writer()
    document = {
        "format": FORMAT,
        "data": {key: writer.write(value, f"data.{key}") for key, value in contents.data.items()},
        "tensors": {
            name: writer.write(read_tensors(content, contents.budget)[0], name)
            for name, content in contents.tensors.items()
        },
        "stable_baselines3": contents.version,
        "system_info": contents.system_info,
    }
    arrays = io.BytesIO()
    np.savez(arrays, **writer.arrays)  # type: ignore[arg-type]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(DOCUMENT, json.dumps(document, indent=1))
        archive.writestr(TENSORS, safetensors.torch.save(writer.tensors))
        archive.writestr(ARRAYS, arrays.getvalue())


def _tensors(contents: Contents) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """State dictionaries, and variables that belong to no module."""
    read = {name: read_tensors(content, contents.budget)[0] for name, content in contents.tensors.items()}
    variables = next((read.pop(name) for name in VARIABLES if name in read), None)
    return read, variables


def _pickle(name: Any, state: dict[str, Any], target: str | PathLike[str], trusted: list[str]) -> None:
    made = object_of(name, state, trusted)
    if isinstance(made, VecNormalize):  # which leaves out of its pickle what it has only around an environment
        vars(made).update(class_attributes={}, returns=np.zeros(0))
    with Path(target).open("wb") as file:
        pickle.dump(made, file, protocol=pickle.HIGHEST_PROTOCOL)


def _with_suffix(path: str | PathLike[str]) -> Path:
    path = Path(path)
    return path if path.suffix else Path(f"{path}.zip")
