"""Actors of a Ray cluster; what they make comes by value."""

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
import numpy as np
import ray
import torch as th
from ray.exceptions import RayError, RayTaskError

from sb3_pg_ext.workers.actors import Actors, Delivery, Layout, MakeActor
from sb3_pg_ext.workers.pool import GRACE_SECONDS, START_SECONDS, out_of_restarts, pack
from sb3_pg_ext.workers.shared_memory import SharedArray
from sb3_pg_ext.workers.shared_statistics import Slots

CONNECT_SECONDS = 10.0
"""After so long without an answer there is no cluster."""

Rows = dict[str, np.ndarray]
"""Slots of running statistics as plain arrays, by the statistics' name."""


@dataclass
class Handle:
    """An actor, seen from the learner.

    :param remote: Ray's handle
    :param starting: what Ray gives once it has started
    :param requests: what was requested of it, oldest first
    :param since: when it was last known to make progress
    :param pid: its process, once it has started
    :param fault: what is wrong with it, in words
    """

    remote: Any
    starting: Any
    requests: deque[Any] = field(default_factory=deque)
    since: float = field(default_factory=time.monotonic)
    pid: int | None = None
    fault: str | None = None


class RayActors(Actors):
    """Actors that are Ray's.

    A cluster that this process is connected to already is used, and stays; otherwise the process connects for as long
    as there are actors. Ray restarts nothing by itself: an actor that is lost, with its machine or alone, is made anew
    here, so that it gets its seed, the latest parameters and statistics.

    :param makers: what makes each actor, in its process
    :param layout: of the arrays that they fill
    :param slots: of running statistics, which are filled with what actors send
    :param parameters: the first version of the parameters, number 0, [P]
    :param entropy: from it every actor's seed is made
    :param worker_timeout: so long an actor may take for what was requested of it, in seconds
    :param max_restarts: how many failed actors are replaced before one is an error
    :param address: of the cluster; ``None`` for the one that ``RAY_ADDRESS`` tells, or else a new one on this machine
    :param options: of every actor, as Ray's ``options()`` takes them, such as ``num_cpus``
    :raises ValueError: if another cluster is connected to than the address tells
    :raises ConnectionError: if there is no such cluster
    """

    def __init__(
        self,
        makers: Sequence[MakeActor],
        layout: Layout,
        slots: Slots,
        parameters: np.ndarray,
        *,
        entropy: int,
        worker_timeout: float,
        max_restarts: int,
        address: str | None,
        options: Mapping[str, Any],
    ) -> None:
        super().__init__(len(makers))
        self._makers = [pack(maker, "spawn") for maker in makers]
        self._layout, self._slots = layout, slots
        self._entropy, self._worker_timeout, self._max_restarts = entropy, worker_timeout, max_restarts
        self._first_failure: str | None = None
        n_cpus = options.get("num_cpus", 1)
        self._is_own = connect(address, n_cpus * len(makers))
        self._class: Any = ray.remote(RemoteActor).options(**{"num_cpus": 1, **options, "max_restarts": 0})
        self._handles: list[Handle] = []
        self.publish(0, parameters)

    @property
    def slots(self) -> Slots:
        """What the actors have sent."""
        return self._slots

    @property
    def pids(self) -> list[int | None]:
        """The process ids of the actors, on their machines; ``None`` of those that have not started."""
        return [handle.pid for handle in self._handles]

    def start(self) -> None:
        """Let the cluster start all actors, wherever it has room."""
        self._handles = [self._start_actor(index) for index in range(len(self._makers))]

    def _start_actor(self, index: int) -> Handle:
        (seed,) = np.random.SeedSequence([self._entropy, index, self.n_restarts]).generate_state(1)
        remote = self._class.remote(self._makers[index], index, int(seed), self._layout, self._rows())
        return Handle(remote, remote.start.remote())

    def _rows(self) -> Rows:
        return {name: slot.array for name, slot in self._slots.items()}

    def publish(self, version: int, parameters: np.ndarray) -> None:
        """Put the parameters into the cluster's store, once for all actors."""
        self._latest = version, [ray.put(parameters)]  # in a list, since Ray would send what it refers to

    def request(self, actor: int) -> None:
        """Call the actor."""
        self.n_requested[actor] += 1
        self._call(actor)

    def _call(self, actor: int) -> None:
        handle = self._handles[actor]
        if not handle.requests:
            handle.since = time.monotonic()
        handle.requests.append(handle.remote.work.remote(*self._latest, self._rows()))

    def receive(self, timeout: float) -> list[Delivery]:
        """Wait for calls to return."""
        for index, handle in enumerate(self._handles):
            if handle.fault is not None:
                self._replace(index, handle)
        calls = [call for handle in self._handles for call in self._calls(handle)]
        if not calls:
            time.sleep(timeout)
            return []
        ray.wait(calls, num_returns=1, timeout=timeout)
        done, _ = ray.wait(calls, num_returns=len(calls), timeout=0)
        finished = set(done)
        return [
            delivery
            for index, handle in enumerate(self._handles)
            for delivery in self._take_from(index, handle, finished)
        ]

    def _calls(self, handle: Handle) -> list[Any]:
        return [*handle.requests, *([handle.starting] if handle.pid is None else [])]

    def _take_from(self, index: int, handle: Handle, finished: set[Any]) -> list[Delivery]:
        deliveries = []
        try:
            if handle.pid is None and handle.starting in finished:
                handle.pid, handle.since = ray.get(handle.starting), time.monotonic()
            while handle.requests and handle.requests[0] in finished:
                version, arrays, news, rows, waiting, working = ray.get(handle.requests[0])
                handle.requests.popleft()
                handle.since = time.monotonic()
                self.n_requested[index] -= 1
                for name, row in rows.items():
                    self._slots[name].array[index] = row
                deliveries.append(Delivery(index, version, arrays, news, waiting, working))
        except RayTaskError as error:  # what it does has raised an exception
            handle.fault = f"has failed:\n{error}"
            self._first_failure = self._first_failure or f"Worker {index} {handle.fault}"
        except RayError as error:  # its process or its machine is gone
            handle.fault = f"was lost ({type(error).__name__}): {error}"
        else:
            handle.fault = self._find_fault(handle)
        return deliveries

    def _find_fault(self, handle: Handle) -> str | None:
        seconds = time.monotonic() - handle.since
        if handle.pid is None:
            limit = max(self._worker_timeout, START_SECONDS)
            if seconds > limit and all(each.pid is None for each in self._handles):
                return f"has not started for {limit:g} seconds; does the cluster have room for it?"
        elif handle.requests and seconds > self._worker_timeout:
            limit = self._worker_timeout
            return f"has made no unroll for {limit:g} seconds, worker_timeout={limit:g}"
        return None

    def _replace(self, index: int, handle: Handle) -> None:
        assert handle.fault is not None
        ray.kill(handle.remote)
        if self.n_restarts >= self._max_restarts:
            raise out_of_restarts(index, handle.fault, self.n_restarts, self._first_failure)
        self.n_restarts += 1
        self._handles[index] = self._start_actor(index)
        for _ in range(self.n_requested[index]):
            self._call(index)

    def stop(self) -> None:
        """End the actors, and the connection if it is ours."""
        try:
            self._close()
        finally:
            if ray.is_initialized():
                for handle in self._handles:
                    ray.kill(handle.remote)
                if self._is_own:
                    ray.shutdown()

    def _close(self) -> None:
        """Let actors that work close their environments, which may have started processes."""
        for handle in self._handles:
            for call in list(handle.requests)[1:]:
                with suppress(RayError, TypeError):
                    ray.cancel(call)
        closing = [handle.remote.close.remote() for handle in self._handles if handle.pid is not None]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=GRACE_SECONDS)


