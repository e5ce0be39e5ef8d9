"""Runs in processes of this machine, each in one of its own: one that dies takes no other with it."""

import faulthandler
import gc
import math
import multiprocessing
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path

import torch as th
from threadpoolctl import threadpool_limits

from sb3_pg_ext.evaluation.runs import Run, Trainer, perform
from sb3_pg_ext.workers.pool import PRELOAD, WorkerError, WorkerPool
from sb3_pg_ext.workers.process import WorkerContext

OUTPUT_FILE = "output.txt"
"""What a run prints, and what is said about a crash of its process."""
START_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
LAST_LINES = 50


@dataclass(frozen=True)
class Ended:
    """A run that is over.

    :param run: which
    :param fault: why it has left no record; None if it has left one
    :param is_lost: whether that is no fault of the run's own, so that it may simply be begun again
    """

    run: Run
    fault: str | None = None
    is_lost: bool = False


class LocalProcesses:
    """Makes runs in processes forked from one that has imported everything, so that a run's own start takes little.

    :param trainer: trains
    :param n_workers: at most so many runs side by side
    :param n_threads: so many threads each of them may use
    :param modules: what to import beforehand: the trainer's module, and those of environments
    """

    def __init__(self, trainer: Trainer, n_workers: int, n_threads: int = 1, modules: Sequence[str] = ()) -> None:
        self.n_slots = n_workers
        self._trainer, self._n_threads = trainer, n_threads
        self._pools: dict[str, tuple[Run, Path, WorkerPool]] = {}
        self._steps: dict[str, int] = {}
        if START_METHOD == "forkserver":
            multiprocessing.set_forkserver_preload([__name__, PRELOAD, *modules])
            forkserver.ensure_running()  # it imports while this process goes on

    def submit(self, run: Run, folder: Path) -> None:
        """Begin a run.

        :param run: which
        :param folder: where its files go
        """
        pool = WorkerPool(
            _make_run,
            [(self._trainer, run, folder, self._n_threads)],
            None,
            progress=lambda _: None,
            on_restart=lambda _: None,
            name=f"run {run.name}",
            no_progress="no progress",
            entropy=run.seed,
            start_method=START_METHOD,
            worker_timeout=math.inf,
            max_restarts=0,
        )
        self._pools[run.name] = run, folder, pool
        pool.start()

    def wait(self, timeout: float) -> list[Ended]:
        """Wait for a moment, or until something happens.

        :param timeout: so long at most, in seconds
        :return: the runs that are over
        """
        wait([connection for _, _, pool in self._pools.values() for connection in pool.connections], timeout)
        ended = []
        for name, (run, folder, pool) in list(self._pools.items()):
            try:
                for _, steps in pool.receive(timeout=0):
                    self._steps[name] = steps
            except WorkerError as error:
                ended.append(Ended(run, _explain(error, folder / OUTPUT_FILE)))
            else:
                if not pool.finished:
                    continue
                ended.append(Ended(run))
            pool.stop()
            del self._pools[name]
        return ended

    def steps(self) -> dict[str, int]:
        """So many steps every run has made, by its name, as far as is known."""
        return self._steps

    def close(self) -> None:
        """End all runs."""
        for _, _, pool in self._pools.values():
            pool.kill()
        self._pools.clear()


def _make_run(context: WorkerContext) -> None:
    gc.freeze()  # what was inherited stays: to look through it would copy all of its memory
    trainer, run, folder, n_threads = context.config
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / OUTPUT_FILE).open("a", encoding="utf-8") as output:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(output.fileno(), stream.fileno())
        faulthandler.enable(output)
        th.set_num_threads(n_threads)
        with threadpool_limits(n_threads):
            perform(trainer, run, folder, context.send)
        sys.stdout.flush()
        sys.stderr.flush()
        faulthandler.disable()


def _explain(error: WorkerError, output: Path) -> str:
    text = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
    fault = str(error).replace("Worker 0", "The process of the run", 1)
    return "\n".join([f"The last lines of {output}:", *text.splitlines()[-LAST_LINES:], fault])
