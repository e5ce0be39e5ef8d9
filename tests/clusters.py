"""A Ray cluster on this machine, whose machines can be added and lost."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster


@contextmanager
def local_cluster(*folders: Path) -> Iterator[Cluster]:
    """A cluster of one machine with one CPU.

    :param folders: with modules that the machines have installed, beside those of the tests and this package
    """
    here = Path(__file__).parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # on a busy machine those of Ray's default hardly start
        patch.setenv("PYTHONPATH", ":".join(map(str, [*folders, here, here.parent])))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
