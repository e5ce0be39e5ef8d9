"""What benchmarks of many runs share: a finished run is a line of a file, so that an interrupted benchmark goes on."""

import json
import multiprocessing
import platform
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import stable_baselines3
import torch as th

import sb3_pg_ext

Run = dict[str, Any]
"""What a run gave; JSON can hold it."""

BAR_WIDTH = 30


def versions() -> dict[str, str]:
    """What was measured."""
    modules = (sb3_pg_ext, stable_baselines3, th, np, gymnasium)
    return {module.__name__: module.__version__ for module in modules} | {"python": platform.python_version()}


def spaced(number: float) -> str:
    """A whole number, with a space between thousands."""
    return f"{number:,.0f}".replace(",", " ")


def with_range(ratios: Sequence[float]) -> str:
    """The median of some ratios, and the least and the most."""
    return f"{np.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def read(path: Path) -> list[Run]:
    """The finished runs of a file, oldest first."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def processes(n_workers: int) -> ProcessPoolExecutor:
    """So many processes in which runs are made. Ctrl-C ends them; without that they would go on with the next run."""
    fresh = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(n_workers, fresh, signal.signal, (signal.SIGINT, signal.SIG_DFL))


def complete(
    path: Path, jobs: Sequence[Callable[[], Run]], pool: Executor | None, describe: Callable[[Run], str]
) -> None:
    """Do jobs, append what each gives to a file as soon as it is there, and show how long it will take.

    :param path: the file
    :param jobs: each makes one run
    :param pool: where they run, side by side, :func:`processes` for example; None: here, one after the other
    :param describe: a few words on a finished run
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    futures = [pool.submit(job) for job in jobs] if pool else []
    runs = (future.result() for future in as_completed(futures)) if pool else (job() for job in jobs)
    try:
        for n_done, run in enumerate(runs, start=1):
            with path.open("a") as file:
                file.write(json.dumps(run) + "\n")
            minutes_left = (time.perf_counter() - start) / n_done * (len(jobs) - n_done) / 60
            bar = ("█" * (BAR_WIDTH * n_done // len(jobs))).ljust(BAR_WIDTH, "·")
            print(
                f"{bar} {n_done}/{len(jobs)}, {minutes_left:.0f} min left: {describe(run)}", file=sys.stderr, flush=True
            )
    finally:
        for future in futures:  # after a failure nothing is begun that would not be kept
            future.cancel()
