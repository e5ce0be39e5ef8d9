"""The worker's side: what happens in its process before and after it does what it was started for."""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import cloudpickle

from sb3_pg_ext.workers.messages import Failure, Finished, Ready
from sb3_pg_ext.workers.shared_memory import SharedArray

ORPHAN_SECONDS = 1.0
"""So often a worker looks whether its parent still lives."""


@dataclass(frozen=True)
class WorkerContext:
    """What a target is given.

    :param index: index of the worker
    :param seed: its own seed, another one for every worker, and for one that replaces it
    :param config: what it has to know
    :param shared: what all workers share
    :param send: sends a report, any object, to the parent; waits while their pipe is full
    :param stopping: [1], whether the parent wants the workers to stop; a target that returns soon is not killed
    :param receive: waits so many seconds at most for what the parent sends; ``None`` if that is nothing
    """

    index: int
    seed: int
    config: Any
    shared: Any
    send: Callable[[Any], None]
    stopping: SharedArray = field(default_factory=lambda: SharedArray(1))
    receive: Callable[[float], Any] = lambda timeout: None


Target = Callable[[WorkerContext], None]
"""What a worker does: a function of a module, since other processes find it by its name."""


def run_target(
    target: Target, index: int, seed: int, config: Any, shared: Any, stopping: SharedArray, connection: Connection
) -> None:
    """Run a target, and say how it ended. The target of the worker's process.

    :param target: what the worker does
    :param index: index of the worker
    :param seed: its own seed
    :param config: what it has to know; bytes, if it was packed
    :param shared: what it shares with the others
    :param stopping: see :class:`WorkerContext`
    :param connection: to the parent
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which decides what follows
    if hasattr(os, "setsid"):  # not on Windows
        os.setsid()  # with a group of its own it can be killed together with the processes that it has started
        os.register_at_fork(after_in_child=connection.close)  # else these would keep the pipe open when it dies
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        config = cloudpickle.loads(config) if isinstance(config, bytes) else config
        connection.send(Ready())

        def receive(timeout: float) -> Any:
            return connection.recv() if connection.poll(timeout) else None

        target(WorkerContext(index, seed, config, shared, connection.send, stopping, receive))
        connection.send(Finished())
    except BrokenPipeError:
        pass  # the parent is gone, or has given up waiting
    except Exception:
        with suppress(ConnectionError):  # also where it was that the parent is gone
            connection.send(Failure(traceback.format_exc()))
    finally:
        connection.close()


def _end_with_parent() -> None:
    """What blocks would keep the process alive for ever, and with it the processes that it has started.

    A forked worker holds both ends of the sentinel's pipe itself, but becomes another process's child; one of a fork
    server, which lives as long as its children, sees the pipe's end.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    started_by = os.getppid()
    while not wait([parent.sentinel], ORPHAN_SECONDS) and os.getppid() == started_by:
        pass
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
