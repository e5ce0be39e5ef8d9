"""What a start costs: seconds of CPU time of fresh processes, medians of three, in turns.

python benchmarks/startup.py
"""

import os
import statistics
import subprocess
import sys

HELP = "import sb3_pg_ext.zoo.__main__ as cli; cli._make_parser().format_help()"
STATEMENTS = {
    "Python alone": "pass",
    "`import sb3_pg_ext`": "import sb3_pg_ext",
    "`from sb3_pg_ext.functional import returns`": "from sb3_pg_ext.functional import returns",
    "what `sb3-pg --help` needs": HELP,
    "`import torch`": "import torch",
    "`import stable_baselines3`": "import stable_baselines3",
    "`from sb3_pg_ext import NPG`": "from sb3_pg_ext import NPG",
}


def seconds(statement: str) -> float:
    """The CPU time of a process that runs a statement."""
    before = os.times()
    subprocess.run([sys.executable, "-c", statement], check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Measure, and print a table."""
    rounds = [[seconds(statement) for statement in STATEMENTS.values()] for _ in range(3)]
    print("| | seconds |\n|---|---|")
    for what, measured in zip(STATEMENTS, zip(*rounds, strict=True), strict=True):
        print(f"| {what} | {statistics.median(measured):.2f} |")


if __name__ == "__main__":
    main()
