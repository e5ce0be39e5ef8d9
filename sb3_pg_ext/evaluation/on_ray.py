"""Runs on the machines of a Ray cluster, which need no common disk: files go to and fro with the tasks."""

import io
import logging
import os
import shutil
import tarfile
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import ray
import torch as th
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from threadpoolctl import threadpool_limits

from sb3_pg_ext.evaluation.locks import PREFIX as LOCK
from sb3_pg_ext.evaluation.processes import OUTPUT_FILE, Ended
from sb3_pg_ext.evaluation.records import RESULT_FILE
from sb3_pg_ext.evaluation.runs import CHECKPOINT_FOLDER, Run, Trainer, perform
from sb3_pg_ext.workers.on_ray import check_cluster

LOOK_SECONDS = 5.0
"""So often the cluster is asked what it has, and how far the runs are."""


class RayTasks:
    """Makes runs as tasks of Ray, one each, anywhere in a cluster.

    A task works in a temporary folder of its machine. What it leaves, and every checkpoint as soon as it is written,
    goes to the machine of this process. Ray keeps processes that have imported everything for the next task. A run
    whose process or machine dies is lost; the sweep begins it again, from the last checkpoint that came through.

    :param trainer: trains
    :param address: of the cluster, ``"auto"`` for the one that this machine belongs to, ``"local"`` for a new one
    :param n_cpus: of every run, which may use as many threads
    :param n_gpus: of every run; a part of one if it is below 1
    :raises ValueError: if the address is that of a Ray client's server, or no machine has enough for a run
    :raises ConnectionError: if there is no such cluster
    """

    def __init__(self, trainer: Trainer, address: str = "auto", n_cpus: int = 1, n_gpus: float = 0) -> None:
        if address.startswith("ray://"):
            raise ValueError(
                f"ray={address!r}; allowed: 'auto' on a machine of the cluster, or HOST:PORT; a client of Ray has no "
                "folder that the cluster could write to"
            )
        self._running: dict[Any, Run] = {}
        self._steps: dict[str, int] = {}
        self._is_own = not ray.is_initialized()
        if self._is_own:
            check_cluster(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        self._trainer, self._n_cpus, self._n_gpus = trainer, n_cpus, n_gpus
        if not self._count_slots():
            largest = max((node["Resources"].get("CPU", 0) for node in _living_nodes()), default=0)
            self.close()
            raise ValueError(
                f"cpus_per_run={n_cpus}, gpus_per_run={n_gpus:g}; allowed: what one machine of the cluster has; the "
                f"largest has {largest:g} CPUs"
            )
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._keeper: Any = ray.remote(_Keeper).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here).remote()
        self._task: Any = ray.remote(_make_run).options(num_cpus=n_cpus, num_gpus=n_gpus, max_retries=0)
        self._looked = self._counted = time.monotonic()

    @property
    def n_slots(self) -> int:
        """So many runs at a time as the cluster has room for, which may change."""
        if time.monotonic() - self._counted > LOOK_SECONDS:
            self._counted, self._n_slots = time.monotonic(), max(1, self._count_slots())
        return self._n_slots

    def _count_slots(self) -> int:
        wanted = {"CPU": self._n_cpus, "GPU": self._n_gpus}
        self._n_slots = sum(
            min(int(node["Resources"].get(name, 0) / amount) for name, amount in wanted.items() if amount)
            for node in _living_nodes()
        )
        return self._n_slots

    def submit(self, run: Run, folder: Path) -> None:
        """Begin a run.

        :param run: which
        :param folder: where its files go, on this machine
        """
        reference = self._task.remote(self._trainer, run, pack(folder), self._keeper, str(folder.resolve()))
        self._running[reference] = run

    def wait(self, timeout: float) -> list[Ended]:
        """Wait for a moment, or until a run is over.

        :param timeout: so long at most, in seconds
        :return: the runs that are over
        """
        if not self._running:
            time.sleep(timeout)
            return []
        done, _ = ray.wait(list(self._running), num_returns=1, timeout=timeout)
        more, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return [self._end(reference) for reference in {*done, *more}]

    def _end(self, reference: Any) -> Ended:
        run = self._running.pop(reference)
        try:
            ray.get(reference)
        except RayTaskError as error:
            return Ended(run, str(error))
        except RayError as error:  # its process or its machine has died
            return Ended(run, f"{type(error).__name__}: {error}", is_lost=True)
        return Ended(run)

    def steps(self) -> dict[str, int]:
        """So many steps every run has made, by its name, as far as is known."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            with suppress(RayError):
                self._steps = ray.get(self._keeper.get_steps.remote(), timeout=LOOK_SECONDS)
        return self._steps

    def close(self) -> None:
        """End all runs."""
        while self._running:
            ray.cancel(self._running.popitem()[0], force=True)
        if self._is_own and ray.is_initialized():
            ray.shutdown()


class _Keeper:
    """An actor on the machine of the sweep, which puts into place what the runs send."""

    def __init__(self) -> None:
        self._steps: dict[str, int] = {}

    def report(self, name: str, steps: int) -> None:
        self._steps[name] = steps

    def get_steps(self) -> dict[str, int]:
        return self._steps

    def keep(self, archive: bytes, folder: str) -> None:
        unpack(archive, Path(folder))


def _make_run(trainer: Trainer, run: Run, archive: bytes, keeper: Any, home: str) -> None:
    """The task."""
    with tempfile.TemporaryDirectory(prefix="sb3_pg_ext_") as name:
        folder = Path(name)
        unpack(archive, folder)
        n_threads = int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1))
        with (
            (folder / OUTPUT_FILE).open("a", encoding="utf-8") as output,
            redirect_stdout(output),
            redirect_stderr(output),
            threadpool_limits(n_threads),
        ):
            th.set_num_threads(n_threads)
            perform(trainer, run, folder, _Reporter(run, folder, keeper, home))
        ray.get(keeper.keep.remote(pack(folder), home))


class _Reporter:
    """Tells the keeper how far a run is, and sends it the checkpoints that have been written meanwhile."""

    def __init__(self, run: Run, folder: Path, keeper: Any, home: str) -> None:
        self._run, self._folder, self._keeper, self._home = run, folder, keeper, home
        self._sent = self._find()
        self._sending: Any = None

    def _find(self) -> set[str]:
        return {path.name for path in (self._folder / CHECKPOINT_FOLDER).glob("[!.]*")}

    def __call__(self, steps: int) -> None:
        self._keeper.report.remote(self._run.name, steps)
        if self._find() == self._sent:
            return
        self._sent = self._find()
        if self._sending is not None:
            ray.get(self._sending)  # one at a time: they may be large
        self._sending = self._keeper.keep.remote(pack(self._folder), self._home)


def pack(folder: Path) -> bytes:
    """All files of a run, but for locks, in an archive.

    :param folder: of the run
    """
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path in sorted(folder.glob("*")):
            if not path.name.startswith((f"{LOCK}.", ".")):
                archive.add(path, path.name)
    return stream.getvalue()


def unpack(archive: bytes, folder: Path) -> None:
    """Put the files of an archive into a folder, each at once or not at all, the record last.

    Checkpoints that are not in the archive are removed.

    :param archive: what :func:`pack` gave
    :param folder: of the run; it is made if it is not there
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".incoming_") as name:
        incoming = Path(name)
        with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
            opened.extractall(incoming, filter="data")
        checkpoints = folder / CHECKPOINT_FOLDER
        arrived = {path.name for path in (incoming / CHECKPOINT_FOLDER).glob("*")}
        if arrived:
            checkpoints.mkdir(exist_ok=True)
        for path in sorted((incoming / CHECKPOINT_FOLDER).glob("*")):
            if not (checkpoints / path.name).exists():
                os.replace(path, checkpoints / path.name)
        files = [path for path in incoming.iterdir() if path.is_file()]
        for path in sorted(files, key=lambda path: path.name == RESULT_FILE):
            os.replace(path, folder / path.name)
        for path in checkpoints.glob("*"):
            if path.name not in arrived:
                shutil.rmtree(path)
        if not arrived:
            shutil.rmtree(checkpoints, ignore_errors=True)


def _living_nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]
