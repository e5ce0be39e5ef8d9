"""Curves and diagnostics say what the files say, also where they were cut short."""

import numpy as np
import pytest

from sb3_pg_ext.evaluation.curves import diagnostics, training_curve


def monitor(folder, number, rows, *, start=100.0, tail=""):
    lines = [f'#{{"t_start": {start}, "env_id": "Toy-v0"}}', "r,l,t", *(",".join(map(str, row)) for row in rows)]
    (folder / f"{number}.monitor.csv").write_text("\n".join(lines) + "\n" + tail)


def test_episodes_of_environments_that_step_together(tmp_path):
    monitor(tmp_path, 0, [(1.0, 3, 0.1), (2.0, 4, 0.2)])
    monitor(tmp_path, 1, [(5.0, 6, 0.15)])
    assert training_curve(tmp_path) == {"timesteps": [6, 12, 14], "returns": [1, 5, 2], "lengths": [3, 6, 4]}


def test_episodes_of_environments_that_do_not(tmp_path):
    monitor(tmp_path, 0, [(1.0, 3, 0.1), (2.0, 4, 0.2)])
    monitor(tmp_path, 1, [(5.0, 6, 0.05)], start=100.2)
    assert training_curve(tmp_path, lockstep=False) == {
        "timesteps": [3, 7, 13],
        "returns": [1, 2, 5],
        "lengths": [3, 4, 6],
    }


def test_many_episodes_become_a_thousand_means(tmp_path):
    monitor(tmp_path, 0, [(i, 2, i / 10) for i in range(2500)])
    curve = training_curve(tmp_path)
    assert {len(values) for values in curve.values()} == {1000}
    assert curve["timesteps"][-1] == 5000
    assert curve["returns"][:2] == [1, 4]  # of three episodes each
    sizes = np.diff([0, *curve["timesteps"]]) / 2
    assert np.average(curve["returns"], weights=sizes) == pytest.approx(np.mean(range(2500)))


@pytest.mark.parametrize("tail", ["3.0,5", "3.0,5,0.", "3.0,5,0.31", "garbage\n", "3.0,,0.3\n"])
def test_a_line_that_was_cut_short_is_no_episode(tmp_path, tail):
    monitor(tmp_path, 0, [(1.0, 3, 0.1)], tail=tail)
    assert training_curve(tmp_path)["returns"] == [1]


@pytest.mark.parametrize("content", ["", "#{", "r,l,t\n1,2,3\n"])
def test_a_file_without_a_header_has_no_episodes(tmp_path, content):
    (tmp_path / "0.monitor.csv").write_text(content)
    assert training_curve(tmp_path) == {"timesteps": [], "returns": [], "lengths": []}


def test_the_log_by_key(tmp_path):
    path = tmp_path / "progress.csv"
    path.write_text("time/total_timesteps,train/loss,text\n10,0.5,a\n20,,b\n30,nan,c\n40,2,d\n,7,e\n")
    assert diagnostics(path) == {"train/loss": {"timesteps": [10, 40], "values": [0.5, 2.0]}}
    rows = "\n".join(f"{10 * i},{i}" for i in range(1, 601))
    path.write_text(f"time/total_timesteps,train/loss\n{rows}\n")
    thin = diagnostics(path)["train/loss"]
    assert len(thin["values"]) == len(thin["timesteps"]) == 200
    assert thin["values"][:2] == [2, 5]
    assert thin["timesteps"][-1] == 6000
    assert diagnostics(tmp_path / "none.csv") == {}
