"""A finished run is kept, whatever happens to the others."""

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from runs import complete, read

ROOT = Path(__file__).parents[2]


def job(number):
    if number < 0:
        raise RuntimeError("no such run")
    return {"number": number}


@pytest.fixture(params=["a thread", "here"])
def pool(request):
    """Where the runs are made."""
    with ThreadPoolExecutor(1) as threads:
        yield threads if request.param == "a thread" else None


def test_results_are_appended_and_progress_is_shown(pool, tmp_path, capsys):
    path = tmp_path / "new" / "runs.jsonl"
    for numbers in ([1, 2], [3]):
        complete(path, [partial(job, number) for number in numbers], pool, lambda run: f"number {run['number']}")
    assert read(path) == [{"number": 1}, {"number": 2}, {"number": 3}]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [
        "1/2, 0 min left: number 1",
        "2/2, 0 min left: number 2",
        "1/1, 0 min left: number 3",
    ]


def test_nothing_to_do(pool, tmp_path):
    complete(tmp_path / "runs.jsonl", [], pool, json.dumps)
    assert read(tmp_path / "runs.jsonl") == []


def test_what_was_finished_before_a_failure_is_kept(pool, tmp_path):
    path = tmp_path / "runs.jsonl"
    with pytest.raises(RuntimeError, match="no such run"):
        complete(path, [partial(job, number) for number in (1, -1, 2)], pool, json.dumps)
    assert {"number": 1} in read(path)


def test_ctrl_c_ends_a_run_that_is_made_here(tmp_path):
    """In a thread it would be waited for."""
    begun = []

    def run():
        begun.append(threading.current_thread())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        complete(tmp_path / "runs.jsonl", [run, run], None, json.dumps)
    assert begun == [threading.main_thread()]


SCRIPT = """
import time
from pathlib import Path
from runs import complete, processes

def run():
    print("begun", flush=True)
    time.sleep(600)

if __name__ == "__main__":
    with processes(1) as pool:
        complete(Path("runs.jsonl"), [run] * 3, pool, str)
"""


@pytest.mark.slow
def test_ctrl_c_ends_runs_in_processes(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True, **pipes) as process:
        try:
            assert process.stdout.readline() == "begun\n"
            os.killpg(process.pid, signal.SIGINT)
            _, said = process.communicate(timeout=20)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0
    assert said.rstrip().endswith("KeyboardInterrupt")
