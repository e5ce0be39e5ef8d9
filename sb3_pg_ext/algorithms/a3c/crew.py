"""The parent's side: starts the workers, listens to them, notices when one fails, and ends them all."""

import multiprocessing
import pickle
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import cloudpickle
import numpy as np
import torch.multiprocessing  # lets multiprocessing pass tensors on as the shared memory that they lie in  # noqa: F401

from sb3_pg_ext.algorithms.a3c.reports import Failure, Finished, Ready, Report
from sb3_pg_ext.algorithms.a3c.shared_state import Counters, SharedState
from sb3_pg_ext.algorithms.a3c.worker import Task, run_worker

START_SECONDS = 120.0
"""A process that has not begun to work after so long has failed to start."""

POLL_SECONDS = 0.2
"""So long the parent waits for news before it looks whether workers make progress."""

GRACE_SECONDS = 4.0
"""So long workers have to finish a step and to close their environment before they are killed."""


class WorkerError(RuntimeError):
    """A worker has failed. The message says which, how, and, where it has raised an exception, its traceback."""


def pack(task: Task, start_method: str) -> Task | bytes:
    """Make a task ready for another process.

    :param task: the task
    :param start_method: how processes are started; a forked one inherits everything
    :raises ValueError: if the task cannot be pickled
    """
    if start_method == "fork":
        return task
    try:
        return cloudpickle.dumps(task)
    except (TypeError, ValueError, AttributeError, NotImplementedError, pickle.PicklingError, RuntimeError) as error:
        raise ValueError(
            f"env cannot be sent to a worker with start_method={start_method!r}, because something in it, or in the "
            f"policy's arguments, cannot be pickled ({error}); allowed: functions that make the environments instead "
            "of environments, or start_method='fork'"
        ) from error


@dataclass
class Member:
    """A worker, seen from the parent.

    :param process: its process
    :param connection: what it sends
    :param ready: whether it has begun to build its environment
    :param finished: whether it has ended as it should, or has been given up
    :param n_steps: how many steps it has reported; more than its predecessors' where it replaces one
    :param progress: what the shared counters said of it when the parent last looked
    :param progress_time: when that had changed
    """

    process: BaseProcess
    connection: Connection
    ready: bool = False
    finished: bool = False
    failure: Failure | None = None
    n_steps: int = 0
    progress: tuple[int, int] = (0, 0)
    progress_time: float = field(default_factory=time.monotonic)


