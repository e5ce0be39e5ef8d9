"""The script that compares baselines, with a few tiny runs."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "variance_of_baselines.py"


def compare(output):
    command = [sys.executable, str(SCRIPT), "--quick", "--workers", "1", "--output", str(output)]
    return subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.mark.thorough
def test_runs_are_written_reported_and_resumed(tmp_path):
    first = compare(tmp_path)
    assert "| leave_one_out | 0 of 2 |" in first.stdout
    assert (tmp_path / "variance.png").stat().st_size > 0
    runs = tmp_path / "learning.jsonl"
    lines = runs.read_text().splitlines()
    runs.write_text("\n".join(lines[1:]) + "\n")

    second = compare(tmp_path)
    assert second.stdout == first.stdout
    assert second.stderr.startswith("[1/1,")
    assert sorted(runs.read_text().splitlines()) == sorted(lines)
