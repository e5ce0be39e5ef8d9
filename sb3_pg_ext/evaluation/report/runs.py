"""A training run, from whatever tool, and which runs belong together."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LONGEST_LABEL = 60


class Series(NamedTuple):
    """Values against steps of training.

    :param timesteps: [n], rising
    :param values: [n], finite
    """

    timesteps: Array
    values: Array

    @classmethod
    def of(cls, timesteps: Any, values: Any) -> "Series":
        """From two lists of equal length, leaving out what is no number.

        :raises ValueError: if their lengths differ
        """
        x, y = as_numbers(timesteps), as_numbers(values)
        if len(x) != len(y):
            raise ValueError(f"{len(x)} steps and {len(y)} values do not go together")
        kept = np.isfinite(x) & np.isfinite(y)
        order = np.argsort(x[kept], kind="stable")
        return cls(x[kept][order], y[kept][order])


EMPTY = Series(np.empty(0), np.empty(0))


@dataclass
class Run:
    """What a training run has left.

    :param algorithm: what trained, with the name of its setting if it has one
    :param env: id of the environment
    :param path: its folder
    :param root: the folder that the user named, in which it was found
    :param source: the tool that left it
    :param seed: None where nothing tells
    :param status: ``"finished"``, ``"failed"`` or ``"interrupted"``
    :param returns: of the training's episodes
    :param final: returns of the greedy episodes of the final policy
    :param evaluations: mean returns of evaluations on the way
    :param diagnostics: logged values by key
    :param label: the name of the group of runs that it belongs to
    """

    algorithm: str
    env: str
    path: str
    root: str
    source: str
    seed: int | None = None
    status: str = "finished"
    traceback: str = ""
    n_timesteps: int | None = None
    seconds: float | None = None
    returns: Series = EMPTY
    final: Array = field(default_factory=lambda: np.empty(0))
    evaluations: Series = EMPTY
    diagnostics: dict[str, Series] = field(default_factory=dict)
    hyperparameters: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""
    label: str = ""

    @property
    def is_finished(self) -> bool:
        """Whether it counts."""
        return self.status == "finished"

    @property
    def last_step(self) -> float:
        """The step of its last episode, or of its last evaluation where no episode was recorded."""
        series = self.returns if len(self.returns.timesteps) else self.evaluations
        return float(series.timesteps[-1]) if len(series.timesteps) else 0.0

    @property
    def name(self) -> str:
        """What to call it within its group."""
        return os.path.basename(self.path) if self.seed is None else f"seed {self.seed}"


def as_numbers(values: Any) -> Array:
    """A list as numbers; NaN stands for what is none."""
    if not isinstance(values, list | tuple | np.ndarray):
        return np.empty(0)
    try:
        return np.asarray(values, float).reshape(-1)
    except (TypeError, ValueError):
        return np.array([value if isinstance(value, int | float) else np.nan for value in values], float)


def group(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """Give every run the label of its group: runs of one label and environment differ only in their seeds.

    Runs with other hyper-parameters on the same environment are a group of their own, named after what differs; runs
    of the same name in several folders are told apart by the folder.

    :param runs: all that were found
    :return: the runs to show, and messages about those that are left out or look like copies
    """
    _name_after_folders(runs)
    for label in {run.label for run in runs}:
        _name_after_settings([run for run in runs if run.label == label])
    return _without_copies(runs)


def _name_after_folders(runs: list[Run]) -> None:
    roots: dict[str, set[str]] = {}
    for run in runs:
        roots.setdefault(run.algorithm, set()).add(run.root)
    names = _short_names({root for found in roots.values() for root in found})
    for run in runs:
        several = len(roots[run.algorithm]) > 1
        run.label = f"{run.algorithm} ({names[run.root]})" if several else run.algorithm


def _short_names(paths: set[str]) -> dict[str, str]:
    """The last parts of some paths, as many as tell them apart."""
    for n_parts in range(1, 5):
        names = {path: "/".join(Path(os.path.abspath(path)).parts[-n_parts:]) for path in paths}
        if len(set(names.values())) == len(paths):
            return names
    return {path: path for path in paths}


def _name_after_settings(runs: list[Run]) -> None:
    by_env: dict[str, list[Run]] = {}
    for run in runs:
        by_env.setdefault(run.env, []).append(run)
    keys = sorted({key for some in by_env.values() for key in differing_keys([run.hyperparameters for run in some])})
    if not keys:
        return
    settings = {id(run): ", ".join(f"{key}={run.hyperparameters.get(key, '–')}" for key in keys) for run in runs}
    numbers = {text: number for number, text in enumerate(sorted(set(settings.values())), start=1)}
    is_short = max(map(len, numbers)) <= LONGEST_LABEL
    for run in runs:
        text = settings[id(run)]
        run.label += f" [{text}]" if is_short else f" #{numbers[text]}"


def differing_keys(settings: Sequence[dict[str, str]]) -> list[str]:
    """The keys whose values are not the same in all settings, ``n_timesteps`` apart."""
    keys = sorted({key for each in settings for key in each} - {"n_timesteps"})
    return [key for key in keys if len({each.get(key) for each in settings}) > 1]


def _without_copies(runs: list[Run]) -> tuple[list[Run], list[str]]:
    kept: list[Run] = []
    seen: dict[tuple[str, str, int], Run] = {}
    messages = []
    for run in runs:
        if run.seed is not None:
            first = seen.setdefault((run.label, run.env, run.seed), run)
            if first is not run and _same(first, run):
                messages.append(f"{run.path} is a copy of {first.path}: counted once")
                continue
        kept.append(run)
    counts = Counter((run.label, run.env, run.seed) for run in kept if run.seed is not None)
    messages += [
        f"{label} on {env}: seed {seed} was run {count} times with different results, which count as different runs"
        for (label, env, seed), count in counts.items()
        if count > 1
    ]
    return kept, messages


def _same(one: Run, other: Run) -> bool:
    return all(
        np.array_equal(a, b) for a, b in zip((*one.returns, one.final), (*other.returns, other.final), strict=True)
    )
