"""Runs from elsewhere: RL Zoo's scripts play them without running what strangers have written.

RL Zoo reads a run's YAML with a loader that calls what the file names, evaluates strings of it as Python, and unpickles
models and statistics. In a folder that ``sb3-pg load_from_hub`` has made, nothing of that happens: YAML holds data,
strings are literals, models are loaded by :func:`~sb3_pg_ext.safe_load`, wrappers are known ones.
"""

import ast
import io
import os
import re
import runpy
import shutil
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from rl_zoo3 import utils
from rl_zoo3.utils import ALGOS
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from sb3_pg_ext.checkpoints import UnsafeFileError, safe_load, safe_load_normalization, safe_load_replay_buffer
from sb3_pg_ext.checkpoints.safety.archives import check_archive, read_file
from sb3_pg_ext.checkpoints.safety.loading import MAX_LISTED, RefusedPartsError
from sb3_pg_ext.checkpoints.safety.pickles import Refusing
from sb3_pg_ext.checkpoints.safety.yaml_files import BoundedLoader
from sb3_pg_ext.zoo import runs
from sb3_pg_ext.zoo.runs import MARK
from sb3_pg_ext.zoo.user_errors import UserError

WRAPPERS = frozenset(
    f"{module}.{name}"
    for module, names in {
        "gymnasium.wrappers": (
            *("ClipAction", "FilterObservation", "FlattenObservation", "FrameStackObservation", "GrayscaleObservation"),
            *("RescaleAction", "RescaleObservation", "ResizeObservation", "TimeAwareObservation", "TimeLimit"),
        ),
        "rl_zoo3.wrappers": (
            *("ActionNoiseWrapper", "ActionSmoothingWrapper", "DelayedRewardWrapper", "FrameSkip", "HistoryWrapper"),
            *("HistoryWrapperObsDict", "MaskVelocityWrapper", "TruncatedOnSuccessWrapper"),
        ),
        "sb3_contrib.common.wrappers": ("TimeFeatureWrapper",),
        "stable_baselines3.common.atari_wrappers": ("AtariWrapper",),
        "stable_baselines3.common.vec_env": ("VecFrameStack", "VecTransposeImage"),
    }.items()
    for name in names
)
"""The wrappers that a downloaded run may name. None of them writes files."""


MAX_NUMBER = 1000
"""So large a number may be that says of a wrapper how many observations, or how large ones, it makes."""
OF_TIME = ("TimeLimit", "TimeFeatureWrapper")
"""Wrappers whose numbers are steps."""


def load_from_hub() -> None:
    """RL Zoo's script, which also marks what it has downloaded."""
    with _marking():
        sys.modules.pop("rl_zoo3.load_from_hub", None)  # lest Python warn of running what is imported
        runpy.run_module("rl_zoo3.load_from_hub", run_name="__main__", alter_sys=True)


@contextmanager
def _marking() -> Iterator[None]:
    """Within the scope, RL Zoo marks what it downloads, before anything else of it is there."""
    copy = shutil.copy

    def copy_and_mark(source: str, target: str) -> str:
        path = Path(target)
        folder = path.with_suffix("") if path.suffix == ".zip" else path.parent
        (folder / MARK).write_text("This run comes from elsewhere: sb3-pg plays it without running its files.\n")
        if Path(source).suffix == ".zip":
            check_archive(read_file(source))
        return str(copy(source, target))

    with (
        mock.patch.object(shutil, "copy", copy_and_mark),
        mock.patch.object(zipfile, "ZipFile", _CheckedZipFile),
        mock.patch.dict(os.environ, TRUST_REMOTE_CODE="True"),  # the Hub's loader asks for it, and only downloads
    ):
        try:
            yield
        except (UnsafeFileError, zipfile.BadZipFile) as problem:
            raise UserError(f"a downloaded file is refused: {problem}") from problem


class _CheckedZipFile(zipfile.ZipFile):
    """A zip file of logs that is looked at before it is unpacked."""

    def extractall(self, *args: Any, **kwargs: Any) -> None:
        """Unpack it, if it is no bomb and holds nothing but logs."""
        assert self.filename is not None
        check_archive(read_file(self.filename))
        for name in self.namelist():
            if not LOGS.fullmatch(name):
                raise UnsafeFileError(f"a member is called {name!r}; allowed: monitor files and evaluations.npz")
        super().extractall(*args, **kwargs)


