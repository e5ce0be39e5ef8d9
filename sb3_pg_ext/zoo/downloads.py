"""Runs from elsewhere: RL Zoo's scripts play them without running what strangers have written.

RL Zoo reads a run's YAML with a loader that calls what the file names, evaluates strings of it as Python, and unpickles
models and statistics. In a folder that ``sb3-pg load_from_hub`` has made, nothing of that happens: YAML holds data,
strings are literals, models are loaded by :func:`~sb3_pg_ext.safe_load`, wrappers are known ones.
"""

import argparse
import ast
import os
import runpy
import shutil
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from rl_zoo3 import utils
from rl_zoo3.utils import ALGOS
from stable_baselines3.common.vec_env import VecNormalize

from sb3_pg_ext.checkpoints import UnsafeFileError, safe_load, safe_load_normalization
from sb3_pg_ext.checkpoints.safety.archives import check_archive, read_file
from sb3_pg_ext.zoo.user_errors import UserError

MARK = "downloaded"
"""A file of this name in a run's folder says that it comes from elsewhere."""

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


def load_from_hub() -> None:
    """RL Zoo's script, which also marks what it has downloaded."""
    copy = shutil.copy

    def copy_and_mark(source: str, target: str) -> str:
        path = Path(target)
        folder = path.with_suffix("") if path.suffix == ".zip" else path.parent
        (folder / MARK).write_text("This run comes from elsewhere: sb3-pg plays it without running its files.\n")
        if Path(source).suffix == ".zip":
            check_archive(read_file(source))
        return str(copy(source, target))

    with mock.patch.object(shutil, "copy", copy_and_mark), mock.patch.object(zipfile, "ZipFile", _CheckedZipFile):
        sys.modules.pop("rl_zoo3.load_from_hub", None)  # lest Python warn of running what is imported
        try:
            runpy.run_module("rl_zoo3.load_from_hub", run_name="__main__", alter_sys=True)
        except (UnsafeFileError, zipfile.BadZipFile) as problem:
            raise UserError(f"a downloaded file is refused: {problem}") from problem


class _CheckedZipFile(zipfile.ZipFile):
    """A zip file that is looked at before it is unpacked."""

    def extractall(self, *args: Any, **kwargs: Any) -> None:
        """Unpack it, if it is no bomb and leads nowhere else."""
        assert self.filename is not None
        check_archive(read_file(self.filename))
        super().extractall(*args, **kwargs)


def take_trust(arguments: list[str]) -> bool:
    """Whether ``--trust`` is among the arguments of a script, from which it is taken."""
    if "--trust" not in arguments:
        return False
    arguments.remove("--trust")
    return True


def is_downloaded(arguments: list[str]) -> bool:
    """Whether the run that a script is to play comes from elsewhere."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--algo", default="ppo")
    parser.add_argument("-f", "--folder", default="rl-trained-agents")
    parser.add_argument("--exp-id", type=int, default=0)
    options, _ = parser.parse_known_args(arguments)
    env = options.env.replace("/", "-")
    exp_id = options.exp_id or utils.get_latest_run_id(os.path.join(options.folder, options.algo), env)
    run = Path(options.folder, options.algo, *([f"{env}_{exp_id}"] if exp_id > 0 else []), env)
    return (run / MARK).exists()


@contextmanager
def distrusted() -> Iterator[None]:
    """Within the scope, RL Zoo reads files without running what they hold.

    :raises UserError: where a file wants what it may not have; the message says how to trust it
    """
    models = {name: _loaded_safely(cls) for name, cls in ALGOS.items()}
    with (
        mock.patch.object(yaml, "load", _load_yaml),
        mock.patch.object(utils, "eval", _evaluate, create=True),
        mock.patch.object(utils, "get_wrapper_class", partial(_wrapper_class, utils.get_wrapper_class)),
        mock.patch.object(VecNormalize, "load", staticmethod(safe_load_normalization)),
        mock.patch.dict(ALGOS, models),
    ):
        try:
            yield
        except (UnsafeFileError, yaml.YAMLError) as problem:
            raise UserError(
                f"the run was downloaded, and is not trusted: {problem}\n--trust plays it anyway"
            ) from problem


def _loaded_safely(cls: Any) -> type[Any]:
    """An algorithm's class whose models are loaded by :func:`~sb3_pg_ext.safe_load`.

    :param cls: the class
    """

    class Distrusting(cls):
        @classmethod
        def load(
            kind, path: str, env: Any = None, device: Any = "auto", custom_objects: Any = None, **kwargs: Any
        ) -> Any:
            return safe_load(path, cls, env, custom_objects=custom_objects, device=device, **kwargs)

    return Distrusting


class _DataLoader(yaml.SafeLoader):
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


def _load_yaml(stream: Any, Loader: Any = None) -> Any:
    return yaml.load_all(stream, _DataLoader).__next__()


def _evaluate(text: str, *_: Any) -> Any:
    """A literal, or ``dict()`` of literals by names."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "dict" and not tree.args:
            return {keyword.arg: ast.literal_eval(keyword.value) for keyword in tree.keywords if keyword.arg}
        return ast.literal_eval(tree)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise UnsafeFileError(f"{text[:200]!r} is no literal") from None


def _wrapper_class(find: Callable[..., Any], hyperparams: dict[str, Any], key: str = "env_wrapper") -> Any:
    wanted = hyperparams.get(key)
    for wrapper in wanted if isinstance(wanted, list) else [wanted]:
        name = next(iter(wrapper), "") if isinstance(wrapper, dict) else wrapper
        if name is not None and name not in WRAPPERS:
            raise UnsafeFileError(f"{key} {name!r}; allowed: {', '.join(sorted(WRAPPERS))}")
    return find(hyperparams, key)