class Crew:
    """All workers of one training.

    :param tasks: one for every worker
    :param shared: what they share
    :param entropy: from it every worker's seed is made
    :param start_method: how processes are started
    :param worker_timeout: so long a worker may go without a step or an update, in seconds
    :param max_restarts: how many failed workers are replaced before one is an error
    """

    def __init__(
        self,
        tasks: Sequence[Task | bytes],
        shared: SharedState,
        *,
        entropy: int,
        start_method: str,
        worker_timeout: float,
        max_restarts: int,
    ) -> None:
        self.shared = shared
        self.counters = Counters(shared)
        self.n_restarts = 0
        self._tasks = tasks
        self._entropy = entropy
        self._context: Any = multiprocessing.get_context(start_method)
        self._worker_timeout = worker_timeout
        self._max_restarts = max_restarts
        self._members: list[Member] = []

    def start(self) -> None:
        """Start all workers."""
        if self._context.get_start_method() == "forkserver":
            # Imported once, in the server, instead of once in every worker; of no effect if the server runs already.
            self._context.set_forkserver_preload([run_worker.__module__])
        for index in range(len(self._tasks)):
            self._members.append(self._start_worker(index))

    def _start_worker(self, index: int) -> Member:
        (seed,) = np.random.SeedSequence([self._entropy, index, self.n_restarts]).generate_state(1)
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=run_worker,
            args=(index, int(seed), self._tasks[index], self.shared, sender),
            name=f"A3C worker {index}",
            daemon=True,
        )
        try:
            process.start()
        finally:
            sender.close()  # so that the receiver sees the end when the worker dies, and later ones do not inherit it
        n_steps = int(self.counters.steps[index])
        return Member(process, receiver, n_steps=n_steps, progress=(n_steps, int(self.counters.updates[index])))

    @property
    def finished(self) -> bool:
        """Whether no worker works any more."""
        return all(member.finished for member in self._members)

    @property
    def n_steps(self) -> int:
        """How many steps the workers have made."""
        return int(self.counters.steps.sum())

    @property
    def n_updates(self) -> int:
        """How many gradients the workers have applied."""
        return int(self.counters.updates.sum())

    @property
    def pids(self) -> list[int | None]:
        """The process id of every worker."""
        return [member.process.pid for member in self._members]

    def receive(self) -> list[Report]:
        """Wait a moment for reports.

        :raises WorkerError: if a worker has failed and is not replaced
        """
        reports = self._listen(POLL_SECONDS)
        now = time.monotonic()
        for index, member in enumerate(self._members):
            if not member.finished:
                self._watch(index, member, now)
        return reports

    def _listen(self, timeout: float) -> list[Report]:
        """Take in what has been sent; a member whose connection has ended stays unfinished, with its process dead."""
        by_connection = {m.connection: m for m in self._members if not m.connection.closed}
        reports = []
        for connection in wait(list(by_connection), timeout):
            assert isinstance(connection, Connection)
            member = by_connection[connection]
            try:
                while connection.poll():
                    match connection.recv():
                        case Report() as report:
                            member.n_steps += len(report.rewards)
                            reports.append(report)
                        case Ready():
                            member.ready, member.progress_time = True, time.monotonic()
                        case Finished():
                            member.finished = True
                        case Failure() as failure:
                            member.failure = failure
            except (EOFError, OSError):  # it has closed the connection, or has died, perhaps in the middle of a message
                connection.close()
        return reports

    def _watch(self, index: int, member: Member, now: float) -> None:
        progress = (int(self.counters.steps[index]), int(self.counters.updates[index]))
        if progress != member.progress:
            member.progress, member.progress_time = progress, now
        limit = self._worker_timeout if member.ready else max(self._worker_timeout, START_SECONDS)
        if member.connection.closed:
            self._replace(index, member, _cause_of_death(member))
        elif now - member.progress_time > limit:
            argument = f"worker_timeout={self._worker_timeout:g}" if member.ready else "those allowed for its start"
            self._replace(index, member, f"has made neither a step nor an update for {limit:g} seconds, {argument}")

    def _replace(self, index: int, member: Member, cause: str) -> None:
        _end(member)
        member.finished = True
        if self.n_restarts >= self._max_restarts:
            after = f" after {self.n_restarts} restarts" if self.n_restarts else ""
            raise WorkerError(f"Worker {index} {cause}{after}")
        self.n_restarts += 1
        # Steps that it did not live to report are made again by the one that replaces it.
        self.counters.steps[index] = member.n_steps
        self._members[index] = self._start_worker(index)

    def dismiss(self) -> None:
        """Stop all workers and end their processes, by force where they do not end by themselves.

        What they have still to report is passed over.
        """
        self.counters.stopping[0] = 1
        deadline = time.monotonic() + GRACE_SECONDS
        try:
            while time.monotonic() < deadline and any(not member.connection.closed for member in self._members):
                # One that has not begun to work has nothing to finish.
                for member in self._members:
                    if not member.ready:
                        _end(member)
                self._listen(POLL_SECONDS)
        finally:
            for member in self._members:
                _end(member)


def _cause_of_death(member: Member) -> str:
    if member.failure is not None:
        return f"has failed:\n{member.failure.traceback}"
    member.process.join(1.0)
    code = member.process.exitcode
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    hint = "" if member.ready else '; a script must start training under `if __name__ == "__main__":`'
    return f"has ended with the exit status {code}{hint}"


def _end(member: Member) -> None:
    if member.finished or member.failure is not None:
        member.process.join(1.0)  # it has said goodbye
    member.process.kill()
    member.process.join()
    member.connection.close()
