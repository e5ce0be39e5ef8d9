"""A3C never hangs and leaves nothing behind, whatever happens to its workers: with real processes and signals."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch as th
import troubled
from leftovers import alive
from stable_baselines3.common.callbacks import BaseCallback
from troubled import Assisted, Troubled

from sb3_pg_ext.algorithms.a3c import A3C
from sb3_pg_ext.workers.pool import WorkerError

FOREVER = 10**9
SMALL = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu", "seed": 0}

# Forks of a process with threads may warn, which pytest makes an error.
pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


def build(*environments, start_method="fork", **kwargs):
    return A3C("MlpPolicy", list(environments), start_method=start_method, **SMALL, **kwargs)


def vector(model):
    return th.nn.utils.parameters_to_vector(model.policy.parameters()).detach().clone()


def assert_has_progressed(model, before, path):
    """What was reached is kept and can be saved, and training goes on."""
    after = vector(model)
    assert model.num_timesteps > 0
    assert model._n_updates > 0
    assert not th.equal(before, after)
    model.save(path / "model")
    loaded = A3C.load(path / "model")
    th.testing.assert_close(loaded.get_parameters(), model.get_parameters(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("raise", r"Worker 1 has failed:(.|\n)*troubled.py(.|\n)*ZeroDivisionError: the environment is out of order"),
        ("kill", "Worker 1 was killed by SIGKILL"),
        ("exit", "Worker 1 has ended with the exit status 3"),
        ("block", "Worker 1 has made neither a step nor an update for 2 seconds, worker_timeout=2"),
    ],
)
def test_a_failing_worker_is_an_error(trouble, message, tmp_path):
    model = build(partial(Troubled, delay=0.001), partial(Troubled, trouble, at=60), worker_timeout=2)
    before = vector(model)
    with pytest.raises(WorkerError, match=message):
        model.learn(FOREVER)
    assert_has_progressed(model, before, tmp_path)


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_a_failing_worker_is_an_error_however_it_was_started(start_method, tmp_path):
    model = build(partial(Troubled, "raise"), start_method=start_method)
    before = vector(model)
    with pytest.raises(WorkerError, match="ZeroDivisionError: the environment is out of order"):
        model.learn(FOREVER)
    assert_has_progressed(model, before, tmp_path)


def test_an_environment_that_cannot_be_built_is_an_error():
    calls = []

    def build_once():
        calls.append(0)
        if len(calls) > 1:
            raise OSError("no display")
        return Troubled()

    with pytest.raises(WorkerError, match=r"Worker 0 has failed:(.|\n)*OSError: no display"):
        build(build_once).learn(FOREVER)


def test_a_learning_rate_that_falls_below_0_is_an_error():
    model = build(Troubled, learning_rate=lambda progress_remaining: progress_remaining - 0.5)
    with pytest.raises(WorkerError, match=r"ValueError: learning_rate=-0\.\d+ at a remaining progress of 0\.4"):
        model.learn(200)
    assert model.num_timesteps >= 100


class Mishap(Exception):
    pass


def test_an_exception_in_a_callback_ends_the_workers(tmp_path):
    def fail(caller, _):
        if caller["self"].num_timesteps >= 400:
            raise Mishap
        return True

    model = build(Troubled, Troubled)
    before = vector(model)
    with pytest.raises(Mishap):
        model.learn(FOREVER, fail)
    assert_has_progressed(model, before, tmp_path)


def test_an_exception_while_an_environment_blocks(tmp_path):
    def fail(caller, _):
        if caller["self"].num_timesteps >= 200:
            raise Mishap
        return True

    model = build(partial(Troubled, "block"), Troubled)
    start = time.monotonic()
    with pytest.raises(Mishap):
        model.learn(FOREVER, fail)
    assert time.monotonic() - start < 10


def test_stopping_takes_less_than_a_second(tmp_path):
    class Stop(BaseCallback):
        def _on_step(self):
            self.time = time.monotonic()
            return self.n_calls < 200

    callback = Stop()
    model = build(partial(Troubled, delay=0.01), Troubled)
    before = vector(model)
    model.learn(FOREVER, callback)
    assert time.monotonic() - callback.time < 1
    assert callback.n_calls == 200
    assert model.num_timesteps >= 400
    assert_has_progressed(model, before, tmp_path)


def test_ctrl_c_ends_the_workers(tmp_path):
    model = build(Troubled, Troubled)
    before = vector(model)

    def interrupt():
        while model.num_timesteps < 400:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        model.learn(FOREVER)
    thread.join()
    assert_has_progressed(model, before, tmp_path)


SCRIPT = """
from functools import partial
from troubled import Troubled
from sb3_pg_ext.algorithms.a3c import A3C

def tell(caller, _):
    if caller["n_calls"] == 0:
        print(*caller["self"]._pool.pids, flush=True)
    return True

if __name__ == "__main__":
    environments = [partial(Troubled, "block"), partial(Troubled, delay=0.01)]
    model = A3C("MlpPolicy", environments, seed=0)
    try:
        model.learn(10**9, tell)
    except KeyboardInterrupt:
        model.save("{path}")