class RemoteActor:
    """An actor in its process: keeps the latest parameters that it has seen, and its copy of the statistics.

    :param make: makes the actor, pickled
    :param index: which of the actors it is
    :param seed: its own seed
    :param layout: of the arrays that it fills
    :param rows: running statistics of all actors
    """

    def __init__(self, make: bytes, index: int, seed: int, layout: Layout, rows: Rows) -> None:
        self._layout, self._index = layout, index
        self._slots = {name: SharedArray(*array.shape, dtype=th.float64) for name, array in rows.items()}
        self._take_in(rows)
        self._actor = cloudpickle.loads(make)(index, seed, self._slots)
        self._version, self._parameters = -1, np.empty(0)
        self._idle_since = time.perf_counter()

    def start(self) -> int:
        """Its process id."""
        return os.getpid()

    def work(self, version: int, reference: list[Any], rows: Rows) -> tuple[Any, ...]:
        """Do one piece of work.

        :param version: of the parameters
        :param reference: to them; they are fetched if it does not have them
        :param rows: running statistics of all actors
        :return: the version, the arrays, news, its own running statistics, and the seconds it waited and worked
        """
        begin = time.perf_counter()
        if version != self._version:
            self._version, self._parameters = version, ray.get(reference[0])
        self._take_in(rows, but=self._index)
        arrays = [np.zeros(shape, dtype) for shape, dtype in self._layout]
        news = self._actor.work(self._parameters, arrays, lambda: True)
        own = {name: slot.array[self._index].copy() for name, slot in self._slots.items()}
        end = time.perf_counter()
        waiting, self._idle_since = begin - self._idle_since, end
        return version, arrays, news, own, waiting, end - begin

    def _take_in(self, rows: Rows, but: int | None = None) -> None:
        for name, array in rows.items():
            others = [i for i in range(len(array)) if i != but]
            self._slots[name].array[others] = array[others]

    def close(self) -> None:
        """Let go of everything."""
        self._actor.close()


def connect(address: str | None, n_cpus: float) -> bool:
    """Connect to a cluster, unless this process is connected to it.

    :param address: of the cluster; ``None`` for the one that is there, or a new one on this machine
    :param n_cpus: so many processors a new one is to offer at least
    :return: whether it has connected
    :raises ValueError: if the process is connected to another
    :raises ConnectionError: if there is none with this address
    """
    if ray.is_initialized():
        connected = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", connected):
            raise ValueError(f"ray_address={address!r}, but Ray is connected to {connected!r}; allowed: None or that")
        return False
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    new: dict[str, Any] = {}
    if address == "local":
        new = {"num_cpus": max(os.cpu_count() or 1, int(np.ceil(n_cpus))), "include_dashboard": False}
    else:
        check_cluster(address)
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **new)
    return True


def check_cluster(address: str) -> None:
    """Ray itself would try for many minutes to reach a cluster that is not there.

    :param address: HOST:PORT; others are left to Ray
    :raises ConnectionError: if nothing answers there
    """
    if ":" not in address or "://" in address:
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:  # the latter of what is no number
        raise ConnectionError(f"No Ray cluster answers at {address}: {error}") from error
