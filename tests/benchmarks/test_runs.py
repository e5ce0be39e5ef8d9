"""A finished run is kept, whatever happens to the others."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from runs import complete, read


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
