"""Train and play every distinct shipped entry through the command line, one line for each; `make configs` runs it.

The same as ``test_every_entry.py``, in processes of their own, as a user starts them. If any fails, the exit status
is 1.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from entries import Entry, find_entries


def run(entry: Entry) -> str:
    """Train and play an entry: "ok", or why it was skipped or failed."""
    if reason := entry.reason_to_skip():
        return f"skipped: {reason}"
    train = ["train", *entry.arguments(), "-f", "logs", "--eval-freq", "-1", "--device", "cpu"]
    enjoy = ["enjoy", "--algo", entry.algo, "--env", entry.env_id, "-n", "20", "-f", "logs", "--no-render"]
    with tempfile.TemporaryDirectory() as folder:
        for arguments in (train, enjoy):
            command = [sys.executable, "-m", "sb3_pg_ext.zoo", *arguments]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or ["nothing said why"]
                return f"failed: {arguments[0]} ended with status {done.returncode}: {lines[-1]}"
    return "ok"


def choose(names: Iterable[str]) -> list[Entry]:
    """The entries whose description contains one of the names; without names all that this package ships."""
    entries = find_entries()
    return [entry for entry in entries if any(name in str(entry) for name in names) or (not names and entry.is_ours)]


def main() -> None:
    """Run the chosen entries."""
    parser = argparse.ArgumentParser(description="Train and play shipped configurations for a few steps.")
    parser.add_argument("names", nargs="*", help="parts of names such as naf-Pendulum-v1 or fast_ppo; default: ours")
    parser.add_argument("--jobs", type=int, default=2, help="how many at the same time")
    options = parser.parse_args()
    entries, failed = choose(options.names), False
    with ThreadPoolExecutor(options.jobs) as pool:
        for entry, outcome in zip(entries, pool.map(run, entries), strict=True):
            print(f"{entry!s:<36}{outcome}", flush=True)
            failed |= outcome.startswith("failed")
    sys.exit(failed or not entries)


if __name__ == "__main__":
    main()
