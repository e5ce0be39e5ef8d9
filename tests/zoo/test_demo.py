"""The demonstration, shortened, from end to end."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples/demo.py"


@pytest.mark.slow
def test_it_ends_with_one_line_and_a_picture(tmp_path):
    command = [sys.executable, str(DEMO), "--n-timesteps", "2000", "--seed", "1"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    summary = r"CartPole-v1: mean return [\d.]+ ± [\d.]+ over 100 episodes; learning curve: (.+)"
    lines = [found for line in shown.splitlines() if (found := re.fullmatch(summary, line))]
    assert len(lines) == 1
    assert shown.endswith(f"{lines[0][0]}\n")
    assert (tmp_path / lines[0][1]).read_bytes().startswith(b"\x89PNG")
