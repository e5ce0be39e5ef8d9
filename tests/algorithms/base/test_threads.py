"""Thread counts are limited for as long as training lasts."""

import pytest
import torch as th
from envs import RandomEnv
from threadpoolctl import threadpool_info
from torch import nn

from sb3_pg_ext import REINFORCE
from sb3_pg_ext.algorithms.base.threads import ENVIRONMENT_VARIABLE, limited_threads, thread_count

SMALL = nn.Linear(64, 64)


class Interruption(Exception):
    """Something goes wrong within the scope."""


def counts():
    """The thread counts of PyTorch and of every BLAS that NumPy uses."""
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return th.get_num_threads(), {library["filepath"]: library["num_threads"] for library in libraries}


@pytest.fixture(autouse=True)
def three_threads():
    """Something to be limited, and to be put back."""
    before = th.get_num_threads()
    th.set_num_threads(3)
    yield
    th.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


def test_limits_are_put_back():
    before = counts()
    with limited_threads(1):
        torch_count, blas_counts = counts()
        assert torch_count == 1
        assert set(blas_counts.values()) == {1}
    assert counts() == before
    with pytest.raises(Interruption), limited_threads(1):
        raise Interruption
    assert counts() == before


def test_none_limits_nothing():
    before = counts()
    with limited_threads(None):
        assert counts() == before


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (SMALL, 1),
        (nn.Linear(512, 512), 1),
        (nn.Linear(512, 513), None),
        (nn.Conv2d(1, 1, 3), None),
        (nn.LSTM(4, 64), None),
        (nn.GRUCell(4, 64), None),
        (nn.Sequential(SMALL, nn.ModuleDict({"memory": nn.RNN(4, 64)})), None),
        (nn.Linear(4, 4, device="meta"), None),
    ],
)
def test_what_a_network_gets(network, count):
    assert thread_count(network) == count


@pytest.mark.parametrize(("value", "count"), [("2", 2), ("0", None), ("", 1)])
def test_the_environment_variable_overrides(monkeypatch, value, count):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, value)
    assert thread_count(SMALL) == count


@pytest.mark.parametrize("value", ["-1", "1.5", "many"])
def test_a_bad_environment_variable(monkeypatch, value):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, value)
    with pytest.raises(ValueError, match=f"SB3_PG_EXT_THREADS='{value}'; allowed: an integer ≥ 0"):
        thread_count(SMALL)


@pytest.mark.parametrize(("value", "count"), [("", 1), ("2", 2), ("0", 3)])
def test_training(monkeypatch, value, count):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, value)
    seen = []

    def stop_at_the_second_step(*_):
        seen.append(th.get_num_threads())
        if len(seen) == 2:
            raise Interruption
        return True

    before = counts()
    model = REINFORCE("MlpPolicy", RandomEnv(), device="cpu")
    with pytest.raises(Interruption):
        model.learn(10, stop_at_the_second_step)
    assert seen == [count] * 2
    assert counts() == before
    model.learn(10)
    assert counts() == before
