"""Runs in processes of their own."""

import os
import signal
import time

import pytest
from leftovers import alive, nothing_left
from trainers import make_run, train

from sb3_pg_ext.evaluation.processes import OUTPUT_FILE, LocalProcesses
from sb3_pg_ext.evaluation.records import read_result
from sb3_pg_ext.evaluation.sweep import sweep


def test_one_that_dies_takes_no_other_with_it(tmp_path):
    runs = [make_run(seed, hyperparameters={"do": do}) for seed, do in enumerate(("die", "crash", "raise", None))]
    with nothing_left():
        outcome = sweep(runs, tmp_path, LocalProcesses(train, 2))
    assert [run.seed for run in outcome.finished] == [3]
    killed, crashed, raised, finished = (read_result(tmp_path / run.name) for run in runs)
    assert {record["status"] for record in (killed, crashed, raised)} == {"failed"}
    assert "The last lines of" in killed["traceback"]
    assert killed["traceback"].endswith("\nThe process of the run was killed by SIGKILL")
    assert "training with seed 0" in killed["traceback"]
    assert "was killed by SIGSEGV" in crashed["traceback"]
    assert "Fatal Python error: Segmentation fault" in crashed["traceback"]
    assert "RuntimeError: nothing learned" in raised["traceback"]
    assert finished["evaluation"]["returns"] == [3]
    assert "training with seed 3" in (tmp_path / runs[3].name / OUTPUT_FILE).read_text()


def test_ctrl_c_ends_what_runs(tmp_path):
    class Interrupted(LocalProcesses):
        def wait(self, timeout):
            ended = super().wait(timeout)
            if self.steps():  # the run has begun
                raise KeyboardInterrupt
            return ended

    run = make_run(hyperparameters={"do": "wait"})
    with nothing_left(), pytest.raises(KeyboardInterrupt):
        sweep([run], tmp_path, Interrupted(train, 1))
    assert read_result(tmp_path / run.name)["status"] == "interrupted"
    (tmp_path / run.name / "go").touch()
    assert sweep([run], tmp_path, LocalProcesses(train, 1)).finished == [run]
    first, second = (tmp_path / run.name / "trained.txt").read_text().split()
    assert first != second


def test_a_worker_alone_is_killed(tmp_path):
    """By the kernel, because memory is short: the others go on."""
    runs = [make_run(seed, hyperparameters={"do": "wait"}) for seed in (0, 1)]
    executor = LocalProcesses(train, 2)
    for run in runs:
        executor.submit(run, tmp_path / run.name)
    deadline = time.monotonic() + 60
    while len(executor.steps()) < 2 and time.monotonic() < deadline:
        assert executor.wait(0.1) == []
    victim = int((tmp_path / runs[0].name / "trained.txt").read_text())
    os.kill(victim, signal.SIGKILL)
    ended = []
    while not ended and time.monotonic() < deadline:
        ended = executor.wait(0.1)
    assert [(each.run, "SIGKILL" in each.fault) for each in ended] == [(runs[0], True)]
    (tmp_path / runs[1].name / "go").touch()
    while len(ended) < 2 and time.monotonic() < deadline:
        ended += executor.wait(0.1)
    assert (ended[1].run, ended[1].fault) == (runs[1], None)
    executor.close()
    assert not alive(victim)
