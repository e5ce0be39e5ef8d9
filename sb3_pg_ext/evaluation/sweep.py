"""Many runs in one folder: what is missing is made, what is there stays."""

import shutil
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sb3_pg_ext.evaluation.locks import Lock, find_holder
from sb3_pg_ext.evaluation.processes import Ended
from sb3_pg_ext.evaluation.progress import Progress
from sb3_pg_ext.evaluation.records import RecordError
from sb3_pg_ext.evaluation.runs import Run, changes, find_record, record_failure

POLL_SECONDS = 1.0
REFRESH_SECONDS = 30.0
"""So often locks are refreshed."""
BUSY_SECONDS = 5.0
"""So often a sweep looks for what another one has left."""
MAX_LOSSES = 3
"""A run that was lost so often in one sweep, with its machine each time, has failed."""


class SweepError(ValueError):
    """A sweep that cannot begin. The message says why, and what is allowed."""


class Executor(Protocol):
    """Where runs are made."""

    @property
    def n_slots(self) -> int:
        """So many at a time."""

    def submit(self, run: Run, folder: Path) -> None:
        """Begin a run."""

    def wait(self, timeout: float) -> list[Ended]:
        """Wait for a moment, or until a run is over; return those that are."""

    def steps(self) -> dict[str, int]:
        """So many steps every run has made, by its name, as far as is known."""

    def close(self) -> None:
        """End all runs."""


@dataclass
class Outcome:
    """How the runs of a sweep stand in the end.

    :param finished: those that are finished, in whatever sweep
    :param failed: those that have failed, likewise
    """

    finished: list[Run]
    failed: list[Run]


def sort_out(
    runs: Sequence[Run], folder: Path, *, retry_failed: bool = False, again: bool = False
) -> tuple[list[Run], Outcome]:
    """Tell the runs that are to be made from those that are done. Nothing in the folder is touched.

    :param runs: all runs of the sweep
    :param folder: of the sweep
    :param retry_failed: whether failed runs are to be made once more
    :param again: whether runs whose settings have changed since are to be made once more
    :return: what is to be made, and what is done
    :raises SweepError: if a record was made with other settings, or cannot be used
    """
    todo, outcome = [], Outcome([], [])
    problems, others = [], []
    for run in runs:
        try:
            record = find_record(folder / run.name)
        except RecordError as error:
            problems.append(str(error))
            continue
        if record is None:
            todo.append(run)
        elif differences := changes(record, run):
            others.append(f"{folder / run.name}: {', '.join(differences)}")
            todo.append(run)
        elif record["status"] == "finished":
            outcome.finished.append(run)
        elif record["status"] == "failed" and not retry_failed:
            outcome.failed.append(run)
        else:
            todo.append(run)
    if problems:
        raise SweepError(
            "\n".join(["These records cannot be used; remove them to have the runs made again:", *problems])
        )
    if others and not again:
        raise SweepError(
            f"{len(others)} of {len(runs)} runs were made with other settings; allowed: another folder, or --again to "
            "have them made anew in place of what is there:\n" + "\n".join(others)
        )
    return todo, outcome


def sweep(
    runs: Sequence[Run],
    folder: Path,
    executor: Executor,
    *,
    retry_failed: bool = False,
    again: bool = False,
) -> Outcome:
    """Make the runs that are missing, and go on with those that were interrupted.

    Several sweeps may work in one folder, from machines that share it, too: each run is made by one of them, and each
    ends when all of its runs are done.

    :param runs: all runs
    :param folder: where each has a folder of its own
    :param executor: where they are made; it is closed in the end
    :param retry_failed: see :func:`sort_out`
    :param again: see :func:`sort_out`
    :return: how the runs stand
    :raises SweepError: see :func:`sort_out`
    """
    try:
        todo, outcome = sort_out(runs, folder, retry_failed=retry_failed, again=again)
        return _Sweep(folder, executor, Progress(runs, folder), todo, outcome).complete()
    finally:
        executor.close()


class _Sweep:
    """The state of a sweep that goes on."""

    def __init__(self, folder: Path, executor: Executor, progress: Progress, todo: list[Run], outcome: Outcome) -> None:
        self.folder, self.executor, self.progress, self.outcome = folder, executor, progress, outcome
        self.todo = deque(todo)
        self.running: dict[str, Lock] = {}
        self.busy: list[Run] = []
        self.losses: dict[str, int] = {}
        self.last_refresh = self.last_look = time.monotonic()
        # What another sweep makes meanwhile counts; what had failed before, or was made with other settings, does not.
        self.stale = {run.name: _identity(folder / run.name) for run in todo}

    def complete(self) -> Outcome:
        """Go on until all runs are done."""
        self.progress.begin(self.outcome.finished, self.outcome.failed)
        try:
            while self.todo or self.running or self.busy:
                self._begin_some()
                for ended in self.executor.wait(POLL_SECONDS):
                    self._end(ended)
                self._look_after_locks()
                self.progress.show(self.executor.steps(), self.executor.n_slots)
        finally:
            self.executor.close()  # before others may take the runs
            for lock in self.running.values():
                lock.release()
            self.progress.close()
        return self.outcome

    def _begin_some(self) -> None:
        while self.todo and len(self.running) < self.executor.n_slots:
            run = self.todo.popleft()
            path = self.folder / run.name
            lock = Lock.take(path)
            if lock is None:
                self.busy.append(run)
                self.progress.wait_for(run, find_holder(path))
                continue
            self.running[run.name] = lock
            if status := self._new_status(run):
                self._note(run, status)
                self._release(run)
                continue
            record = find_record(path)
            if record is not None and changes(record, run):
                _clear(path, lock)
            self.progress.start(run)
            self.executor.submit(run, path)

    def _new_status(self, run: Run) -> str | None:
        """How a run has ended, if it has since this sweep began, here or in another one."""
        path = self.folder / run.name
        record = find_record(path)
        if record is None or record["status"] == "interrupted" or _identity(path) == self.stale[run.name]:
            return None
        return record["status"]

    def _end(self, ended: Ended) -> None:
        run, status = ended.run, self._new_status(ended.run)
        if status is None and ended.is_lost:
            self.losses[run.name] = self.losses.get(run.name, 0) + 1
            if self.losses[run.name] < MAX_LOSSES:
                self.progress.lose(run, ended.fault or "")
                self._release(run)
                self.todo.append(run)
                return
        if status is None:
            record_failure(run, self.folder / run.name, ended.fault or "It has left no record")
        self._note(run, status or "failed")
        self._release(run)

    def _note(self, run: Run, status: str) -> None:
        (self.outcome.finished if status == "finished" else self.outcome.failed).append(run)
        self.progress.end(run)

    def _release(self, run: Run) -> None:
        self.running.pop(run.name).release()

    def _look_after_locks(self) -> None:
        now = time.monotonic()
        if now - self.last_refresh > REFRESH_SECONDS:
            self.last_refresh = now
            for lock in self.running.values():
                lock.refresh()
        if self.busy and now - self.last_look > BUSY_SECONDS:
            self.last_look = now
            self.todo.extend(self.busy)
            self.busy.clear()


def _identity(folder: Path) -> tuple[int, int] | None:
    """Tells a record from a later one in its place."""
    path = folder / "result.json"
    if not path.exists():
        return None
    status = path.stat()
    return status.st_mtime_ns, status.st_ino


def _clear(folder: Path, lock: Lock) -> None:
    """Remove what an earlier run has left."""
    for path in folder.iterdir():
        if path == lock.path:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
