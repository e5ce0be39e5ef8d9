"""What a sweep says while it goes on: which runs are done, and how long the rest will take."""

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from sb3_pg_ext.evaluation.records import RecordError, Result
from sb3_pg_ext.evaluation.runs import Run, find_record

BAR_WIDTH = 30
SHOWN_SECONDS = 2.0
"""So often a terminal shows how far the running runs are."""


class Progress:
    """Shows the progress of a sweep: a line for every run that ends, and on a terminal one that changes.

    :param runs: all runs
    :param folder: of the sweep
    :param stream: where to write; None for standard error
    """

    def __init__(self, runs: Sequence[Run], folder: Path, stream: TextIO | None = None) -> None:
        self._runs, self._folder = list(runs), folder
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._left = {run.name: run for run in runs}
        self._started: dict[str, float] = {}
        self._first_steps: dict[str, tuple[float, int]] = {}
        self._rates: dict[tuple[str, ...], list[float]] = {}
        self._steps: dict[str, int] = {}
        self._n_slots = 1
        self._n_failed = 0
        self._shown = 0.0
        self._told: set[str] = set()

    def begin(self, finished: Iterable[Run], failed: Iterable[Run]) -> None:
        """Say what was there before.

        :param finished: these runs
        :param failed: and these
        """
        for run in finished:
            self._learn(run, self._record(run))
            del self._left[run.name]
        failed = list(failed)
        for run in failed:
            del self._left[run.name]
        self._n_failed = len(failed)
        before = len(self._runs) - len(self._left)
        self._say(f"{len(self._runs)} runs in {self._folder}" + (f", {before} of them done before" if before else ""))
        if failed:
            self._say(f"{len(failed)} have failed before; --retry-failed makes them once more")

    def start(self, run: Run) -> None:
        """A run begins."""
        self._started[run.name] = time.monotonic()

    def wait_for(self, run: Run, holder: str) -> None:
        """Another sweep makes a run."""
        if run.name not in self._told:
            self._told.add(run.name)
            self._say(f"{run.title} is being made by {holder or 'another sweep'}")

    def lose(self, run: Run, reason: str) -> None:
        """A run was lost, and is begun again."""
        self._started.pop(run.name, None)
        self._first_steps.pop(run.name, None)
        self._say(f"{run.title} is begun again: {reason.splitlines()[0] if reason else 'its machine is gone'}")

    def end(self, run: Run) -> None:
        """A run is over."""
        record = self._record(run)
        del self._left[run.name]
        self._learn(run, record)
        self._n_failed += record.get("status") == "failed"
        n_done = len(self._runs) - len(self._left)
        self._say(f"{self._bar()} {n_done}/{len(self._runs)}{self._time_left()}: {run.title}: {describe(record)}")

    def show(self, steps: dict[str, int], n_slots: int) -> None:
        """Show how far it is, from time to time.

        :param steps: so many steps every run has made, by its name
        :param n_slots: so many runs are made at a time
        """
        now = time.monotonic()
        self._n_slots, self._steps = max(1, n_slots), steps
        for name in self._left.keys() & self._started.keys():
            if name in steps:
                self._first_steps.setdefault(name, (now, steps[name]))
        if self._is_terminal and now - self._shown > SHOWN_SECONDS:
            self._shown = now
            n_done = len(self._runs) - len(self._left)
            n_running = len(self._left.keys() & self._started.keys())
            text = f"{self._bar()} {n_done}/{len(self._runs)}, {n_running} running{self._time_left()}"
            print(f"\r\x1b[K{text}", end="", file=self._stream, flush=True)

    def close(self) -> None:
        """Say how it stands."""
        left = f", {len(self._left)} are left: the same command goes on" if self._left else ""
        n_finished = len(self._runs) - len(self._left) - self._n_failed
        failed = f", {self._n_failed} have failed" if self._n_failed else ""
        self._say(f"{n_finished} of {len(self._runs)} runs are finished{failed}{left}")

    def seconds_left(self) -> float | None:
        """An estimate of the time that the rest will take; None before anything is known."""
        rates = dict(self._rates)
        now = time.monotonic()
        for name, (since, first) in self._first_steps.items():
            made = self._steps.get(name, first) - first
            if name in self._left and made > 0:
                for key in _keys(self._left[name]):
                    rates[key] = [*rates.get(key, []), (now - since) / made]
        total = 0.0
        longest = 0.0
        for run in self._left.values():
            rate = next((float(np.mean(rates[key])) for key in _keys(run) if key in rates), None)
            if rate is None:
                return None
            seconds = rate * max(0, run.n_timesteps - self._steps.get(run.name, 0))
            total, longest = total + seconds, max(longest, seconds)
        return max(total / self._n_slots, longest)

    def _learn(self, run: Run, record: Result) -> None:
        if record.get("status") == "finished" and record.get("seconds"):
            for key in _keys(run):
                self._rates.setdefault(key, []).append(record["seconds"] / run.n_timesteps)

    def _record(self, run: Run) -> Result:
        try:
            return find_record(self._folder / run.name) or {}
        except (RecordError, OSError):
            return {}

    def _bar(self) -> str:
        total = sum(run.n_timesteps for run in self._runs) or 1
        left = sum(max(0, run.n_timesteps - self._steps.get(name, 0)) for name, run in self._left.items())
        return ("█" * round(BAR_WIDTH * (1 - left / total))).ljust(BAR_WIDTH, "·")

    def _time_left(self) -> str:
        seconds = self.seconds_left() if self._left else None
        return "" if seconds is None else f", {duration(seconds)} left"

    def _say(self, text: str) -> None:
        start = "\r\x1b[K" if self._is_terminal else ""
        print(f"{start}{text}", file=self._stream, flush=True)


def _keys(run: Run) -> list[tuple[str, ...]]:
    """What a run's speed is like, the best comparison first."""
    return [(run.algo, run.env, run.setting), (run.algo, run.env), (run.algo,), ()]


def duration(seconds: float) -> str:
    """A time, for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def describe(record: Result) -> str:
    """What has become of a run, in a line."""
    if record.get("status") == "failed":
        return "failed: " + (str(record.get("traceback") or "").strip().splitlines() or ["for no known reason"])[-1]
    returns: list[Any] = (record.get("evaluation") or {}).get("returns") or []
    took = f" in {duration(record['seconds'])}" if record.get("seconds") else ""
    return (f"return {np.mean(returns):.1f} ± {np.std(returns):.1f}" if returns else record.get("status", "")) + took
