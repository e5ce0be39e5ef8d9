"""Which errors are the user's: these are told in one line.

An error counts as the user's only where that is certain, judged by what raised it. Seen by its type alone, a bug of an
environment or of a plug-in looks like a wrong argument, and its traceback is needed.
"""

import re
from difflib import get_close_matches
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import Any

import gymnasium as gym
import rl_zoo3
from stable_baselines3.common import base_class

import sb3_pg_ext
from sb3_pg_ext.plugins import Registry
from sb3_pg_ext.zoo.runs import find_trained

SCRIPTS = ("enjoy", "exp_manager", "load_from_hub", "push_to_hub", "record_video", "train", "utils")
"""The modules of RL Zoo that raise errors only to tell the user something."""


class UserError(Exception):
    """An error of the user, whose message says in one line what is wrong and what is allowed."""


def explain(error: Exception) -> str | None:
    """What to tell the user instead of a traceback.

    :param error: what a script of RL Zoo, or the bridge, has raised
    :return: one line; None if the error may be a bug
    """
    if isinstance(error, UserError):
        return str(error)
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    for frame in frames:
        if _is_in(frame, rl_zoo3) and frame.f_code.co_name == "__call__" and "option_string" in frame.f_locals:
            return _explain_argument(error, frame.f_locals)
    if isinstance(error, gym.error.Error) and _is_in(_last(frames, but=gym), rl_zoo3):
        return str(error)  # of a name that is not registered, or of what is not installed
    last = _last(frames, but=None)
    if isinstance(error, FileNotFoundError) and _is_in(last, rl_zoo3) and error.filename is not None:
        return _explain_missing_file(str(error.filename))
    if isinstance(error, ValueError) and last.f_code is Registry.find.__code__:
        return str(error)  # of a name, in a saved model perhaps
    if isinstance(error, ValueError) and last.f_code.co_name == "get_best_trial":  # of Optuna
        return "The search has ended before any trial was complete."
    if not _is_in(last, rl_zoo3) or Path(last.f_code.co_filename).stem not in SCRIPTS:
        return None
    if isinstance(error, ImportError | AttributeError) and "import_module" in last.f_code.co_names:
        return str(error)  # of a class, or of a package, that the user has named
    if isinstance(error, ImportError) and last.f_code.co_name == "<module>":
        return f"it cannot be loaded: {error}"  # with this version of what it imports
    if isinstance(error, KeyError) and last.f_code.co_name == "entry_point":
        return f"There is no environment {last.f_locals['env_id']}: is its package installed?"
    if not isinstance(error, AssertionError | ValueError) or not str(error):
        return None
    if last.f_code.co_name == "_preprocess_schedules":
        name = last.f_locals["key"]
        return f"{name}={last.f_locals['hyperparams'][name]!r}; allowed: a number or 'lin_<number>'"
    if last.f_code.co_name == "get_model_path":
        return str(error) + _suggest_trained(last.f_locals)
    return str(error)


def is_refused_argument(error: Exception) -> bool:
    """Whether a constructor has refused an argument: by SB3's base class, by this package, or in the same words.

    :param error: what a constructor has raised
    """
    last = _last([frame for frame, _ in walk_tb(error.__traceback__)], but=None)
    if isinstance(error, AssertionError | ValueError) and last.f_code.co_filename == base_class.__file__:
        return True  # of an action space, of the name of a policy
    if not isinstance(error, ValueError):
        return False
    in_our_words = _is_in(last, sb3_pg_ext) and re.search("allowed|requires|its parameters|provided by", str(error))
    return bool(in_our_words) or "; allowed: " in str(error) or last.f_code is Registry.find.__code__


def is_in_text(error: Exception) -> bool:
    """Whether a text that RL Zoo evaluates as Python is none, or names something that it does not know."""
    if isinstance(error, SyntaxError):
        return error.filename == "<string>"
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    return isinstance(error, NameError) and frames[-1].f_code.co_filename == "<string>"


def suggest(name: str, known: list[str] | set[str]) -> str:
    """What to append to a message about an unknown name: close ones, or else all."""
    if close := get_close_matches(name, sorted(known), n=2):
        return f"; did you mean {' or '.join(map(repr, close))}?"
    return f"; allowed: {', '.join(sorted(known))}" if known else ""


def _explain_argument(error: Exception, at: dict[str, Any]) -> str:
    """About ``-params baseline:mean``: RL Zoo evaluates what comes after the colon."""
    option, key, value = at["option_string"], at.get("key", ""), at.get("value", "")
    if not value:
        return f"{option} {key}; allowed: {key.partition('=')[0]}:value"
    hint = f"; a text needs quotes within quotes: {key}:\"'{value}'\"" if isinstance(error, NameError) else ""
    return f"{option} {key}:{value} cannot be evaluated: {error}{hint}"


def _explain_missing_file(name: str) -> str:
    folder = Path(name).parent
    there = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    close = get_close_matches(Path(name).name, there, n=1)
    return f"There is no {name}" + (f"; did you mean {folder / close[0]}?" if close else "")


def _suggest_trained(at: dict[str, Any]) -> str:
    trained = find_trained(at["folder"], at["algo"])
    return "" if at["env_name"] in trained else suggest(at["env_name"], trained).replace("allowed", "trained were")


def _last(frames: list[FrameType], but: Any) -> FrameType:
    """The innermost frame that is not of the import system, nor of a package."""
    outside = [frame for frame in frames if not _is_import(frame) and not (but and _is_in(frame, but))]
    return (outside or frames)[-1]


def _is_import(frame: FrameType) -> bool:
    """Whether a frame only imports, or looks for an attribute of a module."""
    name, code = str(frame.f_globals.get("__name__")), frame.f_code
    return name == "importlib" or code.co_filename.startswith("<frozen importlib") or code.co_name == "__getattr__"


def _is_in(frame: FrameType, package: Any) -> bool:
    return Path(package.__file__).parent in Path(frame.f_code.co_filename).parents
