"""A run belongs to one process at a time, and to nobody when that is gone."""

import os
import subprocess
from pathlib import Path

import pytest

from sb3_pg_ext.evaluation import locks
from sb3_pg_ext.evaluation.locks import Lock, find_holder


def test_one_at_a_time(tmp_path):
    folder = tmp_path / "npg" / "seed_0"
    lock = Lock.take(folder)
    assert lock is not None
    assert find_holder(folder) == f"process {os.getpid()} of {locks.socket.gethostname()}"
    assert Lock.take(folder) is None
    assert lock.refresh()
    lock.release()
    assert not lock.refresh()
    assert find_holder(folder) == ""
    assert list(folder.iterdir()) == []
    assert Lock.take(folder) is not None


def test_what_a_dead_process_has_left_is_removed(tmp_path):
    process = subprocess.Popen(["sleep", "60"])
    started = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    left = tmp_path / f"lock.{process.pid}.{started}.abc.{locks.socket.gethostname()}"
    left.touch()
    assert Lock.take(tmp_path) is None
    process.kill()
    while not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT):
        pass
    assert Lock.take(tmp_path) is not None  # though nobody has asked for its exit status
    assert not left.exists()
    process.wait()


def test_another_process_of_the_same_number_does_not_count(tmp_path):
    (tmp_path / f"lock.{os.getpid()}.1.abc.{locks.socket.gethostname()}").touch()
    assert Lock.take(tmp_path) is not None


@pytest.mark.parametrize(("age", "holds"), [(10, True), (locks.STALE_SECONDS + 10, False)])
def test_of_another_machine_the_time_of_the_last_refreshing_counts(tmp_path, age, holds):
    other = tmp_path / "lock.17.4711.abc.node-3.cluster.org"
    other.touch()
    time = other.stat().st_mtime - age
    os.utime(other, (time, time))
    assert find_holder(tmp_path) == "process 17 of node-3.cluster.org"
    assert (Lock.take(tmp_path) is None) == holds
    assert other.exists() == holds


def test_of_two_that_come_at_the_same_time_one_steps_back(tmp_path, monkeypatch):
    """The second makes its file after the first has looked, or before: then it is seen."""
    look = locks._locks
    second = []

    def come_before_the_first_looks(folder):
        monkeypatch.setattr(locks, "_locks", look)
        second.append(Lock.take(folder))
        return look(folder)

    monkeypatch.setattr(locks, "_locks", come_before_the_first_looks)
    first = Lock.take(tmp_path)
    assert first is not None
    assert second == [None]
