"""What a training has left in its files, made short: the returns of its episodes, and its log."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

MAX_POINTS = 1000
"""Of a curve of returns."""
MAX_LOG_POINTS = 200
"""Of a key of the log."""
STEPS_KEY = "time/total_timesteps"


def training_curve(folder: Path, *, lockstep: bool = True) -> dict[str, list[float]]:
    """The returns and lengths of the training's episodes against steps, from Monitor's files.

    :param folder: where ``*.monitor.csv`` are, one of every environment
    :param lockstep: whether the environments step together, so that an episode that ends at the k-th step of one of N
        ends at the training's step k·N; otherwise episodes are put in the order of the clock
    :return: ``timesteps``, ``returns`` and ``lengths``; of more than a thousand episodes the means of as many bins,
        each with the step of its last episode
    """
    files = sorted(folder.glob("*.monitor.csv"))
    found = [
        (steps * len(files) if lockstep else clock, number, episode_return, length)
        for number, file in enumerate(files)
        for steps, clock, episode_return, length in _read_episodes(file)
    ]
    order, _, returns, lengths = np.array(sorted(found), dtype=float).reshape(-1, 4).T
    timesteps = order if lockstep else np.cumsum(lengths)
    bins = _split(len(found), MAX_POINTS)
    return {
        "timesteps": [int(timesteps[chosen[-1]]) for chosen in bins],
        "returns": [float(returns[chosen].mean()) for chosen in bins],
        "lengths": [float(lengths[chosen].mean()) for chosen in bins],
    }


def diagnostics(path: Path) -> dict[str, dict[str, list[float]]]:
    """What SB3's logger has written, by key.

    :param path: ``progress.csv``, which need not exist
    :return: for every key with numbers, ``timesteps`` and ``values``; of more than 200 the means of as many bins, each
        with its last step
    """
    series: dict[str, list[tuple[int, float]]] = {}
    for row in _read_rows(path):
        steps = _number(row.pop(STEPS_KEY, None))
        for key, text in row.items():
            value = _number(text)
            if key and not math.isnan(value) and not math.isnan(steps):
                series.setdefault(key, []).append((int(steps), value))
    return {key: _thin(points) for key, points in sorted(series.items())}


def _thin(points: list[tuple[int, float]]) -> dict[str, list[float]]:
    timesteps, values = np.array(points).T
    bins = _split(len(points), MAX_LOG_POINTS)
    return {
        "timesteps": [int(timesteps[chosen[-1]]) for chosen in bins],
        "values": [float(values[chosen].mean()) for chosen in bins],
    }


def _split(n_points: int, n_bins: int) -> list[np.ndarray]:
    """The indices of some points, in bins that differ in size by one at most."""
    return np.array_split(np.arange(n_points), min(n_points, n_bins)) if n_points else []


def _read_episodes(path: Path) -> Iterator[tuple[int, float, float, float]]:
    """Steps so far, time, return and length of every episode; a line that was cut short is none."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    try:
        start = float(json.loads(lines[0][1:])["t_start"])
    except (ValueError, KeyError, IndexError):
        return
    steps = 0
    for row in csv.DictReader(lines[1:]):
        episode_return, length, time = (_number(row.get(key)) for key in ("r", "l", "t"))
        if not math.isnan(length) and not math.isnan(time):
            steps += int(length)
            yield steps, start + time, episode_return, length


def _read_rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan
