"""Who works on a run: locks that end with their process, for sweeps that share a folder."""

import os
import socket
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PREFIX = "lock"
STALE_SECONDS = 300.0
"""A lock of another machine counts if it was refreshed within this time; of this one, if its process lives."""


@dataclass(frozen=True)
class Lock:
    """A run that is this process's own, until :meth:`release` or the end of the process.

    :param path: the file that says so; its name holds the process, when that began, and the machine
    """

    path: Path

    @classmethod
    def take(cls, folder: Path) -> "Lock | None":
        """Take the lock of a folder.

        Every process makes a file of its own name and then looks for others. So of two that come at the same time at
        least one sees the other and steps back, and what a dead process has left can be removed without a race.

        :param folder: the folder of a run, which is made if it is not there
        :return: None if somebody else has it
        """
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{PREFIX}.{os.getpid()}.{_start_time(os.getpid())}.{uuid.uuid4().hex}.{socket.gethostname()}"
        lock = cls(folder / name)
        lock.path.touch(exist_ok=False)
        now = lock.path.stat().st_mtime  # by the clock of the disk, as that of the others
        for other in _locks(folder):
            if other == lock.path:
                continue
            if _is_alive(other, now):
                lock.release()
                return None
            other.unlink(missing_ok=True)
        return lock

    def refresh(self) -> bool:
        """Tell other machines that the lock still holds.

        :return: whether it does: not if somebody has taken this process for dead
        """
        try:
            os.utime(self.path)
        except FileNotFoundError:
            return False
        return True

    def release(self) -> None:
        """Give the lock back."""
        self.path.unlink(missing_ok=True)


def find_holder(folder: Path) -> str:
    """Who has the lock of a folder, in words; an empty string if nobody has."""
    for path in _locks(folder):
        _, pid, _, _, host = path.name.split(".", 4)
        return f"process {pid} of {host}"
    return ""


def _locks(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"{PREFIX}.*") if path.name.count(".") >= 4)


def _is_alive(path: Path, now: float) -> bool:
    _, pid, started, _, host = path.name.split(".", 4)
    if host == socket.gethostname():
        return _start_time(int(pid)) == started
    with suppress(FileNotFoundError):
        return now - path.stat().st_mtime < STALE_SECONDS
    return False


def _start_time(pid: int) -> str:
    """When a process began, so that a later one of the same number is told apart; "gone" if there is none."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "gone"
    except PermissionError:  # another user's
        pass
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return "0" if not Path("/proc/self").exists() else "gone"
    return "gone" if fields[0] == "Z" else fields[19]