"""


def workers_of(process, line):
    """The process ids that a new process tells."""
    workers = [int(pid) for pid in line.split()]
    assert len(workers) == 2, f"{process} told {line!r}"
    return workers


def start(script):
    """Start a script that tells the process ids of its workers."""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(troubled.__file__).parent)},
        start_new_session=True,
    )
    return process, workers_of(process, process.stdout.readline())


def start_child(*environments):
    """Fork a child that trains and tells the process ids of its workers."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def train():
        def tell(caller, _):
            if caller["n_calls"] == 0:
                caller["self"].env.close()
                sender.send(" ".join(map(str, caller["self"]._pool.pids)))
            return True

        build(*environments).learn(FOREVER, tell)

    process = context.Process(target=train)
    process.start()
    assert receiver.poll(60)
    return process, workers_of(process, receiver.recv())


def assert_ends(pids, seconds=10):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(map(alive, pids)):
        time.sleep(0.05)
    assert not any(map(alive, pids))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the states of processes from /proc")
def test_ctrl_c_at_the_keyboard_reaches_all_processes_and_the_parent_saves(tmp_path):
    process, workers = start(SCRIPT.format(path=tmp_path / "model"))
    os.killpg(process.pid, signal.SIGINT)
    for worker in workers:  # they have groups of their own
        os.kill(worker, signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 0
    assert A3C.load(tmp_path / "model").num_timesteps > 0
    assert_ends(workers)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the states of processes from /proc")
def test_workers_do_not_outlive_a_parent_that_is_killed():
    process, workers = start_child(partial(Troubled, "block"), partial(Troubled, delay=0.01))
    process.kill()
    process.join(10)
    assert_ends(workers)


LEAVING = """
import threading
from troubled import Assisted
from sb3_pg_ext.algorithms.a3c import A3C

def train():
    model.learn(10**9, tell)

def tell(caller, _):
    trains.set()
    return True

if __name__ == "__main__":
    trains = threading.Event()
    model = A3C("MlpPolicy", [lambda: Assisted("{folder}")] * 2, seed=0, start_method="fork")
    threading.Thread(target=train, daemon=True).start()
    trains.wait()
    model.env.close()
    print(*model._pool.pids, flush=True)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the states of processes from /proc")
def test_the_interpreter_exits_while_a_thread_trains(tmp_path):
    process, workers = start(LEAVING.format(folder=tmp_path))
    process.communicate(timeout=10)  # with any status: PyTorch may abort where the exit interrupts a thread in it
    assert_ends([*workers, *assistants(tmp_path, 1)])  # the second worker may not have come to start its own


def assistants(folder, n=2):
    """Of workers; those of the parent's environments, of which there are as many, are gone."""
    pids = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
    assert len(pids) >= 2 * n
    return pids


@pytest.mark.parametrize("start_method", ["fork", "forkserver"])
def test_environments_may_start_processes(start_method, tmp_path):
    model = build(*[partial(Assisted, str(tmp_path))] * 2, start_method=start_method)
    before = vector(model)
    model.learn(500)
    assert_has_progressed(model, before, tmp_path)
    model.env.close()
    assert_ends(assistants(tmp_path), 0)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the states of processes from /proc")
@pytest.mark.parametrize(("trouble", "message"), [("kill", "killed by SIGKILL"), ("block", "neither a step")])
def test_a_worker_that_is_killed_takes_along_what_it_has_started(trouble, message, tmp_path):
    make = partial(Assisted, str(tmp_path))
    model = build(make, partial(make, trouble), worker_timeout=2)
    start = time.monotonic()
    with pytest.raises(WorkerError, match=message):
        model.learn(FOREVER)
    assert time.monotonic() - start < 10
    model.env.close()
    assert_ends(assistants(tmp_path), 1)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the states of processes from /proc")
def test_what_workers_have_started_does_not_outlive_a_parent_that_is_killed(tmp_path):
    process, workers = start_child(*[partial(Assisted, str(tmp_path))] * 2)
    process.kill()
    process.join(10)
    assert_ends([*workers, *assistants(tmp_path)])


def test_in_a_daemonic_process_it_says_what_is_allowed():
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    model = build(Troubled)

    def train():
        try:
            model.learn(100)
        except RuntimeError as error:
            sender.send(str(error))

    process = context.Process(target=train, daemon=True, name="the nursery")
    process.start()
    process.join()
    assert receiver.poll()
    assert re.search("A3C workers cannot.* the nursery, is daemonic.*allowed: .*daemon=False", receiver.recv())
    model.learn(100)


@pytest.mark.parametrize("trouble", ["raise", "kill", "block"])
def test_restart(trouble, tmp_path):
    mark = tmp_path / "happened"
    model = build(
        partial(Troubled, delay=0.002),
        partial(Troubled, trouble, mark=str(mark)),
        on_worker_failure="restart",
        worker_timeout=2,
    )
    calls = []
    model.learn(3000, lambda caller, _: calls.append(set(caller["workers"])) is None)
    assert mark.exists()
    assert model._n_restarts == 1
    assert len(calls) == model.num_timesteps // 2 >= 1500
    assert {1} in calls[-100:] or {0, 1} in calls[-100:]  # the new one works
    assert_has_progressed(model, vector(build(Troubled, Troubled)), tmp_path)


def test_restarts_have_a_limit():
    model = build(Troubled, partial(Troubled, "exit", at=20), on_worker_failure="restart", max_restarts=2)
    with pytest.raises(WorkerError, match=r"After 2 restarts: .*exit status 3"):
        model.learn(FOREVER)
    assert model._n_restarts == 2
