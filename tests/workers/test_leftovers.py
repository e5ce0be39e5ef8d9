"""What the tests of workers look for in shared memory, so that tests that run beside them do not disturb."""

import os
import subprocess
import sys
import uuid

import pytest
from leftovers import SHARED_MEMORY, nothing_left, shared_memory


@pytest.fixture
def leave():
    """Leaves a file in shared memory, until the end of the test."""
    paths = []

    def leave(name):
        paths.append(SHARED_MEMORY / name)
        paths[-1].touch()
        return name

    yield leave
    for path in paths:
        path.unlink(missing_ok=True)


@pytest.mark.skipif(not SHARED_MEMORY.exists(), reason="this system shows no shared memory as files")
def test_only_what_workers_of_this_process_may_have_left_is_found(leave):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    unique = uuid.uuid4().hex
    ours = {leave(f"torch_{pid}_{unique}_0") for pid in (os.getpid(), dead.pid)}
    others = {leave(f"torch_{other.pid}_{unique}_0"), leave(f"sem.mp-{unique}")}
    found = shared_memory()
    assert ours <= found
    assert not found & others
    other.communicate(b"\n")


@pytest.mark.skipif(not SHARED_MEMORY.exists(), reason="this system shows no shared memory as files")
def test_what_stays_behind_is_an_error(leave):
    with pytest.raises(AssertionError), nothing_left():
        leave(f"torch_{os.getpid()}_{uuid.uuid4().hex}_0")
