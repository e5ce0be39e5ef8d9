"""Sweeps that are killed in the middle end with the results of one that is not: on processes, and on a Ray cluster.

    python benchmarks/interruptions.py undisturbed processes ray

Three times the same sweep of 4 algorithms × 3 environments × 3 seeds × 20 000 steps, by its command line. The second is
killed with all its processes, once a third of its runs are finished, and called again. The third has a cluster of two
machines on this one; the second machine is lost after a third of the runs, the sweep itself is killed after two thirds
and called again. Then records and parameters are compared, number by number.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.save_util import load_from_zip_file

from sb3_pg_ext.evaluation.records import RecordError, Result, read_results

ALGOS = ("npg", "reinforce", "ppo", "a2c")
ENVS = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0")
SEEDS = ("0-2",)
N_TIMESTEPS = 20_000
COMPARED = (
    *("algo", "setting", "env", "seed", "n_timesteps", "hyperparameters", "options"),
    *("status", "curve", "evaluation", "evaluations"),
)
POLL_SECONDS = 0.2


def begin(arguments: list[str], folder: Path, *more: str) -> subprocess.Popen[bytes]:
    """Call the command."""
    command = [sys.executable, "-m", "sb3_pg_ext.zoo", "sweep", *arguments, "-f", str(folder), *more]
    print("sb3-pg", *command[3:], flush=True)
    return subprocess.Popen(command)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of the command.

    :raises SystemExit: if a run has failed
    """
    if process.wait():
        raise SystemExit(f"the sweep has ended with status {process.returncode}")


def wait_until(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    """Wait until a sweep has come so far, or has ended."""
    while process.poll() is None and not condition():
        time.sleep(POLL_SECONDS)


def records(folder: Path) -> list[Result]:
    """Those of a sweep; while it goes on some files may vanish while they are looked at."""
    try:
        return read_results(folder)[0]
    except (RecordError, OSError):
        return []


def come_so_far(folder: Path, n_finished: int) -> Callable[[], bool]:
    """Whether so many runs are finished, and another is within its course, with a checkpoint."""

    def is_so_far() -> bool:
        n_done = sum(record["status"] == "finished" for record in records(folder))
        return n_done >= n_finished and any(folder.glob("*/*/*/checkpoint/0*"))

    return is_so_far


def descendants(pid: int) -> list[int]:
    """All processes that a process has started, and those that these have started."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid="], check=True, capture_output=True, text=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listing.splitlines()]
    found, last = [pid], -1
    while len(found) != last:
        last = len(found)
        found += [child for child, parent in pairs if parent in found and child not in found]
    return found


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL, for the command and all that it has started."""
    victims = descendants(process.pid)
    for pid in victims:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    print(f"killed {len(victims)} processes", flush=True)


def on_processes(arguments: list[str], folder: Path, n_runs: int) -> None:
    """Kill it once."""
    process = begin(arguments, folder)
    wait_until(process, come_so_far(folder, n_runs // 3))
    kill_tree(process)
    finish(begin(arguments, folder))


def on_ray(arguments: list[str], folder: Path, n_runs: int) -> None:
    """Lose a machine, then kill the sweep."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    try:
        process = begin(arguments, folder, "--ray", cluster.address)
        wait_until(process, come_so_far(folder, n_runs // 3))
        cluster.remove_node(second, allow_graceful=False)
        print("a machine of the cluster is gone", flush=True)
        wait_until(process, come_so_far(folder, 2 * n_runs // 3))
        kill_tree(process)
        finish(begin(arguments, folder, "--ray", cluster.address))
    finally:
        cluster.shutdown()


def differences(one: Path, other: Path) -> list[str]:
    """In what two sweeps differ: records but for times, logs but for times, and the parameters of the models."""
    found = []
    mine, theirs = ({name(record): record for record in records(folder)} for folder in (one, other))
    found += [f"{each} is missing" for each in mine.keys() ^ theirs.keys()]
    for each in sorted(mine.keys() & theirs.keys()):
        found += [f"{each}: {key}" for key in COMPARED if mine[each][key] != theirs[each][key]]
        logs = [untimed(record["diagnostics"]) for record in (mine[each], theirs[each])]
        found += [f"{each}: {key}" for key in sorted(logs[0].keys() | logs[1].keys()) if differ(key, *logs)]
        parameters = [load_parameters(folder / each / "model.zip") for folder in (one, other)]
        unequal = [key for key in parameters[0] if not np.array_equal(parameters[0][key], parameters[1][key])]
        found += [f"{each}: {key}" for key in unequal]
    return found


def name(record: Result) -> str:
    """The folder of a run."""
    return f"{record['algo']}/{record['env']}/seed_{record['seed']}"


def untimed(log: dict[str, Any]) -> dict[str, Any]:
    """The log without what depends on the clock."""
    return {key: value for key, value in log.items() if not key.startswith("time/")}


def differ(key: str, *logs: dict[str, Any]) -> bool:
    """Whether two logs have something else under a key."""
    return logs[0].get(key) != logs[1].get(key)


def load_parameters(path: Path) -> dict[str, np.ndarray]:
    """The parameters of a saved policy, by name."""
    parameters: Any = load_from_zip_file(path, device="cpu")[1]
    return {key: tensor.numpy() for key, tensor in parameters["policy"].items()}


def main(given: Iterable[str] | None = None) -> None:
    """Make the sweeps that are asked for, and compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "parts", nargs="+", choices=["undisturbed", "processes", "ray", "compare"], help="compare: only that"
    )
    parser.add_argument("--folder", type=Path, default=Path("logs/interruptions"))
    parser.add_argument("--algos", nargs="+", default=list(ALGOS))
    parser.add_argument("--envs", nargs="+", default=list(ENVS))
    parser.add_argument("--seeds", nargs="+", default=list(SEEDS))
    parser.add_argument("-n", "--n-timesteps", type=int, default=N_TIMESTEPS)
    options = parser.parse_args(None if given is None else list(given))
    arguments = ["--algos", *options.algos, "--envs", *options.envs, "--seeds", *options.seeds]
    arguments += ["-n", str(options.n_timesteps), "--device", "cpu"]
    listing = subprocess.run(
        [sys.executable, "-m", "sb3_pg_ext.zoo", "sweep", *arguments, "-f", str(options.folder / "none"), "--dry-run"],
        check=True,
        capture_output=True,
        text=True,
    )
    n_runs = int(listing.stdout.splitlines()[-1].split()[0])
    for part in options.parts:
        if part == "undisturbed":
            finish(begin(arguments, options.folder / part))
        elif part == "processes":
            on_processes(arguments, options.folder / part, n_runs)
        elif part == "ray":
            on_ray(arguments, options.folder / part, n_runs)
    reference = options.folder / "undisturbed"
    for part in ("processes", "ray"):
        folder = options.folder / part
        if not (folder.exists() and reference.exists()):
            continue
        found = differences(reference, folder)
        resumed = [record for record in records(folder) if record["resumed"]]
        print(json.dumps({"sweep": part, "runs": len(records(folder)), "resumed": len(resumed), "differ": found}))
        if found:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
