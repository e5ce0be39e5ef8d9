"""``sb3-pg train --resume``: which run is gone on with."""

import json
import re
from pathlib import Path
from typing import Any

from rl_zoo3.utils import EnvironmentName

from sb3_pg_ext.checkpoints.folder import RECORD, checkpoints
from sb3_pg_ext.zoo.runs import is_downloaded

CHECKPOINTS = "checkpoint"
"""The folder of checkpoints in that of a run. It goes when the run is finished."""
PARTS = 20
"""Of so many parts of a training, each ends with a checkpoint, unless ``--checkpoint-freq`` says otherwise."""


def find_unfinished_run(folder: str, algo: str, env_id: str, seed: int | None) -> Path | None:
    """The latest run that has begun and was not finished.

    :param folder: RL Zoo's log folder
    :param algo: the Zoo id of the algorithm
    :param env_id: the id of the environment
    :param seed: the seed of the run; ``None`` for any
    :return: its folder; None if there is none with a checkpoint, but for runs that were downloaded
    """
    name = EnvironmentName(env_id)
    runs = {}
    for path in Path(folder, algo).glob(f"{name}_*"):
        number = re.fullmatch(rf"{re.escape(name)}_(\d+)(_.*)?", path.name)
        if number is None or is_downloaded(path):  # a checkpoint is unpickled
            continue
        if checkpoints(path / CHECKPOINTS) and seed in (None, read_record(path).get("seed")):
            runs[int(number[1])] = path
    return runs[max(runs)] if runs else None


def read_record(run: Path) -> dict[str, Any]:
    """What the latest readable checkpoint of a run says about itself."""
    for path in reversed(checkpoints(run / CHECKPOINTS)):
        try:
            return json.loads((path / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
    return {}
