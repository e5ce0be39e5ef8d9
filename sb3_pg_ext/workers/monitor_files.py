"""Files of episodes that go on where SB3's ``Monitor`` would begin them anew.

A worker builds its environment again: the parent has built it before, and so has the worker of an earlier training, or
one that has died. What they have written stays.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stable_baselines3.common import monitor
from stable_baselines3.common.monitor import Monitor, ResultsWriter


class ContinuedResultsWriter(ResultsWriter):
    """SB3's writer of a monitor's file; a file that is there is continued, on its own clock.

    :param filename: as SB3 takes it
    :param header: of this monitor, with ``t_start``, the time from which it counts
    :param extra_keys: further columns
    :param override_existing: unused
    """

    def __init__(
        self,
        filename: str = "",
        header: dict[str, Any] | None = None,
        extra_keys: tuple[str, ...] = (),
        override_existing: bool = True,
    ) -> None:
        start = read_start(filename)
        self._later = 0.0 if start is None or header is None else header["t_start"] - start
        super().__init__(filename, header, extra_keys, override_existing=start is None)

    def write_row(self, epinfo: dict[str, float]) -> None:
        """Write the row of an episode, with the seconds since the beginning of the file."""
        super().write_row({**epinfo, "t": round(epinfo["t"] + self._later, 6)})


def read_start(filename: str) -> float | None:
    """The time from which a monitor's file counts; None where there is no file to continue."""
    if not filename.endswith(Monitor.EXT):
        filename = os.path.join(filename, Monitor.EXT) if os.path.isdir(filename) else f"{filename}.{Monitor.EXT}"
    try:
        with open(filename) as file:
            return float(json.loads(file.readline().removeprefix("#"))["t_start"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


@contextmanager
def continued_monitor_files() -> Iterator[None]:
    """Within the scope, monitors continue their files."""
    before = monitor.ResultsWriter
    monitor.ResultsWriter = ContinuedResultsWriter  # type: ignore[misc]
    try:
        yield
    finally:
        monitor.ResultsWriter = before  # type: ignore[misc]
