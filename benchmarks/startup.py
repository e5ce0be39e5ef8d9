"""What a start costs: seconds of CPU time of fresh processes, medians of three, in turns.

python benchmarks/startup.py
"""

import os
import statistics
import subprocess
import sys

STATEMENTS = (
    "pass",
    "import sb3_pg_ext",
    "from sb3_pg_ext.functional import returns",
    "import sb3_pg_ext.zoo.__main__ as cli; cli._make_parser().format_help()",
    "import torch",
    "import stable_baselines3",
    "from sb3_pg_ext import NPG",
)


def seconds(statement: str) -> float:
    """The CPU time of a process that runs a statement."""
    before = os.times()
    subprocess.run([sys.executable, "-c", statement], check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Measure and print."""
    rounds = [[seconds(statement) for statement in STATEMENTS] for _ in range(3)]
    for statement, measured in zip(STATEMENTS, zip(*rounds, strict=True), strict=True):
        print(f"{statistics.median(measured):6.2f} s  {statement}")


if __name__ == "__main__":
    main()
