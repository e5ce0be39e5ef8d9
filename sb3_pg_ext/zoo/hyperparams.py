"""Hyper-parameters as they stand in YAML, made ready for a constructor."""

import re
from collections.abc import Mapping
from inspect import get_annotations
from pkgutil import resolve_name
from typing import Any, get_args

from rl_zoo3 import exp_manager
from rl_zoo3.utils import SimpleLinearSchedule
from stable_baselines3.common.type_aliases import Schedule

from sb3_pg_ext.plugins.configs import find_constructors


def evaluate(value: Any) -> Any:
    """Evaluate a string with the names that RL Zoo's own YAML strings may use (``nn.Tanh``, …), and nothing else."""
    return eval(value, vars(exp_manager)) if isinstance(value, str) else value


EXTENDED = ("policy_kwargs", "replay_buffer_kwargs")
"""The hyper-parameters that a search extends; it replaces the others."""


def overlay(hyperparams: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Update hyper-parameters, where dictionaries of arguments are extended instead of replaced.

    :param hyperparams: what the user gave
    :param changes: what takes precedence
    """
    merged = {**hyperparams, **changes}
    for name in EXTENDED:
        if name in merged:
            given, changed = (evaluate(part.get(name)) or {} for part in (hyperparams, changes))
            merged[name] = {**given, **changed}
    return merged


def resolve_rollout_buffer(hyperparams: dict[str, Any]) -> None:
    """Turn a ``rollout_buffer_class`` given by its dotted path, and ``rollout_buffer_kwargs`` given as a string, into
    the objects that they stand for, in place.

    :raises ValueError: if the path leads to no class
    """
    path = hyperparams.get("rollout_buffer_class")
    if isinstance(path, str):
        hyperparams["rollout_buffer_class"] = _import_class("rollout_buffer_class", path)
    if "rollout_buffer_kwargs" in hyperparams:
        hyperparams["rollout_buffer_kwargs"] = evaluate(hyperparams["rollout_buffer_kwargs"])


def resolve_policy_classes(hyperparams: dict[str, Any]) -> None:
    """Turn the classes in ``policy_kwargs`` (``features_extractor_class``, …) that are given by their dotted paths into
    these classes, in place.

    :raises ValueError: if a path leads to no class
    """
    kwargs = hyperparams.get("policy_kwargs")
    if not isinstance(kwargs, dict):
        return
    paths = {name: path for name, path in kwargs.items() if name.endswith("_class") and isinstance(path, str)}
    classes = {name: _import_class(f"policy_kwargs: {name}", path) for name, path in paths.items()}
    hyperparams["policy_kwargs"] = {**kwargs, **classes}


def parse_schedules(hyperparams: dict[str, Any], cls: type) -> None:
    """Turn ``lin_0.1`` into a schedule that falls linearly from 0.1 to 0, in place, for every argument of a class that
    takes a schedule.

    :raises ValueError: if such an argument is a string of another form
    """
    for name in sorted(schedule_arguments(cls)):
        value = hyperparams.get(name)
        if not isinstance(value, str):
            continue
        kind, _, initial_value = value.partition("_")
        try:
            if kind != "lin":
                raise ValueError(kind)
            hyperparams[name] = SimpleLinearSchedule(initial_value)
        except ValueError as error:
            raise ValueError(f"{name}={value!r}; allowed: a number or 'lin_<number>'") from error


def schedule_arguments(cls: type) -> set[str]:
    """The arguments of a class, and of the classes it passes them on to, whose annotation names SB3's ``Schedule``."""
    annotations = [item for constructor in find_constructors(cls) for item in get_annotations(constructor).items()]
    return {name for name, annotation in annotations if _takes_schedule(annotation)}


def _takes_schedule(annotation: Any) -> bool:
    if isinstance(annotation, str):  # not evaluated: it may use names that exist for type checkers only
        return re.search(r"\bSchedule\b", annotation) is not None
    return Schedule in (annotation, *get_args(annotation))


def _import_class(argument: str, path: str) -> type:
    try:
        found = resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{argument}={path!r} cannot be imported ({error}); allowed: 'package.module.Class'"
        ) from error
    if not isinstance(found, type):
        raise ValueError(f"{argument}={path!r} is {found!r}; allowed: the path of a class")
    return found
