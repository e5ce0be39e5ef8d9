"""IMPALA on a cluster of two machines, one of which is lost."""

import os
import signal
import threading
import time
import warnings
from functools import partial

import pytest
import torch as th
from envs import RandomEnv
from leftovers import alive
from stable_baselines3.common.vec_env import VecNormalize
from troubled import Troubled

from sb3_pg_ext import IMPALA
from sb3_pg_ext.envs import FastDummyVecEnv
from sb3_pg_ext.workers.pool import WorkerError

ray = pytest.importorskip("ray")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from clusters import local_cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

FOREVER = 10**9


@pytest.fixture(scope="module")
def cluster():
    """With two CPUs on two machines."""
    with local_cluster() as cluster:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster


@pytest.fixture
def connected(cluster):
    """As a user's own ``ray.init`` leaves it: it stays."""
    if not ray.is_initialized():
        ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    assert ray.is_initialized()


def build(*environments, **kwargs):
    arguments = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu", "seed": 0, "n_steps": 10, "batch_size": 2}
    env = FastDummyVecEnv(environments)
    return IMPALA("MlpPolicy", env, backend="ray", **{**arguments, **kwargs})


class Watch:
    """Notes the actors' processes, and does something once, when all of them work.

    It stops a training in which an actor was replaced as soon as the new one has made some steps.

    :param act: what to do, given the process ids
    """

    def __init__(self, act=lambda pids: None):
        self.act = act
        self.pids, self.new, self.n_new = set(), set(), 0

    def __call__(self, caller, _):
        model = caller["self"]
        pids = model._actors.pids
        self.new = {pid for pid in pids if pid is not None} - self.pids
        if model._n_restarts == 1 and len(self.new) == 1:
            self.n_new += pids.index(*self.new) in caller["workers"]
        else:
            self.pids |= self.new
        if self.act is not None and model.num_timesteps >= 200 and None not in pids:
            act, self.act = self.act, None
            act(pids)
        return self.n_new < 40

    def assert_gone(self):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and any(map(alive, self.pids | self.new)):
            time.sleep(0.05)
        assert self.pids
        assert not any(map(alive, self.pids | self.new))


def test_a_run_goes_as_one_on_processes_goes(connected):
    """A single actor gives identical parameters on both; statistics come back."""
    models, watch = [], Watch()
    for backend in ("ray", "processes"):
        env = VecNormalize(FastDummyVecEnv([RandomEnv]))
        more = {"start_method": "fork"} if backend == "processes" else {}
        model = IMPALA("MlpPolicy", env, n_steps=8, batch_size=2, backend=backend, seed=0, device="cpu", **more)
        models.append(model.learn(200, watch if backend == "ray" else None))
        assert env.obs_rms.count >= 200
    th.testing.assert_close(*[model.get_parameters() for model in models], rtol=0, atol=0)
    watch.assert_gone()


def test_an_actor_is_killed(connected):
    watch = Watch(lambda pids: os.kill(pids[1], signal.SIGKILL))
    model = build(*[partial(Troubled, delay=0.001)] * 2, on_worker_failure="restart")
    model.learn(FOREVER, watch)
    assert model._n_restarts == 1
    assert watch.n_new == 40
    watch.assert_gone()


def test_an_environment_raises(connected):
    model = build(partial(Troubled, "raise", at=60))
    with pytest.raises(WorkerError, match=r"Worker 0 has failed:(.|\n)*ZeroDivisionError: the environment is out of"):
        model.learn(FOREVER)


def test_an_actor_hangs(connected):
    model = build(partial(Troubled, "block", at=60), worker_timeout=3)
    with pytest.raises(WorkerError, match="Worker 0 has made no unroll for 3 seconds, worker_timeout=3"):
        model.learn(FOREVER)


def test_the_learner_is_interrupted(connected, tmp_path):
    watch = Watch(lambda pids: threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT)).start())
    model = build(*[partial(Troubled, delay=0.001)] * 2)
    with pytest.raises(KeyboardInterrupt):
        model.learn(FOREVER, watch)
    watch.assert_gone()
    model.save(tmp_path / "model")
    assert IMPALA.load(tmp_path / "model", device="cpu").num_timesteps >= 200


def test_another_cluster_is_refused(connected):
    with pytest.raises(ValueError, match="ray_address='elsewhere:1', but Ray is connected to"):
        build(RandomEnv, ray_address="elsewhere:1").learn(10)


def test_a_machine_is_lost(connected):
    """The actor there is made anew where there is room again, and meanwhile the other one works."""
    (node,) = [node for node in connected.list_all_nodes() if node is not connected.head_node]
    lost_at = []

    def lose(pids):
        connected.remove_node(node, allow_graceful=False)
        lost_at.append(model.num_timesteps)

    def watch_and_replace(caller, _):
        if lost_at and model.num_timesteps >= lost_at[0] + 200:  # made by the other one
            lost_at.clear()
            connected.add_node(num_cpus=1)
        return watch(caller, _)

    watch = Watch(lose)
    model = build(*[partial(Troubled, delay=0.002)] * 2, on_worker_failure="restart")
    model.learn(FOREVER, watch_and_replace)
    assert model._n_restarts == 1
    assert watch.n_new == 40
    watch.assert_gone()


def test_where_no_cluster_answers_is_an_error_at_once(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ConnectionError, match=r"No Ray cluster answers at 127\.0\.0\.1:1: .*refused"):
        build(RandomEnv, ray_address="127.0.0.1:1").learn(10)


def test_a_client_of_ray_is_refused():
    with pytest.raises(ValueError, match="ray_address='ray://head:10001'; allowed: None, 'auto'"):
        build(RandomEnv, ray_address="ray://head:10001")
    with pytest.raises(ValueError, match="ray_address=5; allowed: None, 'auto'"):
        build(RandomEnv, ray_address=5)
    with pytest.raises(ValueError, match="ray_address='auto' with backend='processes'; allowed: backend='ray'"):
        IMPALA("MlpPolicy", RandomEnv(), ray_address="auto")
