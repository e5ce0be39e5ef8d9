"""A record is read as it was written, and one that cannot be used is named."""

import json
import os

import numpy as np
import pytest

from sb3_pg_ext.checkpoints import saving
from sb3_pg_ext.evaluation import records
from sb3_pg_ext.evaluation.records import RecordError, read_result, read_results, write_result

RUN = {"algo": "npg", "setting": "default", "env": "CartPole-v1", "seed": 0, "n_timesteps": 100, "status": "finished"}


def write(path, text):
    path.mkdir(parents=True, exist_ok=True)
    (path / "result.json").write_text(text)


def test_a_record_comes_back(tmp_path):
    result = {**RUN, "curve": {"timesteps": [10, 20], "returns": [1.5, 0.1], "lengths": [10, 10]}, "later": {"a": [1]}}
    write_result(tmp_path / "run", result)
    assert read_result(tmp_path / "run") == {"format": 1, **result}
    assert read_result(tmp_path / "run" / "result.json") == {"format": 1, **result}
    assert os.listdir(tmp_path / "run") == ["result.json"]


def test_numbers_of_numpy_and_non_finite_ones_are_jsons(tmp_path):
    values = np.array([1.5, np.nan, np.inf], dtype=np.float32)
    write_result(
        tmp_path, {**RUN, "seed": np.int64(3), "hyperparameters": {"clip": values, 1: (2, None), "cls": os.PathLike}}
    )
    read = read_result(tmp_path)
    assert read["seed"] == 3
    assert read["hyperparameters"] == {"clip": [1.5, None, None], "1": [2, None], "cls": "<class 'os.PathLike'>"}
    assert "NaN" not in (tmp_path / "result.json").read_text()


def test_a_record_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    write_result(tmp_path, RUN)

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(records.os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        write_result(tmp_path, {**RUN, "status": "failed"})
    assert read_result(tmp_path)["status"] == "finished"
    assert os.listdir(tmp_path) == ["result.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "has format 2, written by a later version; this one reads up to 1"),
        ({"format": "one"}, "format='one'; allowed: an integer from 1 to 1"),
        ({"seed": True}, "seed=True; allowed: int"),
        ({"env": None}, "env=None; allowed: str"),
        ({"status": "done"}, "status='done'; allowed: 'finished', 'failed', 'interrupted'"),
        ({"curve": {"timesteps": [1, 2], "returns": [1]}}, "curve holds lists of different lengths"),
        ({"evaluation": {"returns": 3.0}}, "evaluation.returns=3.0; allowed: a list"),
        ({"evaluations": [3]}, "evaluations holds 3; allowed: objects with a list 'returns'"),
    ],
)
def test_what_does_not_belong_in_a_record_is_named(tmp_path, change, message):
    write(tmp_path, json.dumps({"format": 1, **RUN, **change}))
    with pytest.raises(RecordError, match=str(tmp_path)) as refusal:
        read_result(tmp_path)
    assert message in str(refusal.value)


def test_a_record_without_a_key_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="seed=None; allowed: int"):
        write_result(tmp_path, {key: value for key, value in RUN.items() if key != "seed"})
    assert os.listdir(tmp_path) == []


def test_the_rest_is_read(tmp_path):
    text = json.dumps({"format": 1, **RUN})
    write(tmp_path / "npg" / "seed_0", text)
    write(tmp_path / "npg" / "seed_1", text[: len(text) // 2])
    write(tmp_path / "npg" / "seed_2", "[1]")
    write_result(tmp_path / "a" / "deeper" / "one", {**RUN, "seed": 5})
    found, problems = read_results(tmp_path / "npg", tmp_path)
    assert [record["seed"] for record in found] == [5, 0]
    assert len(problems) == 2
    assert "seed_1/result.json is no JSON; was it cut short?" in problems[0]
    assert "seed_2/result.json holds list; allowed: an object" in problems[1]


def test_nothing_is_there(tmp_path):
    assert read_results(tmp_path, tmp_path / "nowhere") == ([], [])
    with pytest.raises(FileNotFoundError):
        read_result(tmp_path)


def test_versions_are_those_that_matter():
    assert {"sb3_pg_ext", "stable_baselines3", "torch", "numpy", "gymnasium", "python"} == set(saving.versions())
