"""The guard against getting slower, or learning worse."""

import json
import math

import guard
import numpy as np
import pytest
from throughput import COMPARISONS, OWN_COLUMNS

from sb3_pg_ext.plugins import AlgorithmSpec, registry

SPEED, LEARNING = guard.Check("speed", "ppo", "CartPole-v1", 8), guard.Check("learning", "npg", "CartPole-v1", 1000)


def test_checks_are_of_what_there_is():
    for check in guard.CHECKS:
        if check.kind == "speed":
            assert check.what in COMPARISONS
            assert (check.env, check.size) in OWN_COLUMNS.get(check.what, [(check.env, check.size)])
        else:
            assert registry().find(AlgorithmSpec, check.what)
    assert len({check.name for check in guard.CHECKS}) == len(guard.CHECKS)


def test_every_check_is_recorded():
    assert {check.name for check in guard.CHECKS} == set(json.loads(guard.RECORD.read_text()))


def test_a_new_mean_falls_into_the_interval_as_often_as_is_said():
    rng = np.random.default_rng(0)
    n_trials, inside = 2000, 0
    for _ in range(n_trials):
        low, high = guard.interval(rng.normal(3, 2, 5), 2, logarithmic=False)
        inside += low <= rng.normal(3, 2, 2).mean() <= high
    assert inside / n_trials == pytest.approx(guard.LEVEL, abs=3 * math.sqrt(0.01 * 0.99 / n_trials))


def test_ratios_are_compared_by_their_logarithms():
    low, high = guard.interval([2.0, 8.0], 1, logarithmic=True)
    assert math.sqrt(low * high) == pytest.approx(4)
    assert guard.mean([2.0, 8.0], logarithmic=True) == pytest.approx(4)


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (1, "speed", "slower"),
        (1, "learning", "worse"),
        (2, "speed", "ok"),
        (3, "learning", "ok"),
        (4, "speed", "faster"),
        (4, "learning", "better"),
        (math.nan, "learning", "worse"),
    ],
)
def test_verdicts(value, kind, expected):
    assert guard.verdict(value, (2, 3), kind) == expected


def test_the_score_is_of_the_second_half():
    curve = {"timesteps": [100, 600, 1000], "returns": [1.0, 10.0, 30.0]}
    assert guard.score({"n_timesteps": 1000, "curve": curve}) == 20
    assert math.isnan(guard.score({"n_timesteps": 4000, "curve": curve}))


@pytest.mark.parametrize(("values", "status", "word"), [([9.0, 9.0], 1, "slower"), ([10.5, 10.5], 0, "ok")])
def test_the_exit_status_tells(monkeypatch, capsys, tmp_path, values, status, word):
    path = tmp_path / "record.json"
    path.write_text(json.dumps({SPEED.name: {"values": [10.0, 10.3, 10.6, 10.9, 10.4]}}))
    monkeypatch.setattr(guard, "CHECKS", (SPEED,))
    monkeypatch.setattr(guard, "measure", lambda *_: values)
    monkeypatch.setattr("sys.argv", ["guard.py", "--file", str(path)])
    with pytest.raises(SystemExit) as ended:
        guard.main()
    assert ended.value.code == status
    assert word in capsys.readouterr().out


def test_what_is_recorded_is_compared_with(monkeypatch, capsys, tmp_path):
    path = tmp_path / "record.json"
    monkeypatch.setattr(guard, "CHECKS", (LEARNING,))
    monkeypatch.setattr(guard, "measure", lambda _, n, __: [100.0 + i for i in range(n)])
    for options, expected in (([], 2), (["--record"], None), ([], 0)):
        monkeypatch.setattr("sys.argv", ["guard.py", *options, "--file", str(path)])
        if expected is None:
            guard.main()
            continue
        with pytest.raises(SystemExit) as ended:
            guard.main()
        assert ended.value.code == expected
    assert "--record measures it" in capsys.readouterr().err


def test_scores_are_those_of_shipped_configurations(tmp_path):
    (first,) = guard.scores(guard.Check("learning", "reinforce", "CartPole-v1", 3000), [0], tmp_path)
    assert 8 < first < 200
