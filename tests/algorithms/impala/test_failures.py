"""IMPALA never hangs and leaves nothing behind, whatever happens to its actors: with real processes and signals."""

import os
import random
import signal
import threading
import time
from functools import partial

import pytest
import torch as th
from leftovers import alive
from stable_baselines3.common.callbacks import BaseCallback
from troubled import Troubled

from sb3_pg_ext import IMPALA
from sb3_pg_ext.algorithms.impala.batches import Batch
from sb3_pg_ext.workers.pool import WorkerError

FOREVER = 10**9

# Forks of a process with threads may warn, which pytest makes an error.
pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


def build(*environments, **kwargs):
    arguments = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu", "seed": 0, "n_steps": 10, "batch_size": 2}
    return IMPALA("MlpPolicy", list(environments), start_method="fork", **{**arguments, **kwargs})


def assert_can_be_saved(model, path):
    assert model.num_timesteps > 0
    assert model._n_updates > 0
    model.save(path / "model")
    loaded = IMPALA.load(path / "model", device="cpu")
    th.testing.assert_close(loaded.get_parameters(), model.get_parameters(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("raise", r"Worker 1 has failed:(.|\n)*troubled.py(.|\n)*ZeroDivisionError: the environment is out of order"),
        ("kill", "Worker 1 was killed by SIGKILL"),
        ("block", "Worker 1 has made no step for 2 seconds, worker_timeout=2"),
    ],
)
def test_a_failing_actor_is_an_error(trouble, message, tmp_path):
    model = build(partial(Troubled, delay=0.001), partial(Troubled, trouble, at=60), worker_timeout=2)
    start = time.monotonic()
    with pytest.raises(WorkerError, match=message):
        model.learn(FOREVER)
    assert time.monotonic() - start < 20
    assert_can_be_saved(model, tmp_path)


@pytest.mark.parametrize("trouble", ["raise", "kill", "block"])
def test_a_failing_actor_is_replaced_while_the_others_work(trouble, tmp_path, monkeypatch):
    """And no unroll is learned from twice."""
    seen, of = set(), Batch.of

    def note(unrolls, version):
        for unroll in unrolls:
            observations = unroll.transitions.observations.tobytes()
            assert observations not in seen
            seen.add(observations)
        return of(unrolls, version)

    monkeypatch.setattr(Batch, "of", note)
    model = build(
        partial(Troubled, delay=0.002),
        partial(Troubled, trouble, mark=str(tmp_path / "happened")),
        on_worker_failure="restart",
        worker_timeout=2,
    )
    calls = []
    model.learn(3000, lambda caller, _: calls.append(set(caller["workers"])) is None)
    assert (tmp_path / "happened").exists()
    assert model._n_restarts == 1
    assert {0, 1} == set.union(*calls[-200:])  # the new one works
    assert_can_be_saved(model, tmp_path)


def test_one_that_fails_again_and_again_is_an_error_with_the_first_traceback():
    start = time.monotonic()
    model = build(partial(Troubled, "raise", at=20), partial(Troubled, "kill", at=200, delay=0.002), max_restarts=2)
    model.on_worker_failure = "restart"
    with pytest.raises(WorkerError, match="ZeroDivisionError: the environment is out of order"):
        model.learn(FOREVER)
    assert time.monotonic() - start < 20


class Mishap(Exception):
    pass


def test_an_exception_in_a_callback_ends_the_actors(tmp_path):
    def fail(caller, _):
        if caller["self"].num_timesteps >= 400:
            raise Mishap
        return True

    model = build(partial(Troubled, "block", at=300), Troubled)
    with pytest.raises(Mishap):
        model.learn(FOREVER, fail)
    assert_can_be_saved(model, tmp_path)


def test_ctrl_c_ends_the_actors(tmp_path):
    model = build(Troubled, Troubled)

    def interrupt():
        while model.num_timesteps < 400:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        model.learn(FOREVER)
    thread.join()
    assert_can_be_saved(model, tmp_path)


def test_stopping_does_not_wait_for_unrolls():
    class Stop(BaseCallback):
        def _on_step(self):
            self.pids, self.time = self.model._actors.pids, time.monotonic()
            return self.n_calls < 25

    callback = Stop()
    build(partial(Troubled, delay=0.01), Troubled, n_steps=20).learn(FOREVER, callback)
    assert time.monotonic() - callback.time < 2
    assert callback.n_calls == 25
    assert not any(map(alive, callback.pids))


def test_actors_are_killed_again_and_again(tmp_path):
    """At any moment: while they work, while they send, while they start."""

    class Killer(BaseCallback):
        n_killed = 0

        def _on_step(self):
            if self.n_calls % 200 == 0:
                os.kill(random.choice([pid for pid in self.model._actors.pids if alive(pid)]), signal.SIGKILL)
                self.n_killed += 1
            return self.n_killed < 8

    killer = Killer()
    model = build(*[Troubled] * 3, on_worker_failure="restart", max_restarts=100)
    model.learn(FOREVER, killer)
    assert model._n_restarts >= 6
    assert_can_be_saved(model, tmp_path)


def test_two_actors_without_lag_train_alike_from_run_to_run():
    """Whoever comes first: their unrolls are put together in their own order."""
    delays = (0.0, 0.002), (0.002, 0.0)
    models = [
        build(*[partial(Troubled, delay=delay) for delay in pair], max_lag=0).learn(200, log_interval=None)
        for pair in delays
    ]
    th.testing.assert_close(*[model.get_parameters() for model in models], rtol=0, atol=0)
