"""RL Zoo's plots, also where there is no display or only one run."""

import argparse
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from traceback import clear_frames, walk_tb
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.backend_bases import FigureManagerBase
from rl_zoo3 import plots

from sb3_pg_ext.zoo.user_errors import UserError


def plot_train() -> None:
    """Plot training returns; ``--output FILE`` saves the picture, which RL Zoo cannot."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--output", metavar="FILE", help="save the picture (an option of sb3-pg)")
    options, sys.argv[1:] = parser.parse_known_args()
    try:
        with _showing("; --output FILE saves it", options.output):
            plots.plot_train()
    except SystemExit:
        if {"-h", "--help"} & set(sys.argv):
            print(parser.format_help().partition("\n\n")[2])
        raise


def all_plots() -> None:
    """Gather the evaluations of many runs."""
    _require(("-a", "--algos"), ("-e", "--env"), ("-f", "--exp-folders"))
    try:
        with _showing("; --output FILE keeps the numbers for plot_from_file, and --no-display does not try to"):
            plots.all_plots()
    except ValueError as error:
        clear_frames(error.__traceback__)  # RL Zoo's hold the evaluations' files, which it leaves open
        raise UserError(
            f"The evaluations cannot be merged ({error}); allowed: the same number of episodes in all runs of an "
            "algorithm, at least 2 (--eval-episodes of train)"
        ) from error


def plot_from_file() -> None:
    """Plot what :func:`all_plots` has gathered."""
    _require(("-i", "--input"))
    module: Any = import_module("rl_zoo3.plots.plot_from_file")
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-o", "--output")
    advice = None if parser.parse_known_args()[0].output else "; --output FILE saves it"  # RL Zoo does so itself
    try:
        with _showing(advice), patch.object(module, "pickle", SimpleNamespace(load=_load)):
            plots.plot_from_file()
    except KeyError as error:
        if [frame for frame, _ in walk_tb(error.__traceback__)][-1].f_globals is not vars(module):
            raise
        raise UserError(
            f"There are no results of {error} for one of the environments; allowed: to choose with --keep-keys, "
            "--keep-envs, --skip-keys and --skip-envs"
        ) from error


def _load(file: Any) -> dict[str, Any]:
    """The results that RL Zoo has gathered; its last evaluations are one number for every run, even for a single one.

    RL Zoo takes a mean too many where one run is left, since runs shorter than the longest are left out, and fails.
    """
    results: dict[str, Any] = pickle.load(file)
    for env, of_env in results.items():
        for of_key in of_env.values() if env != "results_table" else ():
            if np.ndim(of_key["last_evals"]) == 0 and "mean_per_eval" in of_key:
                of_key["last_evals"] = of_key["mean_per_eval"][-1]
    return results


def _require(*options: tuple[str, ...]) -> None:
    """Refuse a command line without options that RL Zoo needs, but does not ask for."""
    parser = argparse.ArgumentParser(add_help=False)
    for names in options:
        parser.add_argument(*names, nargs="+", required=not {"-h", "--help"} & set(sys.argv))
    parser.parse_known_args()


@contextmanager
def _showing(advice: str | None, output: str | None = None) -> Iterator[None]:
    """Save a picture before it is shown, and say so where there is no display to show it.

    :param advice: what the user can do then; None: nothing has to be said
    :param output: where to save it; None: nowhere
    """
    show: Callable[..., None] = plt.show

    def save_or_show(*arguments: Any, **keywords: Any) -> None:
        if output is not None:
            plt.savefig(output)
            print(f"Saved {output}")
        if type(plt.gcf().canvas.manager) is not FigureManagerBase:  # which shows nothing
            show(*arguments, **keywords)
        elif output is None and advice is not None:
            print(f"There is no display to show the picture{advice}")

    with patch.object(plt, "show", save_or_show):
        yield
