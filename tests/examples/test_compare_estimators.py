"""The script that compares estimators, on a handful of steps."""

import json
import runpy
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "compare_estimators.py"


def compare(monkeypatch, output, *estimators):
    arguments = ["--steps", "64", "--seeds", "2", "--output", str(output), "--estimators", *estimators]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_runs_are_written_plotted_and_resumed(monkeypatch, tmp_path, capsys):
    compare(monkeypatch, tmp_path, "gae")
    run = json.loads((tmp_path / "CartPole-v1_64_gae_1.json").read_text())
    assert len(run["steps"]) == len(run["returns"]) > 0
    assert capsys.readouterr().out.count("trained") == 2
    (tmp_path / "CartPole-v1_64.png").unlink()

    compare(monkeypatch, tmp_path, "gae", "td0")
    output = capsys.readouterr().out
    assert output.count("found") == output.count("trained") == 2
    assert (tmp_path / "CartPole-v1_64.png").stat().st_size > 0
