"""What a sweep makes, keeps and refuses, with a trainer that trains nothing."""

import io
import json

import pytest
from trainers import make_run, train

from sb3_pg_ext.evaluation.locks import Lock
from sb3_pg_ext.evaluation.processes import Ended
from sb3_pg_ext.evaluation.progress import Progress, describe, duration
from sb3_pg_ext.evaluation.records import read_result, read_results, write_result
from sb3_pg_ext.evaluation.runs import perform
from sb3_pg_ext.evaluation.sweep import MAX_LOSSES, SweepError, sort_out, sweep


class InProcess:
    """Makes each run when it is waited for, in this process."""

    n_slots = 2

    def __init__(self, trainer=train):
        self.trainer, self.made, self.begun, self.is_closed = trainer, [], [], False

    def submit(self, run, folder):
        self.begun.append((run, folder))

    def wait(self, timeout):
        ended = [self.make(run, folder) for run, folder in self.begun]
        self.begun.clear()
        return ended

    def make(self, run, folder):
        self.made.append(run.name)
        perform(self.trainer, run, folder, lambda steps: None)
        return Ended(run)

    def steps(self):
        return {}

    def close(self):
        self.is_closed = True


RUNS = [make_run(seed, algo) for seed in (0, 1) for algo in ("toy", "other")]


def test_runs_leave_records_where_they_belong(tmp_path):
    executor = InProcess()
    outcome = sweep(RUNS, tmp_path, executor)
    assert executor.is_closed
    assert outcome.finished == RUNS
    assert outcome.failed == []
    record = read_result(tmp_path / "toy" / "Toy-v0" / "seed_1")
    assert record["status"] == "finished"
    assert (record["algo"], record["setting"], record["env"], record["seed"]) == ("toy", "default", "Toy-v0", 1)
    assert record["evaluation"]["returns"] == [1]
    assert record["curve"] == {"timesteps": [], "returns": [], "lengths": []}
    assert sorted(path.name for path in (tmp_path / "toy" / "Toy-v0" / "seed_1").iterdir()) == [
        "result.json",
        "trained.txt",
    ]


def test_a_finished_run_is_not_made_again(tmp_path):
    sweep(RUNS[:2], tmp_path, InProcess())
    before = (tmp_path / RUNS[0].name / "result.json").read_bytes()
    executor = InProcess()
    outcome = sweep(RUNS, tmp_path, executor)
    assert executor.made == [run.name for run in RUNS[2:]]
    assert outcome.finished == RUNS
    assert (tmp_path / RUNS[0].name / "result.json").read_bytes() == before


def test_a_failed_run_does_not_stop_the_others_and_is_retried_on_request(tmp_path):
    healthy = False

    def trainer(run, folder, report):
        if run.seed == 0 and not healthy:
            raise RuntimeError("nothing learned")
        return train(run, folder, report)

    runs = [make_run(seed) for seed in range(3)]
    assert [run.seed for run in sweep(runs, tmp_path, InProcess(trainer)).failed] == [0]
    record = read_result(tmp_path / runs[0].name)
    assert record["status"] == "failed"
    assert "RuntimeError: nothing learned" in record["traceback"]
    assert "in trainer" in record["traceback"]
    assert {record["status"] for record in read_results(tmp_path)[0]} == {"finished", "failed"}

    executor = InProcess(trainer)
    assert [run.seed for run in sweep(runs, tmp_path, executor).failed] == [0]
    assert executor.made == []
    healthy = True
    outcome = sweep(runs, tmp_path, InProcess(trainer), retry_failed=True)
    assert outcome.failed == []
    assert read_result(tmp_path / runs[0].name)["traceback"] is None


@pytest.mark.parametrize("status", ["finished", "failed", "interrupted"])
def test_other_settings_are_an_error_unless_asked_for(tmp_path, status):
    run = make_run(hyperparameters={"learning_rate": 0.1, "gamma": 0.9}, options={"final_episodes": 10})
    write_result(tmp_path / run.name, {**run.settings, "status": status})
    (tmp_path / run.name / "checkpoint").mkdir()
    (tmp_path / run.name / "checkpoint" / "old").touch()
    now = make_run(hyperparameters={"learning_rate": 0.2, "n_steps": 5}, options={"final_episodes": 10})
    executor = InProcess()
    with pytest.raises(SweepError) as refusal:
        sweep([now], tmp_path, executor)
    message = str(refusal.value)
    assert f"{tmp_path / run.name}: gamma was 0.9, and is not given, learning_rate was 0.1, and is 0.2" in message
    assert "n_steps was not given, and is 5" in message
    assert "allowed: another folder, or --again" in message
    assert executor.made == []
    assert executor.is_closed
    assert read_result(tmp_path / run.name)["status"] == status

    sweep([now], tmp_path, InProcess(), again=True)
    assert read_result(tmp_path / run.name)["hyperparameters"] == {"learning_rate": 0.2, "n_steps": 5}
    assert not (tmp_path / run.name / "checkpoint").exists()


def test_settings_are_compared_as_the_record_holds_them(tmp_path):
    run = make_run(hyperparameters={"betas": (0.9, 0.99), "policy_kwargs": {"net_arch": [4], 1: None}})
    sweep([run], tmp_path, InProcess())
    assert sort_out([run], tmp_path)[1].finished == [run]


