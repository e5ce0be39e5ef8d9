"""Looking into a model's file before loading it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from typing import Any, BinaryIO

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_pg_ext.checkpoints.safety.contents import Contents, read_contents
from sb3_pg_ext.checkpoints.safety.inference import candidates
from sb3_pg_ext.checkpoints.safety.loading import MAX_MODULES, check_attributes, check_tensors
from sb3_pg_ext.checkpoints.safety.pickles import UnsafeFileError
from sb3_pg_ext.checkpoints.safety.tensors import read_tensors

SAFE, TRUSTED, REFUSED = "safe", "safe with these names trusted", "refused"


@dataclass
class ModelReport:
    """What is found in a model's file.

    :param verdict: ``"safe"``: :func:`~sb3_pg_ext.safe_load` loads it; ``"safe with these names trusted"``: it does
        with ``trusted``; ``"refused"``: it does not
    :param trusted: the names to be trusted: classes of somebody's that the file refers to
    :param reasons: why it is not simply safe, by the part of the file
    :param algorithms: of which algorithm it may be
    :param hyperparameters: numbers, names and flags of the model
    :param observation_space: what it observes
    :param action_space: what it does
    :param parameters: shapes of tensors by name
    :param n_parameters: how many numbers the policy has
    :param imports: every name that ``load`` would import, by the part of the file that does so
    :param sb3_version: the version of SB3 that says to have written it
    :param system_info: and what it says of the system
    """

    verdict: str
    trusted: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    algorithms: list[str] = field(default_factory=list)
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    observation_space: str = ""
    action_space: str = ""
    parameters: dict[str, list[int]] = field(default_factory=dict)
    n_parameters: int = 0
    imports: dict[str, list[str]] = field(default_factory=dict)
    sb3_version: str = ""
    system_info: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it: numbers that are not finite, and objects, become texts."""
        return _plain(asdict(self))


def inspect_model(path: str | PathLike[str] | BinaryIO, trusted: Iterable[str] = ()) -> ModelReport:
    """Look into a model's file. Nothing of it is executed, whatever it holds.

    :param path: the file, with or without ``.zip``
    :param trusted: names of classes of your own that it may refer to; they are imported
    :raises FileNotFoundError: if there is no such file
    """
    try:
        contents = read_contents(path, trusted)
    except UnsafeFileError as problem:
        return ModelReport(REFUSED, reasons={"file": str(problem)})
    report = ModelReport(SAFE, sb3_version=contents.version, system_info=contents.system_info)
    report.imports = {key: sorted(map(str, names)) for key, names in contents.names.items() if names}
    report.reasons = {refusal.key: refusal.reason for refusal in contents.refusals}
    _look_at_tensors(report, contents)
    data = contents.data
    shown = {key: value for key, value in data.items() if not key.startswith("_")}
    report.hyperparameters = {key: value for key, value in shown.items() if _is_simple(value)}
    report.observation_space, report.action_space = (
        str(data[name]) if isinstance(data.get(name), spaces.Space) else ""
        for name in ("observation_space", "action_space")
    )
    found = candidates(data, report.reasons)
    report.algorithms = sorted(found)
    if found and not contents.refusals:
        _check(report, lambda: check_attributes(next(iter(found.values())), data))
    if report.reasons:
        by_trust = all(refusal.trusted for refusal in contents.refusals)
        report.verdict = TRUSTED if by_trust and len(report.reasons) == len(contents.refusals) else REFUSED
    if report.verdict == TRUSTED:
        report.trusted = sorted({name for refusal in contents.refusals for name in refusal.trusted})
    return report


def _look_at_tensors(report: ModelReport, contents: Contents) -> None:
    _check(report, lambda: check_tensors(contents))
    if len(contents.tensors) > MAX_MODULES:
        return
    for name, content in contents.tensors.items():
        try:
            read, names = read_tensors(content, contents.budget)
        except UnsafeFileError as problem:
            report.reasons[f"{name}.pth"] = str(problem)
            continue
        report.imports[f"{name}.pth"] = sorted(map(str, names))
        if isinstance(read, Mapping):
            found = {f"{name}.{key}": list(value.shape) for key, value in read.items() if isinstance(value, th.Tensor)}
            report.parameters |= found
            if name == "policy":
                report.n_parameters = int(sum(np.prod(shape, dtype=int) for shape in found.values()))


def _check(report: ModelReport, check: Any) -> None:
    try:
        check()
    except UnsafeFileError as problem:
        report.reasons["file"] = str(problem)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    is_plain = isinstance(value, bool | int | str | None) or (isinstance(value, float) and math.isfinite(value))
    return value if is_plain else str(value)


def _is_simple(value: Any) -> bool:
    return isinstance(value, bool | int | float | str | None) or (isinstance(value, dict) and "net_arch" in value)
