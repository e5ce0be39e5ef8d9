"""The pool with targets that have nothing to do with learning."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jobs
import pytest
from leftovers import alive

from sb3_pg_ext.workers.pool import WorkerError, WorkerPool
from sb3_pg_ext.workers.shared_memory import SharedArray

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


@pytest.fixture
def make():
    """Makes pools, and stops them after the test."""
    pools = []

    def make(target, configs, **kwargs):
        shared = SharedArray(len(configs))
        arguments = {
            "progress": lambda index: shared.array[index],
            "on_restart": lambda index: None,
            "name": "test worker",
            "no_progress": "no progress",
            "entropy": 5,
            "start_method": "fork",
            "worker_timeout": 60.0,
            "max_restarts": 0,
            **kwargs,
        }
        pools.append(WorkerPool(target, configs, shared, **arguments))
        return pools[-1]

    yield make
    for pool in pools:
        pool.stop()


def run(pool, seconds=30):
    """Everything that is reported until all have finished."""
    pool.start()
    reports, deadline = [], time.monotonic() + seconds
    while not pool.finished:
        assert time.monotonic() < deadline
        reports += pool.receive()
    return reports


@pytest.mark.parametrize("start_method", ["fork", "forkserver", "spawn"])
def test_workers_get_what_they_need_and_report_any_object(make, start_method):
    pool = make(jobs.tell, [float, lambda number: 2 * number], start_method=start_method)
    reports = run(pool)
    assert sorted(index for index, _ in reports) == [0, 0, 1, 1]
    told = {index: report for index, report in reports if report is not None}
    assert [told[index]["result"] for index in (0, 1)] == [5.0, 10]
    assert [told[index]["pid"] for index in (0, 1)] == pool.pids
    assert told[0]["seed"] != told[1]["seed"]
    assert pool.shared.array.tolist() == [1, 1]
    pool.stop()
    assert not any(map(alive, pool.pids))


def test_seeds_follow_from_the_entropy(make):
    seeds = [
        [report["seed"] for _, report in sorted(run(make(jobs.tell, [float] * 2, entropy=entropy)), key=str) if report]
        for entropy in (5, 5, 6)
    ]
    assert set(seeds[0]) == set(seeds[1])
    assert not set(seeds[0]) & set(seeds[2])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raise", r"Worker 1 has failed:(.|\n)*jobs.py(.|\n)*ZeroDivisionError: out of order$"),
        ("kill", "Worker 1 was killed by SIGKILL$"),
        ("exit", "Worker 1 has ended with the exit status 3$"),
        ("leave", "Worker 1 has ended with the exit status 4$"),
        ("block", "Worker 1 has made no progress for 1 seconds, worker_timeout=1$"),
    ],
)
def test_a_failure_is_an_error_after_all_reports(make, how, message):
    pool = make(jobs.misbehave, [how] * 2, worker_timeout=1.0)
    pool.start()
    reports = []

    def receive():
        while True:
            reports.extend(pool.receive())

    with pytest.raises(WorkerError, match=message):
        receive()
    assert [index for index, _ in reports] == [1, 1, 1]
    assert alive(pool.pids[0])
    pool.stop()
    assert not any(map(alive, pool.pids))


@pytest.mark.parametrize("how", ["raise", "kill", "block"])
def test_a_replacement_has_another_seed_and_comes_after_all_reports(make, how):
    reports, before_restarts = [], []
    pool = make(
        jobs.misbehave,
        [how] * 2,
        worker_timeout=1.0,
        max_restarts=2,
        on_restart=lambda index: before_restarts.append((index, len(reports))),
    )
    pool.start()

    def receive():
        while True:
            reports.extend(pool.receive())

    with pytest.raises(WorkerError, match=r"^After 2 restarts: Worker"):
        receive()
    assert before_restarts == [(1, 3), (1, 6)]
    seeds = [seed for _, seed in reports]
    assert len(seeds) == 9
    assert len(set(seeds)) == 3
    assert pool.n_restarts == 2


def test_stopping_lets_workers_end_by_themselves(make):
    pool = make(jobs.count, [None] * 2)
    pool.start()
    while not pool.shared.array.all():
        pool.receive()
    assert not pool.finished
    start = time.monotonic()
    pool.stop()
    assert time.monotonic() - start < 2
    assert pool.shared.array.tolist() == [-1, -1]
    assert pool.finished
    assert pool.receive() == []


def test_a_second_ctrl_c_leaves_nobody(make):
    """One that arrives while workers are stopped."""
    pool = make(jobs.misbehave, ["block"] * 2)
    pool.start()
    while not pool.shared.array.all():
        pool.receive()
    thread = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        pool.stop()
    thread.join()
    assert not any(map(alive, pool.pids))


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_what_cannot_be_sent(make, start_method):
    with pytest.raises(ValueError, match=f"start_method='{start_method}'.*cannot be pickled.*lock"):
        make(jobs.tell, [threading.Lock()], start_method=start_method)


SCRIPT = """
import jobs, multiprocessing, os, signal, sys
from sb3_pg_ext.workers.pool import WorkerPool
from sb3_pg_ext.workers.shared_memory import SharedArray

def start(target, start_method):
    shared = SharedArray(2)
    pool = WorkerPool(
        target, [None] * 2, shared, progress=lambda index: shared.array[index], on_restart=print, name="worker",
        no_progress="no progress", entropy=0, start_method=start_method, worker_timeout=60.0, max_restarts=3,
    )
    pool.start()
    return pool

def live(start_method):
    pool = start(jobs.count, start_method)
    while not pool.shared.array.all(): pool.receive()
    print("workers", *pool.pids, flush=True)

def optimize():
    pool = start(jobs.optimize, "forkserver")
    while not pool.finished: print("imported", *[report for _, report in pool.receive()], flush=True)
    pool.stop()

if __name__ == "__main__":
    for life in LIVES:
        if os.fork() == 0:
            exec(life)
            break
        os.wait()
"""
ENDINGS = {
    "return": "pass",
    "exit": "sys.exit(5)",
    "exception": "1 / 0",
    "at once": "os._exit(6)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "SIGINT": "os.kill(os.getpid(), signal.SIGINT)",
}
CHILD = "multiprocessing.get_context('fork').Process(target=live, args=('fork',))"
LIVES = {
    **{name: f"live('fork'); {ending}" for name, ending in ENDINGS.items()},
    "a child of the parent": f"process = {CHILD}; process.start(); process.join()",
    "forkserver": "optimize(); live('forkserver')",
    "forkserver killed": f"live('forkserver'); {ENDINGS['SIGKILL']}",
}


@pytest.fixture(scope="module")
def told():
    """What parents tell that nobody has told to stop their workers, one after the other, each with its fork server."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("LIVES", repr([*LIVES.values()]))],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        check=True,
    )
    return [line.split() for line in done.stdout.splitlines()]


def test_what_pytorch_imports_late_is_there_when_a_fork_server_starts_a_worker(told):
    assert [report for what, *reports in told if what == "imported" for report in reports] == ["[]", "[]"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the states of processes from /proc")
def test_workers_that_nobody_stops_do_not_outlive_the_parent(told):
    workers = [[int(pid) for pid in pids] for what, *pids in told if what == "workers"]
    assert [len(pids) for pids in workers] == [2] * len(LIVES)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(alive(pid) for pids in workers for pid in pids):
        time.sleep(0.05)
    assert [name for name, pids in zip(LIVES, workers, strict=True) if any(map(alive, pids))] == []