LOGS = re.compile(r"[\w.-]+\.csv|evaluations\.npz", re.ASCII)
"""What RL Zoo uploads beside a model. It lies in the folder itself."""


def take_trust(arguments: list[str]) -> bool:
    """Whether ``--trust`` is among the arguments of a script, from which it is taken."""
    if "--trust" not in arguments:
        return False
    arguments.remove("--trust")
    return True


@contextmanager
def playing(trusts: bool) -> Iterator[None]:
    """Within the scope, RL Zoo marks what it downloads, and plays marked runs without running what they hold.

    :param trusts: whether to play them as RL Zoo does
    :raises UserError: where a file wants what it may not have; the message says how to trust it
    """
    find = runs.find_in_run
    with ExitStack() as stack:

        def find_in_run(*arguments: Any, **keywords: Any) -> tuple[str, str, str]:
            nonlocal trusts
            found = find(*arguments, **keywords)
            if runs.is_downloaded(found[2]) and not trusts:
                stack.enter_context(distrusted())
                trusts = True  # from here on nothing needs to be trusted
            return found

        stack.enter_context(mock.patch.object(runs, "find_in_run", find_in_run))
        player = sys.modules.get("rl_zoo3.enjoy")
        if player is not None:
            stack.enter_context(mock.patch.object(player, "download_from_hub", _marking()(player.download_from_hub)))
        try:
            yield
        except (UnsafeFileError, yaml.YAMLError) as problem:
            raise UserError(
                f"the run was downloaded, and is not trusted: {problem}\n--trust plays it anyway"
            ) from problem


@contextmanager
def distrusted() -> Iterator[None]:
    """Within the scope, RL Zoo reads files without running what they hold."""
    with (
        mock.patch.object(yaml, "load", partial(_load_yaml, yaml.load)),
        mock.patch.object(utils, "eval", _evaluate, create=True),
        mock.patch.object(utils, "get_wrapper_class", partial(_wrapper_class, utils.get_wrapper_class)),
        loading_safely(),
    ):
        yield


@contextmanager
def loading_safely() -> Iterator[None]:
    """Within the scope, RL Zoo loads models, statistics and replay buffers safely."""
    load_buffer = OffPolicyAlgorithm.load_replay_buffer

    def load_buffer_safely(model: OffPolicyAlgorithm, path: Any, truncate_last_traj: bool = True) -> None:
        if isinstance(path, io.BytesIO):  # what has been read safely
            load_buffer(model, path, truncate_last_traj)
        else:
            safe_load_replay_buffer(path, model, truncate_last_traj)

    with (
        mock.patch.object(OffPolicyAlgorithm, "load_replay_buffer", load_buffer_safely),
        mock.patch.object(VecNormalize, "load", staticmethod(safe_load_normalization)),
        mock.patch.dict(ALGOS, {name: _loaded_safely(cls) for name, cls in ALGOS.items()}),
    ):
        yield


def _loaded_safely(cls: Any) -> type[Any]:
    """An algorithm's class whose models are loaded by :func:`~sb3_pg_ext.safe_load`.

    :param cls: the class
    """

    class Distrusting(cls):
        @classmethod
        def load(
            kind, path: str, env: Any = None, device: Any = "auto", custom_objects: Any = None, **kwargs: Any
        ) -> Any:
            try:
                return safe_load(path, cls, env, custom_objects=custom_objects, device=device, **kwargs)
            except RefusedPartsError as problem:  # which tells what to give to safe_load
                lines = (f"- {refusal}" for refusal in problem.refusals[:MAX_LISTED])
                raise UnsafeFileError(f"parts of {Path(path).name} are refused:", *lines) from problem

    return Distrusting


class _DataLoader(BoundedLoader):
    """Data alone, and what RL Zoo itself writes: ordered dictionaries and tuples."""


