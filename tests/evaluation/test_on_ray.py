"""Runs on a cluster of two machines, one of which is lost."""

import warnings
from pathlib import Path

import pytest
from trainers import make_run, train_in_parts

from sb3_pg_ext.evaluation.records import read_result
from sb3_pg_ext.evaluation.sweep import sweep

ray = pytest.importorskip("ray")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from clusters import local_cluster

    from sb3_pg_ext.evaluation.on_ray import RayTasks, pack, unpack


def tree(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def fill(folder, **contents):
    for name, text in contents.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_files_go_to_and_fro(tmp_path):
    there, here = tmp_path / "there", tmp_path / "here"
    fill(there, model="new", checkpoint__2__state="2", checkpoint__3__state="3")
    fill(here, model="old", other="stays", checkpoint__1__state="1", checkpoint__2__state="2")
    (there / "lock.1.2.3.host").touch()
    unpack(pack(there), here)
    assert tree(here) == {"model": "new", "other": "stays", "checkpoint/2/state": "2", "checkpoint/3/state": "3"}
    fill(there, model="finished")
    for path in sorted(there.glob("checkpoint/**/*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (there / "checkpoint").rmdir()
    unpack(pack(there), here)
    assert tree(here) == {"model": "finished", "other": "stays"}
    assert not (here / "checkpoint").exists()


def test_a_client_of_ray_is_refused():
    with pytest.raises(ValueError, match="ray='ray://head:10001'; allowed: 'auto' on a machine of the cluster"):
        RayTasks(train_in_parts, "ray://head:10001")


@pytest.mark.parametrize(("port", "problem"), [("1", "refused"), ("head", "invalid literal")])
def test_where_no_cluster_answers_is_an_error_at_once(monkeypatch, port, problem):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ConnectionError, match=f"No Ray cluster answers at 127.0.0.1:{port}: .*{problem}"):
        RayTasks(train_in_parts, f"127.0.0.1:{port}")


@pytest.fixture(scope="module")
def cluster():
    with local_cluster(Path(__file__).parent) as cluster:
        yield cluster


class Watched(RayTasks):
    """Removes a machine as soon as a checkpoint from there has come, and lets the runs go on once that is noticed.

    Earlier, the process that has lost its machine might still finish its run.
    """

    def __init__(self, *arguments, cluster, node, folder, go):
        super().__init__(*arguments)
        self.cluster, self.node, self.folder, self.go = cluster, node, folder, go

    def wait(self, timeout):
        if self.node is not None and len(list(self.folder.glob("*/*/*/checkpoint/1"))) == 2:
            self.cluster.remove_node(self.node, allow_graceful=False)
            self.node = None
        ended = super().wait(0.1)
        if any(each.is_lost for each in ended):
            self.go.touch()
        return ended


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_machine_is_lost(cluster, tmp_path, capsys):
    """Of two runs, one on each machine, both finish; that of the lost machine goes on from its checkpoint."""
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    go = tmp_path / "go"
    runs = [make_run(seed, hyperparameters={"go": str(go)}) for seed in (0, 1)]
    executor = Watched(train_in_parts, cluster.address, cluster=cluster, node=node, folder=tmp_path / "runs", go=go)
    assert executor.n_slots == 2
    outcome = sweep(runs, tmp_path / "runs", executor)
    assert len(outcome.finished) == 2
    assert executor.node is None
    records = [read_result(tmp_path / "runs" / run.name) for run in runs]
    assert sorted(record["resumed"] for record in records) == [0, 1]
    assert [record["evaluation"]["returns"] for record in records] == [[0], [1]]
    assert "is begun again" in capsys.readouterr().err
    for run in runs:
        folder = tmp_path / "runs" / run.name
        assert sorted(path.name for path in folder.iterdir()) == ["output.txt", "result.json"]
