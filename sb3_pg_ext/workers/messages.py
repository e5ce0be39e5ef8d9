"""What every worker tells the parent, whatever it does. Everything else that it sends is a report, any object."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ready:
    """The worker's process runs, and its target begins."""


@dataclass(frozen=True)
class Finished:
    """The target has returned."""


@dataclass(frozen=True)
class Failure:
    """The target has raised an exception.

    :param traceback: its traceback
    """

    traceback: str
