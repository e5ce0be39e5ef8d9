"""Tables that a command prints, kept with the command: ``<!-- table: printed NAME -->`` on a page shows one.

    python benchmarks/printed.py startup                                 # measure anew what is kept
    python benchmarks/printed.py startup python benchmarks/startup.py    # by this command

The last table in Markdown that the command prints goes to ``benchmarks/results/printed/NAME.json``, with the command
and the versions. Where several commands, or changes by hand, led to a table, its file says so under ``how``, and it
cannot be measured anew from here.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from runs import versions

ROOT = Path(__file__).parent.parent
PRINTED = ROOT / "benchmarks" / "results" / "printed"
TABLE = re.compile(r"^(\|.*)\n\|[-:|]+\n((?:\|.*(?:\n|$))+)", re.MULTILINE)


def cells(line: str) -> list[str]:
    """What stands in a row of a table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def table(name: str) -> str:
    """A kept table, in Markdown."""
    kept = json.loads((PRINTED / f"{name}.json").read_text())
    lines = [kept["columns"], ["---"] * len(kept["columns"]), *kept["rows"]]
    return "\n".join("|" + "|".join(row) + "|" if row[0] == "---" else f"| {' | '.join(row)} |" for row in lines)


def keep(name: str, printed: str, **made: Any) -> None:
    """Keep the last table of what was printed, and how it was made."""
    head, body = TABLE.findall(printed)[-1]
    kept = {**made, "columns": cells(head), "rows": [cells(line) for line in body.splitlines()]}
    lines = (f'"{key}": {json.dumps(value, ensure_ascii=False)}' for key, value in kept.items() if key != "rows")
    rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in kept["rows"])
    PRINTED.mkdir(exist_ok=True)
    (PRINTED / f"{name}.json").write_text("{\n" + ",\n".join(lines) + f',\n"rows": [\n{rows}\n]\n}}\n')


def main() -> None:
    """Run a command, and keep its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="default: the one that is kept")
    options = parser.parse_args()
    command = options.command
    if not command:
        kept = json.loads((PRINTED / f"{options.name}.json").read_text())
        if "command" not in kept:
            sys.exit(f"No command makes the whole table {options.name}: {kept['how']}")
        command = shlex.split(kept["command"])
    program = [sys.executable, *command[1:]] if command[0] == "python" else command
    printed = subprocess.run(program, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    print(printed)
    keep(options.name, printed, command=shlex.join(command), versions=versions())


if __name__ == "__main__":
    main()
