"""The folders of RL Zoo's runs: which one holds a model to play, and which are left by a run that never began."""

import os
from pathlib import Path
from typing import Any

from rl_zoo3 import utils
from rl_zoo3.utils import EnvironmentName, get_latest_run_id

find_in_run = utils.get_model_path
"""RL Zoo's own: the model in a run of a given number."""

MARK = "downloaded"
"""A file of this name in a run's folder, or in the folder of its configuration, says that it comes from elsewhere."""
PRETRAINED = "rl-trained-agents"
"""What RL Zoo calls the folder that it downloads to by itself."""

MONITOR_HEADER = 2
"""Lines of a monitor file that holds no episode: what the environment was, and the names of the columns."""


def get_model_path(
    exp_id: int, folder: str, algo: str, env_name: EnvironmentName, *choice: Any, **keywords: Any
) -> tuple[str, str, str]:
    """RL Zoo's function of the same name, where the latest run is the latest that holds the model.

    RL Zoo takes the one with the highest number, be it that of a training that has failed.

    :param exp_id: the number of the run; 0 for the latest
    :param folder: RL Zoo's log folder
    :param algo: the Zoo id of the algorithm
    :param env_name: the environment
    :param choice: which of the models of a run
    :param keywords: likewise
    :return: a prefix for names of files, the path of the model, and the folder of the run
    :raises ValueError: if there is no such model
    """
    arguments = (folder, algo, env_name, *choice)
    latest = get_latest_run_id(os.path.join(folder, algo), env_name) if exp_id == 0 else 0
    for number in range(latest, 0, -1):
        try:
            found = find_in_run(number, *arguments, **keywords)
        except (AssertionError, ValueError):  # there is no such folder, or no such model in it
            continue
        print(f"Loading latest experiment, id={number}")
        if number < latest:
            print(f"Later runs, up to {latest}, do not hold the model: did they fail?")
        return found
    return find_in_run(exp_id, *arguments, **keywords)


def is_downloaded(run: str | Path) -> bool:
    """Whether a run comes from elsewhere.

    :param run: its folder
    """
    run = Path(run)
    return (run / MARK).exists() or any(run.glob(f"*/{MARK}")) or any(PRETRAINED in part for part in run.parts)


def find_trained(folder: str, algo: str) -> list[str]:
    """The environments that have runs of an algorithm, sorted.

    :param folder: RL Zoo's log folder
    :param algo: the Zoo id of the algorithm
    """
    names = [path.name.rpartition("_") for path in Path(folder, algo).glob("*_*") if path.is_dir()]
    return sorted({env for env, _, number in names if number.isdigit()})


def discard_empty_run(path: str) -> None:
    """Remove the folder of a run that ended before it began: one with nothing but monitor files without an episode.

    :param path: the folder
    """
    files = [file for file in Path(path).rglob("*") if not file.is_dir()]
    if not all(map(_is_empty_monitor_file, files)):
        return
    for file in files:
        file.unlink()
    for parent, _, _ in os.walk(path, topdown=False):
        os.rmdir(parent)  # which refuses if something has come in the meantime


def _is_empty_monitor_file(file: Path) -> bool:
    if not file.name.endswith("monitor.csv"):
        return False
    return len(file.read_text(encoding="utf-8").splitlines()) <= MONITOR_HEADER
