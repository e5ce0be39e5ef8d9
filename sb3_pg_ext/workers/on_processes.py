"""Actors that are processes of this machine; what they make comes through shared memory."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch as th

from sb3_pg_ext.workers.actors import Actors, Delivery, Layout, MakeActor
from sb3_pg_ext.workers.pool import POLL_SECONDS, WorkerPool
from sb3_pg_ext.workers.process import WorkerContext
from sb3_pg_ext.workers.shared_memory import SharedArray
from sb3_pg_ext.workers.shared_statistics import Slots

N_VERSIONS = 2
"""So many versions of the parameters are kept: the one asked for stays while the next is written."""

N_PIECES = 2
"""So many pieces of work an actor may have to make."""

ALIGNMENT = 64


@dataclass(frozen=True)
class Shared:
    """What processes share in memory.

    :param parameters: [N_VERSIONS, P]
    :param versions: which they are, [N_VERSIONS]
    :param steps: how many steps every actor has made, [n]
    :param pieces: room for what actors make, bytes, [n, N_PIECES, …]
    :param layout: of the arrays in it
    :param slots: of running statistics
    """

    parameters: SharedArray
    versions: SharedArray
    steps: SharedArray
    pieces: SharedArray
    layout: Layout
    slots: Slots

    def arrays(self, actor: int, piece: int) -> list[np.ndarray]:
        """The arrays of a piece of work, in shared memory."""
        room, arrays, start = self.pieces.array[actor, piece], [], 0
        for shape, dtype in self.layout:
            end = start + int(np.prod(shape)) * dtype.itemsize
            arrays.append(room[start:end].view(dtype).reshape(shape))
            start = _aligned(end)
        return arrays


class ProcessActors(Actors):
    """Actors in processes, of a :class:`~sb3_pg_ext.workers.pool.WorkerPool`.

    :param makers: what makes each actor, in its process
    :param layout: of the arrays that they fill
    :param slots: of running statistics, in shared memory
    :param parameters: the first version of the parameters, number 0, [P]
    :param name: what to call an actor, for its process
    :param no_progress: what it makes that makes no progress, for messages
    :param entropy: from it every actor's seed is made
    :param start_method: how processes are started
    :param worker_timeout: so long an actor of which work was requested may go without a step, in seconds
    :param max_restarts: how many failed actors are replaced before one is an error
    """

    def __init__(
        self,
        makers: Sequence[MakeActor],
        layout: Layout,
        slots: Slots,
        parameters: np.ndarray,
        *,
        name: str,
        no_progress: str,
        entropy: int,
        start_method: str,
        worker_timeout: float,
        max_restarts: int,
    ) -> None:
        n = len(makers)
        super().__init__(n)
        n_bytes = sum(_aligned(int(np.prod(shape)) * dtype.itemsize) for shape, dtype in layout)
        dtype = th.from_numpy(parameters[:0]).dtype
        self._shared = Shared(
            parameters=SharedArray(N_VERSIONS, len(parameters), dtype=dtype),
            versions=SharedArray(N_VERSIONS),
            steps=SharedArray(n),
            pieces=SharedArray(n, N_PIECES, n_bytes, dtype=th.uint8),
            layout=layout,
            slots=slots,
        )
        self._version = 0
        self.publish(0, parameters)
        self._n_come = [0] * n
        self._replaced: list[int] = []
        self._pool = WorkerPool(
            serve,
            makers,
            self._shared,
            progress=self._progress,
            on_restart=self._replaced.append,
            name=name,
            no_progress=no_progress,
            entropy=entropy,
            start_method=start_method,
            worker_timeout=worker_timeout,
            max_restarts=max_restarts,
        )

    @property
    def slots(self) -> Slots:
        """Shared memory."""
        return self._shared.slots

    @property
    def pids(self) -> list[int | None]:
        """The process id of every actor."""
        return self._pool.pids

    def _progress(self, actor: int) -> float:
        """One of which nothing is requested is not to be blamed."""
        return int(self._shared.steps.array[actor]) if self.n_requested[actor] else time.monotonic()

    def start(self) -> None:
        """Start the processes."""
        self._pool.start()

    def publish(self, version: int, parameters: np.ndarray) -> None:
        """Copy the parameters into shared memory."""
        row = version % N_VERSIONS
        np.copyto(self._shared.parameters.array[row], parameters)
        self._shared.versions.array[row] = version
        self._version = version

    def request(self, actor: int) -> None:
        """Tell the process."""
        self.n_requested[actor] += 1
        self._pool.send(actor, self._version)

    def receive(self, timeout: float) -> list[Delivery]:
        """Copy what has come out of shared memory."""
        reports = self._pool.receive(timeout)
        self.n_restarts = self._pool.n_restarts
        while self._replaced:
            actor = self._replaced.pop()
            self._n_come[actor] = 0
            for _ in range(self.n_requested[actor]):
                self._pool.send(actor, self._version)
        return [self._take(actor, *report) for actor, report in reports]

    def _take(self, actor: int, version: int, news: object, waiting: float, working: float) -> Delivery:
        arrays = self._shared.arrays(actor, self._n_come[actor] % N_PIECES)
        self._n_come[actor] += 1
        self.n_requested[actor] -= 1
        return Delivery(actor, version, [array.copy() for array in arrays], news, waiting, working)

    def stop(self) -> None:
        """End the processes."""
        self._pool.stop()


def serve(context: WorkerContext) -> None:
    """Work at request until the parent wants to stop. The target of the processes.

    :param context: the worker's, with a :data:`~sb3_pg_ext.workers.actors.MakeActor` and :class:`Shared`
    """
    shared, steps, stopping = context.shared, context.shared.steps.array, context.stopping.array
    pieces = [shared.arrays(context.index, piece) for piece in range(N_PIECES)]

    def goes_on() -> bool:
        steps[context.index] += 1
        return not stopping[0]

    actor = context.config(context.index, context.seed, shared.slots)
    try:
        n_made, idle_since = 0, time.perf_counter()
        while not stopping[0]:
            requested = context.receive(POLL_SECONDS)
            if requested is None:
                continue
            begin = time.perf_counter()
            row = requested % N_VERSIONS
            version = int(shared.versions.array[row])  # before the parameters, which may become those of a later one
            news = actor.work(shared.parameters.array[row], pieces[n_made % N_PIECES], goes_on)
            if stopping[0]:
                break
            end = time.perf_counter()
            context.send((version, news, begin - idle_since, end - begin))
            n_made, idle_since = n_made + 1, end
    finally:
        actor.close()


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT
