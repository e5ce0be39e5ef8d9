"""A training run: what it is, and how it is made and recorded."""

import re
import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

from sb3_pg_ext.checkpoints.saving import versions
from sb3_pg_ext.evaluation.curves import diagnostics, training_curve
from sb3_pg_ext.evaluation.records import RESULT_FILE, Result, plain, read_result, write_result

DEFAULT_SETTING = "default"
SETTING_NAME = re.compile(r"\w[\w.+=-]*")
CHECKPOINT_FOLDER = "checkpoint"
NOTED_SECONDS = 60.0
"""So often the record of a run that goes on says how long it has taken so far."""


@dataclass(frozen=True)
class Run:
    """A training with one seed, and all that decides what comes of it.

    :param algo: the algorithm's name
    :param env: the environment's id
    :param seed: of the training
    :param n_timesteps: its steps
    :param setting: what its hyper-parameters are called
    :param hyperparameters: as they are read, before anything is made of them
    :param options: what else decides the result, such as how it is evaluated
    :param details: what the trainer has to know beside that, without any influence on the result
    :param command: what to call to have the run made, for the record
    """

    algo: str
    env: str
    seed: int
    n_timesteps: int
    setting: str = DEFAULT_SETTING
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    command: str = ""

    @property
    def name(self) -> str:
        """Its folder within that of the sweep: ``<algo>[-<setting>]/<env>/seed_<seed>``."""
        variant = "" if self.setting == DEFAULT_SETTING else f"-{self.setting}"
        return f"{self.algo}{variant}/{self.env.replace('/', '-')}/seed_{self.seed}"

    @property
    def title(self) -> str:
        """What to call it, for people."""
        variant = "" if self.setting == DEFAULT_SETTING else f" {self.setting}"
        return f"{self.algo}{variant} {self.env} seed {self.seed}"

    @property
    def settings(self) -> Result:
        """What decides its result, as it stands in the record."""
        names = ("algo", "setting", "env", "seed", "n_timesteps", "hyperparameters", "options")
        return {name: plain(getattr(self, name)) for name in names}


class Trainer(Protocol):
    """Trains: a function of a module, since other processes find it by its name."""

    def __call__(self, run: Run, folder: Path, report: Callable[[int], None]) -> Result:
        """Train and evaluate, going on from ``folder / "checkpoint"`` if there is one.

        :param run: what to train
        :param folder: where the model and the files of the training go
        :param report: to be called with the number of steps so far, now and then
        :return: what the record says beside settings, versions, curve and diagnostics; ``resumed``: whether it has gone
            on from a checkpoint; ``lockstep``: see :func:`~sb3_pg_ext.evaluation.curves.training_curve`
        """


def perform(trainer: Trainer, run: Run, folder: Path, report: Callable[[int], None]) -> None:
    """Make a run and its record; an exception of the training is recorded, not raised.

    :param trainer: trains
    :param run: what to train
    :param folder: of the run
    :param report: see :class:`Trainer`
    """
    earlier = (find_record(folder) or {}) if (folder / CHECKPOINT_FOLDER).exists() else {}
    record = {
        **run.settings,
        "status": "interrupted",
        "traceback": None,
        "versions": versions(),
        "command": run.command,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": earlier.get("seconds", 0.0),
        "resumed": earlier.get("resumed", -1) + 1,
    }
    write_result(folder, record)
    start = last_noted = time.monotonic()

    def note(steps: int) -> None:
        nonlocal last_noted
        report(steps)
        if time.monotonic() - last_noted > NOTED_SECONDS:
            last_noted = time.monotonic()
            write_result(folder, {**record, "seconds": record["seconds"] + last_noted - start})

    try:
        results = trainer(run, folder, note)
        if not results.pop("resumed", False):
            record |= {"resumed": 0, "seconds": 0.0}
        lockstep = results.pop("lockstep", True)
        record |= {"status": "finished", "curve": training_curve(folder, lockstep=lockstep), **results}
    except Exception:
        record |= {"status": "failed", "traceback": traceback.format_exc(), "curve": training_curve(folder)}
    record["seconds"] = round(record["seconds"] + time.monotonic() - start, 3)
    write_result(folder, {**record, "diagnostics": diagnostics(folder / "progress.csv")})
    if record["status"] == "finished":
        shutil.rmtree(folder / CHECKPOINT_FOLDER, ignore_errors=True)


def record_failure(run: Run, folder: Path, reason: str) -> None:
    """Record a run whose process has died before it could record anything.

    :param run: which
    :param folder: of the run
    :param reason: why, as far as it is known
    """
    began = find_record(folder) or {"versions": versions(), "command": run.command}
    write_result(folder, {**began, **run.settings, "status": "failed", "traceback": reason})


def find_record(folder: Path) -> Result | None:
    """The record of a run; None if it has not begun.

    :raises RecordError: if it cannot be used
    """
    return read_result(folder) if (folder / RESULT_FILE).exists() else None


def changes(record: Result, run: Run) -> list[str]:
    """In what the settings of a record differ from those of a run, in words.

    :param record: of a run in the same folder
    :param run: what is to be made now
    """
    found = []
    for name, wanted in run.settings.items():
        given = record.get(name)
        if isinstance(wanted, dict) and isinstance(given, dict):
            keys = sorted({*wanted, *given})
            found += [_change(key, given, wanted) for key in keys if given.get(key, ...) != wanted.get(key, ...)]
        elif given != wanted:
            found.append(_change(name, record, run.settings))
    return found


def _change(name: str, given: Result, wanted: Result) -> str:
    before, after = (repr(each[name]) if name in each else "not given" for each in (given, wanted))
    return f"{name} was {before}, and is {after}"
