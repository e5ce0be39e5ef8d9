"""What processes that a test started may have left behind."""

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def shared_memory() -> set[str]:
    """Memory that PyTorch shares under a name that is still there: this process's own, and that of dead ones.

    PyTorch calls it ``torch_<process id>_…``. Other processes that run tests have theirs, for a moment; and semaphores,
    which do not say whose they are, and of which workers have none.
    """
    names = set()
    for path in SHARED_MEMORY.glob("torch_*"):
        pid = int(path.name.split("_")[1])
        if pid == os.getpid() or not alive(pid):
            names.add(path.name)
    return names


@contextmanager
def nothing_left() -> Iterator[None]:
    """In the end no worker lives on, and no shared memory keeps its name."""
    before = shared_memory()
    yield
    assert multiprocessing.active_children() == []
    assert shared_memory() <= before
