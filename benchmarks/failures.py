"""What runs logged on their way, side by side: those that failed and those that did not.

    python benchmarks/failures.py reinforce CartPole-v1 --seeds 10 11 19 --steps 5000 20000 80000

Reads ``progress.csv`` of runs that ``benchmarks/learning.py`` or ``sb3-pg sweep -f logs/learning`` has made, and keeps
what it finds in ``benchmarks/results/failures.jsonl``: for every run the numbers that were logged next to some steps.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from learning import RESULTS, folder, row
from runs import read, spaced

FAILURES = RESULTS.parent / "failures.jsonl"
STEPS = "time/total_timesteps"


def logged(path: Path, keys: list[str], steps: list[int]) -> list[list[float]]:
    """The numbers of every key in the row that is nearest to each of some steps and has all of them.

    :param path: a ``progress.csv``
    """
    with path.open() as file:
        rows = [[float(line[key]) for key in (STEPS, *keys)] for line in csv.DictReader(file) if has(line, keys)]
    return [min(rows, key=lambda numbers: abs(numbers[0] - step))[1:] for step in steps]


def has(line: dict[str, str], keys: list[str]) -> bool:
    """Whether a row of the log has a number for each of these."""
    return all(line.get(key) for key in keys)


def table(algo: str, env: str) -> str:
    """A Markdown table: a row for every run, a column for every step; the keys one after the other."""
    records = [each for each in read(FAILURES) if (each["algo"], each["env"]) == (algo, env)]
    steps = records[0]["steps"]
    lines = [row("seed", "ends at", *(f"{spaced(step)} steps" for step in steps)), "|---" * (len(steps) + 2) + "|"]
    for each in sorted(records, key=lambda record: record["end"]):
        cells = [", ".join(map(short, numbers)) for numbers in each["numbers"]]
        lines.append(row(each["seed"], f"{each['end']:.0f}", *cells))
    return "\n".join(lines)


def short(number: float) -> str:
    """The size of a number, to three digits or the next whole number."""
    return f"{abs(number):.0f}" if abs(number) > 999 else f"{abs(number):.3g}"


def main() -> None:
    """Read the logs of some runs, keep what is asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algo", help="the Zoo id")
    parser.add_argument("env", help="the environment")
    parser.add_argument("--seeds", nargs="+", type=int, required=True)
    parser.add_argument("--keys", nargs="+", default=["train/entropy_loss", "rollout/ep_rew_mean"], help="of the log")
    parser.add_argument("--steps", nargs="+", type=int, required=True, help="where on the way")
    args = parser.parse_args()
    kept = [each for each in read(FAILURES) if (each["algo"], each["env"]) != (args.algo, args.env)]
    for seed in args.seeds:
        run = folder(args.algo) / args.algo.split("-")[0] / args.env / f"seed_{seed}"
        result: dict[str, Any] = json.loads((run / "result.json").read_text())
        returns = result["evaluation"]["returns"]
        numbers = logged(run / "progress.csv", args.keys, args.steps)
        kept.append(
            {
                "algo": args.algo,
                "env": args.env,
                "seed": seed,
                "hyperparameters": result["hyperparameters"],
                "end": sum(returns) / len(returns),
                "keys": args.keys,
                "steps": args.steps,
                "numbers": numbers,
                "versions": result["versions"],
            }
        )
    FAILURES.write_text("".join(json.dumps(each) + "\n" for each in kept))
    print(table(args.algo, args.env))


if __name__ == "__main__":
    main()
