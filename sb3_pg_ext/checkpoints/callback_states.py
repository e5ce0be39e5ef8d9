"""What callbacks remember, found again by class and order."""

import inspect
from collections import Counter
from typing import Any

import cloudpickle
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv

from sb3_pg_ext.checkpoints import environments

GIVEN = frozenset({"model", "locals", "globals", "parent"})
"""Attributes that a training gives to a callback."""

Settings = dict[int, dict[str, bytes]]
"""By the identity of a callback, its attributes that are named like arguments of its constructor, pickled."""


def all_callbacks(callback: BaseCallback | None) -> list[BaseCallback]:
    """A callback, and those that it calls, in order; but lists of them, which remember nothing."""
    found: dict[int, BaseCallback] = {}

    def visit(each: BaseCallback) -> None:
        if id(each) in found:
            return
        found[id(each)] = each
        for name, value in vars(each).items():
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, BaseCallback) and name != "parent":
                    visit(child)

    if callback is not None:
        visit(callback)
    return [each for each in found.values() if type(each) is not CallbackList]


def note(callback: BaseCallback | None, settings: Settings) -> list[dict[str, Any]]:
    """What a callback, and those that it calls, remember.

    A callback with ``state_dict()`` and ``load_state_dict(state)`` says itself what that is. Of others it is every
    attribute that can be pickled, and where environments stand. Attributes named like an argument of the constructor
    are settings, and are left out, unless they have changed since the training began.

    :param callback: the callback
    :param settings: what :func:`settings_of` gave when the training began
    :return: of each its class, its state, and the names of what could not be pickled
    """
    return [{"class": _class_of(each), **_state_of(each, settings)} for each in all_callbacks(callback)]


def put_back(callback: BaseCallback | None, noted: list[dict[str, Any]]) -> None:
    """Let callbacks remember what others did: the n-th of a class what the n-th of that class did."""
    seen: Counter[str] = Counter()
    for each in all_callbacks(callback):
        name = _class_of(each)
        of_its_class = [state for state in noted if state["class"] == name]
        if seen[name] < len(of_its_class):
            _remember(each, of_its_class[seen[name]])
        seen[name] += 1


def settings_of(callback: BaseCallback | None) -> Settings:
    """The settings of a callback, and of those that it calls."""
    return {
        id(each): {name: pickled for name in _arguments(each) if (pickled := _pickle(vars(each).get(name)))}
        for each in all_callbacks(callback)
    }


def _state_of(callback: BaseCallback, settings: Settings) -> dict[str, Any]:
    if _has_its_own(callback):
        return {"own": cloudpickle.dumps(callback.state_dict()), "left_out": []}  # type: ignore[attr-defined]
    attributes, envs, left_out, arguments = {}, {}, [], _arguments(callback)
    for name, value in vars(callback).items():
        if name in GIVEN or _is_apart(value):
            continue
        if isinstance(value, VecEnv):
            envs[name] = environments.note(value)
            continue
        pickled = _pickle(value)
        if name in arguments and settings.get(id(callback), {}).get(name) in (pickled, None):
            continue
        if pickled is None:
            left_out.append(name)
        else:
            attributes[name] = pickled
    return {"attributes": attributes, "envs": envs, "left_out": left_out}


def _remember(callback: BaseCallback, state: dict[str, Any]) -> None:
    if _has_its_own(callback) and "own" in state:
        callback.load_state_dict(cloudpickle.loads(state["own"]))  # type: ignore[attr-defined]
        return
    for name, pickled in state.get("attributes", {}).items():
        setattr(callback, name, cloudpickle.loads(pickled))
    for name, noted in state.get("envs", {}).items():
        env = vars(callback).get(name)
        if isinstance(env, VecEnv):
            environments.put_back(env, noted)


def _has_its_own(callback: BaseCallback) -> bool:
    return hasattr(callback, "state_dict") and hasattr(callback, "load_state_dict")


def _is_apart(value: Any) -> bool:
    """Whether a value is a part of the training that is saved elsewhere."""
    of_list = value[0] if isinstance(value, list) and value else value
    return isinstance(of_list, BaseCallback | BaseAlgorithm | Logger)


def _arguments(callback: BaseCallback) -> set[str]:
    return set(inspect.signature(type(callback)).parameters)


def _class_of(callback: BaseCallback) -> str:
    return f"{type(callback).__module__}.{type(callback).__qualname__}"


def _pickle(value: Any) -> bytes | None:
    try:
        return cloudpickle.dumps(value)
    except Exception:  # whatever a class makes of being pickled
        return None
