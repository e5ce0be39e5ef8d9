"""What a command prints is kept, and shown, as it was."""

import json
import sys

import printed
import pytest

TABLE = "| a | b |\n|---|---:|\n| `x`, y | 1.5 (1–2) |\n| z |  |\n"


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setattr(printed, "PRINTED", tmp_path)
    return tmp_path


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["printed.py", *arguments])
    printed.main()


def test_the_last_table_of_a_command_is_kept_with_it_and_can_be_made_anew(folder, monkeypatch):
    script = folder / "script.py"
    script.write_text(f"print('| no |\\n|---|\\n| 0 |\\n\\n' + {TABLE!r})")
    run(monkeypatch, "it", "python", str(script))
    assert printed.table("it").splitlines() == TABLE.replace("---:", "---").splitlines()
    kept = json.loads((folder / "it.json").read_text())
    assert kept["command"] == f"python {script}"
    assert "torch" in kept["versions"]
    script.write_text(f"print({TABLE.replace('1.5', '2.5')!r})")
    run(monkeypatch, "it")
    assert "2.5 (1–2)" in printed.table("it")


def test_what_was_put_together_cannot_be_made_anew(folder, monkeypatch):
    printed.keep("it", TABLE, how="by hand")
    with pytest.raises(SystemExit, match="by hand"):
        run(monkeypatch, "it")
