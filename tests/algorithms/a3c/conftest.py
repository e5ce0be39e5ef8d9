import multiprocessing
from pathlib import Path

import pytest


def shared_memory():
    """What lies in shared memory under a name of PyTorch or multiprocessing."""
    folder = Path("/dev/shm")
    return {path.name for path in folder.glob("*") if path.name.startswith(("torch_", "psm_", "sem.mp"))}


@pytest.fixture(autouse=True)
def _nothing_stays_behind():
    """No worker lives on after a test, and no shared memory keeps its name."""
    before = shared_memory()
    yield
    assert multiprocessing.active_children() == []
    assert shared_memory() <= before
