"""The parent's side: starts the workers, listens to them, notices when one fails, and ends them all."""

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

import cloudpickle
import numpy as np
import torch.multiprocessing  # lets multiprocessing pass tensors on as the shared memory that they lie in  # noqa: F401

from sb3_pg_ext.workers.messages import Failure, Finished, Ready
from sb3_pg_ext.workers.process import Target, run_target
from sb3_pg_ext.workers.shared_memory import SharedArray

PRELOAD = f"{__package__}.preload"
"""What the fork server imports. Importing it here would take as long."""

START_SECONDS = 120.0
"""A process that has not begun to work after so long has failed to start."""

POLL_SECONDS = 0.2
"""So long the parent waits for news before it looks whether workers make progress."""

GRACE_SECONDS = 4.0
"""So long workers have to finish a step and to close their environment before they are killed."""


class WorkerError(RuntimeError):
    """A worker has failed. The message says which, how, and, where it has raised an exception, its traceback."""


def out_of_restarts(index: int, fault: str, n_restarts: int, first_failure: str | None) -> WorkerError:
    """What to raise where a worker is not replaced.

    :param index: which
    :param fault: what is wrong with it, in words
    :param n_restarts: how many workers have been replaced before
    :param first_failure: the first exception of any worker, with its traceback
    """
    failure = message = f"Worker {index} {fault}"
    if n_restarts:
        message = f"After {n_restarts} restart{'s' if n_restarts > 1 else ''}: {failure}"
    if first_failure not in (None, failure):
        message += f"\n\nThe first exception was that of another: {first_failure}"
    return WorkerError(message)


def pack(config: Any, start_method: str) -> Any:
    """Make what a worker has to know ready for another process.

    :param config: any object
    :param start_method: how processes are started; a forked one inherits everything
    :return: bytes, by cloudpickle; for a process that is forked, the object itself
    :raises ValueError: if it cannot be pickled
    """
    if start_method == "fork":
        return config
    try:
        return cloudpickle.dumps(config)
    except (TypeError, ValueError, AttributeError, NotImplementedError, pickle.PicklingError, RuntimeError) as error:
        raise ValueError(
            f"env cannot be sent to a worker with start_method={start_method!r}, because something in it, or in the "
            f"policy's arguments, cannot be pickled ({error}); allowed: functions that make the environments instead "
            "of environments, or start_method='fork'"
        ) from error


@dataclass
class WorkerHandle:
    """A worker, seen from the parent.

    :param process: its process
    :param connection: to and from it
    :param progress: what it was said to have done when the parent last looked
    :param progress_time: when that had changed
    :param ready: whether its target has begun
    :param finished: whether its target has returned
    :param failure: the exception that its target has raised
    :param fault: what is wrong with it, in words
    :param ended: whether its process is gone, and nothing is left to do
    """

    process: BaseProcess
    connection: Connection
    progress: Any
    progress_time: float = field(default_factory=time.monotonic)
    ready: bool = False
    finished: bool = False
    failure: Failure | None = None
    fault: str | None = None
    ended: bool = False


