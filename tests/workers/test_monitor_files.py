"""Files of monitors keep what was written before."""

import time
from functools import partial

import pytest
from stable_baselines3.common.monitor import Monitor, load_results
from troubled import Troubled

from sb3_pg_ext.algorithms.a3c import A3C
from sb3_pg_ext.workers.monitor_files import continued_monitor_files

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


def play(env, n_episodes):
    for _ in range(n_episodes):
        env.reset()
        done = False
        while not done:
            *_, terminated, truncated, _ = env.step(env.action_space.sample())
            done = terminated or truncated
    env.close()


@pytest.mark.parametrize("name", ["", "0", "0.monitor.csv"])
def test_a_monitor_continues_the_file_that_is_there(name, tmp_path):
    path = str(tmp_path / name) if name else str(tmp_path)
    play(Monitor(Troubled(), path), 2)
    time.sleep(0.1)
    with continued_monitor_files():
        play(Monitor(Troubled(), path), 3)
    results = load_results(str(tmp_path))
    assert len(results) == 5
    times = results["t"].tolist()
    assert times == sorted(times)
    assert times[2] - times[1] > 0.09
    (file,) = tmp_path.glob("*monitor.csv")
    assert file.read_text().count("t_start") == 1


@pytest.mark.parametrize("content", [None, "", "no header\n", "5\n", "#{}\n"])
def test_a_file_without_a_header_is_begun_anew(content, tmp_path):
    file = tmp_path / "monitor.csv"
    if content is not None:
        file.write_text(content)
    with continued_monitor_files():
        play(Monitor(Troubled(), str(file)), 2)
    assert len(load_results(str(tmp_path))) == 2


def test_outside_of_the_scope_files_are_begun_anew(tmp_path):
    with pytest.raises(ZeroDivisionError), continued_monitor_files():
        raise ZeroDivisionError
    for _ in range(2):
        play(Monitor(Troubled(), str(tmp_path)), 1)
    assert len(load_results(str(tmp_path))) == 1


def monitored(path, *trouble, **kwargs):
    return Monitor(Troubled(*trouble, delay=0.001, **kwargs), str(path))


def test_a_second_training_and_a_restart_lose_no_episode(tmp_path):
    mark = str(tmp_path / "happened")
    model = A3C(
        "MlpPolicy",
        [partial(monitored, tmp_path / "0"), partial(monitored, tmp_path / "1", "kill", at=150, mark=mark)],
        start_method="fork",
        on_worker_failure="restart",
        policy_kwargs={"net_arch": [8]},
        device="cpu",
        seed=0,
    )
    restarts = []
    for total in (1000, 2000):
        model.learn(1000)
        restarts.append(model._n_restarts)
        # Episodes have ten steps; at most three are cut: two by the end, one by the restart.
        assert len(load_results(str(tmp_path))) >= total / 10 - 3 * total / 1000
    assert restarts == [1, 0]
    model.env.close()
