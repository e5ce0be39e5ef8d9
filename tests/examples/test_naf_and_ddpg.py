"""The script in which NAF and DDPG share a replay buffer, on a handful of steps."""

import runpy
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "naf_and_ddpg.py"


def test_both_add_to_one_buffer(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--steps", "60", "--episodes", "1"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    naf, ddpg = capsys.readouterr().out.splitlines()
    assert naf.startswith("NAF  after 30 steps of its own, 30 in the buffer: ")
    assert ddpg.startswith("DDPG after 30 steps of its own, 60 in the buffer: ")