def test_a_record_that_cannot_be_used_is_named(tmp_path):
    path = tmp_path / RUNS[0].name
    path.mkdir(parents=True)
    (path / "result.json").write_text('{"format": 1')
    with pytest.raises(SweepError, match=r"remove them .*\n.*seed_0/result.json is no JSON; was it cut short"):
        sweep(RUNS, tmp_path, InProcess(), again=True)


def test_an_interrupted_run_goes_on(tmp_path):
    """Its record says so, and how long all parts took."""

    def trainer(run, folder, report):
        resumed = (folder / "checkpoint").exists()
        (folder / "checkpoint").mkdir(exist_ok=True)
        if not resumed:
            raise KeyboardInterrupt
        return {"resumed": True}

    run = make_run()
    with pytest.raises(KeyboardInterrupt):
        sweep([run], tmp_path, InProcess(trainer))
    record = read_result(tmp_path / run.name)
    assert (record["status"], record["resumed"]) == ("interrupted", 0)
    assert list((tmp_path / run.name).glob("lock*")) == []
    (tmp_path / run.name / "result.json").write_text(json.dumps({**record, "seconds": 1000.0}))
    sweep([run], tmp_path, InProcess(trainer))
    record = read_result(tmp_path / run.name)
    assert (record["status"], record["resumed"]) == ("finished", 1)
    assert record["seconds"] >= 1000
    assert not (tmp_path / run.name / "checkpoint").exists()


def test_what_another_sweep_makes_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("sb3_pg_ext.evaluation.sweep.BUSY_SECONDS", 0.0)
    others = [Lock.take(tmp_path / run.name) for run in RUNS[:2]]
    waits = 0

    class Other(InProcess):
        def wait(self, timeout):
            nonlocal waits
            waits += 1
            if waits == 3:  # the other sweep finishes one, and dies over the second
                perform(train, RUNS[0], tmp_path / RUNS[0].name, lambda steps: None)
                for lock in others:
                    lock.release()
            return super().wait(timeout)

    executor = Other()
    outcome = sweep(RUNS, tmp_path, executor)
    assert sorted(executor.made) == sorted(run.name for run in RUNS[1:])
    assert len(outcome.finished) == len(RUNS)


def test_a_failure_that_another_sweep_has_retried_counts(tmp_path):
    run = make_run()
    write_result(tmp_path / run.name, {**run.settings, "status": "failed"})

    class Other(InProcess):
        def submit(self, run, folder):
            raise AssertionError("it was made by the other")

    progress_begins = Progress.begin

    def begin(self, *arguments):  # between the sorting out and the lock
        perform(train, run, tmp_path / run.name, lambda steps: None)
        progress_begins(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "begin", begin)
        assert sweep([run], tmp_path, Other(), retry_failed=True).finished == [run]


def test_a_run_whose_process_died_is_recorded(tmp_path):
    class Dying(InProcess):
        def make(self, run, folder):
            return Ended(run, "Worker 0 was killed by SIGKILL")

    assert sweep(RUNS[:1], tmp_path, Dying()).failed == RUNS[:1]
    record = read_result(tmp_path / RUNS[0].name)
    assert record["traceback"] == "Worker 0 was killed by SIGKILL"
    assert record["versions"]["python"]


def test_a_lost_run_is_begun_again_but_not_for_ever(tmp_path):
    class Losing(InProcess):
        def make(self, run, folder):
            if run.seed == 0 or len(self.made) < 2:
                self.made.append(run.name)
                return Ended(run, "The node is gone", is_lost=True)
            return super().make(run, folder)

    executor = Losing()
    outcome = sweep([make_run(0), make_run(1)], tmp_path, executor)
    assert [run.seed for run in outcome.failed] == [0]
    assert executor.made.count(make_run(0).name) == MAX_LOSSES
    assert executor.made.count(make_run(1).name) == 2
    assert read_result(tmp_path / make_run(0).name)["traceback"] == "The node is gone"


def test_progress_and_the_time_that_is_left(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("sb3_pg_ext.evaluation.progress.time.monotonic", lambda: clock[0])
    runs = [make_run(seed, n_timesteps=steps) for seed, steps in enumerate((100, 100, 400))]
    write_result(tmp_path / runs[0].name, {**runs[0].settings, "status": "finished", "seconds": 10.0})
    stream = io.StringIO()
    progress = Progress(runs, tmp_path, stream)
    progress.begin([], [])
    assert progress.seconds_left() is None
    for run in runs[:2]:
        progress.start(run)
    progress.show({}, 2)
    progress.end(runs[0])
    progress.show({runs[1].name: 20}, 2)
    assert progress.seconds_left() == pytest.approx(0.1 * 400)  # the longest, not half the sum
    clock[0] = 12.0
    progress.show({runs[1].name: 60}, 1)
    assert progress.seconds_left() == pytest.approx((0.1 + 12 / 40) / 2 * 440)
    progress.close()
    lines = stream.getvalue().splitlines()
    assert lines[0] == f"3 runs in {tmp_path}"
    assert lines[1].split(" ", 1)[1] == "1/3, 40 s left: toy Toy-v0 seed 0: finished in 10 s"
    assert lines[2] == "1 of 3 runs are finished, 2 are left: the same command goes on"


def test_words_for_results():
    assert [duration(seconds) for seconds in (3.2, 600, 10000)] == ["3 s", "10 min", "2.8 h"]
    assert describe({"status": "failed", "traceback": "Traceback\nValueError: no\n"}) == "failed: ValueError: no"
    record = {"status": "finished", "seconds": 3.0, "evaluation": {"returns": [1.0, 3.0]}}
    assert describe(record) == "return 2.0 ± 1.0 in 3 s"