def _ordered_dict(loader: yaml.SafeLoader, node: yaml.Node) -> OrderedDict:
    assert isinstance(node, yaml.SequenceNode)
    (pairs,) = loader.construct_sequence(node, deep=True)
    return OrderedDict((key, value) for key, value in pairs)


def _tuple(loader: yaml.SafeLoader, node: yaml.Node) -> tuple:
    assert isinstance(node, yaml.SequenceNode)
    return tuple(loader.construct_sequence(node, deep=True))


_DataLoader.add_constructor("tag:yaml.org,2002:python/object/apply:collections.OrderedDict", _ordered_dict)
_DataLoader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


def _load_yaml(load: Callable[..., Any], stream: Any, Loader: Any) -> dict[str, Any]:
    """The settings of a run.

    :param load: PyYAML's own, for files of one's own, which RL Zoo reads as data
    """
    if issubclass(Loader, yaml.SafeLoader):
        return load(stream, Loader)
    name = Path(getattr(stream, "name", "")).name
    with Refusing(name):
        settings = load(stream, _DataLoader)
    if not (isinstance(settings, dict) and all(isinstance(key, str) for key in settings)):
        raise UnsafeFileError(f"{name} holds no settings")
    of_the_env = settings.get("env_kwargs") or {}
    if not isinstance(of_the_env, dict) or not all(map(_is_plain, of_the_env.values())):
        raise UnsafeFileError(f"{name}: env_kwargs {of_the_env!r}; allowed: numbers, flags and names without paths")
    settings["env_kwargs"] = of_the_env or (None if name == "args.yml" else {})
    for key, kinds in KINDS.items():
        value = settings.get(key)
        if not isinstance(value, kinds | None) or (isinstance(value, int) and abs(value) > MAX_NUMBER):
            raise UnsafeFileError(f"{name}: {key} {value!r}")
    return settings


KINDS: dict[str, Any] = {"normalize": bool | str | dict, "frame_stack": int, "replay_buffer_class": str}


def _is_plain(value: Any) -> bool:
    """Whether a value is a number, a flag, or a text that names no file."""
    return isinstance(value, int | float | None) or (isinstance(value, str) and not set(value) & set("/\\~"))


def _evaluate(text: str, *_: Any) -> dict[str, Any]:
    """A dictionary of literals, also as ``dict()`` of literals by names."""
    try:
        tree = ast.parse(text[:MAX_LITERAL].strip(), mode="eval").body
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "dict" and not tree.args:
            return {keyword.arg: ast.literal_eval(keyword.value) for keyword in tree.keywords if keyword.arg}
        found = ast.literal_eval(tree)
    except Exception:  # a text that is no literal fails in many ways
        found = None
    if not isinstance(found, dict):
        raise UnsafeFileError(f"{text[:200]!r} is no literal of a dictionary")
    return found


MAX_LITERAL = 2000


def _wrapper_class(find: Callable[..., Any], hyperparams: dict[str, Any], key: str = "env_wrapper") -> Any:
    wanted = hyperparams.get(key)
    wrappers = wanted if isinstance(wanted, list) else [wanted]
    if len(wrappers) > MAX_WRAPPERS:
        raise UnsafeFileError(f"{len(wrappers)} wrappers; allowed: at most {MAX_WRAPPERS}")
    for wrapper in wrappers:
        name, arguments = next(iter(wrapper.items()), ("", {})) if isinstance(wrapper, dict) else (wrapper, {})
        if name is not None and name not in WRAPPERS:
            raise UnsafeFileError(f"{key} {name!r}; allowed: {', '.join(sorted(WRAPPERS))}")
        if not (isinstance(arguments, dict) and (str(name).endswith(OF_TIME) or _are_small(arguments.values()))):
            raise UnsafeFileError(f"{key} {name!r} with {arguments!r}; allowed: numbers up to {MAX_NUMBER}")
    return find(hyperparams, key)


MAX_WRAPPERS = 10


def _are_small(values: Iterable[Any]) -> bool:
    """Whether no number is large, nor any within a list."""
    return all(
        _are_small(value) if isinstance(value, list | tuple) else not isinstance(value, int) or abs(value) <= MAX_NUMBER
        for value in values
    )