class WorkerPool:
    """Worker processes that all do the same, each with a configuration of its own.

    They may start processes of their own. None outlives :meth:`stop`, the exit of the interpreter, or, by more than
    about a second, a parent that is killed; where one is killed, so is what it has started.

    :param target: what a worker does: a function of a module, of a
        :class:`~sb3_pg_ext.workers.process.WorkerContext`
    :param configs: one for every worker: what it has to know
    :param shared: what all workers share; tensors and arrays in shared memory in it are passed on as the same memory
    :param progress: from the index of a worker to anything that changes when the worker makes progress
    :param on_restart: called with the index of a worker before another one replaces it, and after :meth:`receive` has
        returned all that it had reported
    :param name: what to call a worker, for its process
    :param no_progress: what a worker makes that makes no progress, for messages
    :param entropy: from it every worker's seed is made
    :param start_method: how processes are started: ``"forkserver"``, ``"spawn"`` or ``"fork"``
    :param worker_timeout: so long a worker may go without progress, in seconds
    :param max_restarts: how many failed workers are replaced before one is an error
    :raises ValueError: if a configuration cannot be sent
    :raises RuntimeError: in a daemonic process, which may start none
    """

    def __init__(
        self,
        target: Target,
        configs: Sequence[Any],
        shared: Any,
        *,
        progress: Callable[[int], Any],
        on_restart: Callable[[int], None],
        name: str,
        no_progress: str,
        entropy: int,
        start_method: str,
        worker_timeout: float,
        max_restarts: int,
    ) -> None:
        parent = multiprocessing.current_process()
        if parent.daemon:
            raise RuntimeError(
                f"{name}s cannot be started, since this process, {parent.name}, is daemonic, and Python lets "
                "such a process have no children; allowed: the main process, a process with daemon=False, or "
                "concurrent.futures.ProcessPoolExecutor instead of multiprocessing.Pool"
            )
        self.shared = shared
        self.n_restarts = 0
        self._target = target
        self._configs = [pack(config, start_method) for config in configs]
        self._progress, self._on_restart = progress, on_restart
        self._name, self._no_progress = name, no_progress
        self._entropy = entropy
        self._context: Any = multiprocessing.get_context(start_method)
        self._worker_timeout = worker_timeout
        self._max_restarts = max_restarts
        self._stopping = SharedArray(1)
        self._handles: dict[int, WorkerHandle] = {}
        self._first_failure: str | None = None
        # At its exit the interpreter waits for processes that are not daemonic, but calls this before.
        self._at_exit = Finalize(None, self._kill_all, exitpriority=0)

    def start(self) -> None:
        """Start all workers. :meth:`stop` must follow, whatever happens."""
        if self._context.get_start_method() == "forkserver":
            # Imported once, in the server, instead of once in every worker; of no effect if the server runs already.
            self._context.set_forkserver_preload([self._target.__module__, PRELOAD])
        for index in range(len(self._configs)):
            self._start_worker(index)

    def _start_worker(self, index: int) -> None:
        (seed,) = np.random.SeedSequence([self._entropy, index, self.n_restarts]).generate_state(1)
        own_end, other_end = self._context.Pipe()
        process = self._context.Process(
            target=run_target,
            args=(self._target, index, int(seed), self._configs[index], self.shared, self._stopping, other_end),
            name=f"{self._name} {index}",
            daemon=False,  # so that it may start processes
        )
        self._handles[index] = WorkerHandle(process, own_end, self._progress(index))
        try:
            process.start()
        finally:
            other_end.close()  # so that the end is seen when the worker dies, and later ones do not inherit it

    @property
    def finished(self) -> bool:
        """Whether no worker works any more."""
        return all(handle.finished or handle.ended for handle in self._handles.values())

    @property
    def pids(self) -> list[int | None]:
        """The process id of every worker."""
        return [handle.process.pid for handle in self._handles.values()]

    @property
    def connections(self) -> list[Connection]:
        """Those of workers that may still send something, to wait for several pools."""
        return [handle.connection for handle in self._handles.values() if not handle.connection.closed]

    def send(self, index: int, message: Any) -> None:
        """Send something to a worker, which :attr:`WorkerContext.receive` gives it.

        To one that has died it is lost. Whoever sends waits while the pipe is full: send little, or await answers.

        :param index: index of the worker
        :param message: any object but ``None``
        """
        with suppress(OSError):
            self._handles[index].connection.send(message)

    def receive(self, timeout: float = POLL_SECONDS) -> list[tuple[int, Any]]:
        """Replace workers that have failed, and wait a moment for reports.

        A failure is acted upon only after the reports that came with it were returned.

        :param timeout: so long at most, in seconds
        :return: index of the worker and report, for every report
        :raises WorkerError: if a worker has failed and is not replaced
        """
        for index, handle in self._handles.items():
            if handle.fault is not None:
                self._replace(index, handle, handle.fault)
        reports = self._listen(timeout)
        now = time.monotonic()
        for index, handle in self._handles.items():
            if not (handle.finished or handle.ended):
                handle.fault = self._find_fault(index, handle, now)
        return reports

    def _listen(self, timeout: float) -> list[tuple[int, Any]]:
        """Take in what has been sent; a worker whose connection has ended stays unfinished, with its process dead."""
        by_connection = {h.connection: (i, h) for i, h in self._handles.items() if not h.connection.closed}
        reports = []
        for connection in wait(list(by_connection), timeout):
            assert isinstance(connection, Connection)
            index, handle = by_connection[connection]
            try:
                while connection.poll():
                    match connection.recv():
                        case Ready():
                            handle.ready, handle.progress_time = True, time.monotonic()
                        case Finished():
                            handle.finished = True
                        case Failure() as failure:
                            handle.failure = failure
                        case report:
                            reports.append((index, report))
            except (EOFError, OSError):  # it has closed the connection, or has died, perhaps in the middle of a message
                connection.close()
        return reports

    def _find_fault(self, index: int, handle: WorkerHandle, now: float) -> str | None:
        progress = self._progress(index)
        if progress != handle.progress:
            handle.progress, handle.progress_time = progress, now
        limit = self._worker_timeout if handle.ready else max(self._worker_timeout, START_SECONDS)
        if handle.connection.closed:
            return _cause_of_death(handle)
        if now - handle.progress_time > limit:
            argument = f"worker_timeout={self._worker_timeout:g}" if handle.ready else "those allowed for its start"
            return f"has made {self._no_progress} for {limit:g} seconds, {argument}"
        return None

    def _replace(self, index: int, handle: WorkerHandle, fault: str) -> None:
        _end(handle)
        if handle.failure is not None and self._first_failure is None:
            self._first_failure = f"Worker {index} {fault}"
        if self.n_restarts >= self._max_restarts:
            raise out_of_restarts(index, fault, self.n_restarts, self._first_failure)
        self.n_restarts += 1
        self._on_restart(index)
        self._start_worker(index)

    def stop(self) -> None:
        """Stop all workers and end their processes, by force where they do not end by themselves.

        What they have still to report is passed over.
        """
        self._stopping.array[0] = 1
        deadline = time.monotonic() + GRACE_SECONDS
        handles = self._handles.values()
        try:
            while time.monotonic() < deadline and any(not handle.connection.closed for handle in handles):
                # One that has not begun to work has nothing to finish.
                for handle in handles:
                    if not handle.ready:
                        _end(handle)
                self._listen(POLL_SECONDS)
        finally:
            for handle in handles:
                _end(handle)
            self._at_exit.cancel()

    def kill(self) -> None:
        """End all processes at once, by force."""
        for handle in self._handles.values():
            _end(handle)
        self._at_exit.cancel()

    def _kill_all(self) -> None:
        self._max_restarts = 0  # a thread that still trains replaces none
        for handle in self._handles.values():
            _kill(handle.process)


def _cause_of_death(handle: WorkerHandle) -> str:
    if handle.failure is not None:
        return f"has failed:\n{handle.failure.traceback}"
    handle.process.join(1.0)
    code = handle.process.exitcode
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    hint = "" if handle.ready else '; a script must start training under `if __name__ == "__main__":`'
    return f"has ended with the exit status {code}{hint}"


def _end(handle: WorkerHandle) -> None:
    if handle.ended:
        return
    if handle.process.pid is not None:
        if handle.finished or handle.failure is not None:
            handle.process.join(1.0)  # it has said goodbye
        if handle.process.exitcode != 0:
            _kill(handle.process)
        handle.process.join()
    handle.connection.close()
    handle.ended = True


def _kill(process: BaseProcess) -> None:
    """Kill a process and, where it leads a group, all that it has started."""
    if process.pid is None:
        return
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):  # it leads none yet, or all of them are gone
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
