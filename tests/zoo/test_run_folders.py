"""Which run is played, and what a training that does not begin leaves behind."""

from pathlib import Path

import pytest
from rl_zoo3 import utils
from stable_baselines3.common.monitor import Monitor
from toys import Toy

from sb3_pg_ext.plugins import registry
from sb3_pg_ext.zoo import __main__
from sb3_pg_ext.zoo.evaluation import evaluate_latest_run
from sb3_pg_ext.zoo.runs import discard_empty_run, find_trained, get_model_path

RUNS = Path("logs/toy")
TRAIN = ["train", "--algo", "toy", "--env", "CartPole-v1", "-n", "32", "-f", "logs", "--eval-freq", "-1"]
ENJOY = ["enjoy", "--algo", "toy", "--env", "CartPole-v1", "-n", "20", "-f", "logs", "--no-render"]


def files():
    return sorted(str(path.relative_to(RUNS)) for path in RUNS.rglob("*"))


def fail(*arguments, **keywords):
    raise RuntimeError("a bug")


def test_a_training_that_does_not_begin_leaves_nothing(zoo, monkeypatch):
    monkeypatch.setattr(Toy, "_setup_model", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        zoo(*TRAIN)
    assert files() == []


def test_what_was_there_before_stays(zoo, monkeypatch):
    """Even where another training has made the folder of the very number between two looks."""
    zoo(*TRAIN)
    before = files()
    monkeypatch.setattr(Toy, "_setup_model", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        zoo(*TRAIN)
    assert files() == before

    monkeypatch.setattr("rl_zoo3.exp_manager.get_latest_run_id", lambda path, env: 1)
    (RUNS / "CartPole-v1_2").mkdir()
    with pytest.raises(RuntimeError, match="a bug"):
        zoo(*TRAIN)
    assert "CartPole-v1_2" in files()


def test_a_training_that_fails_keeps_its_records_and_is_passed_over(zoo, monkeypatch, capsys):
    zoo(*TRAIN)
    monkeypatch.setattr(Toy, "learn", fail)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="a bug"):
            zoo(*TRAIN)
    assert {"CartPole-v1_2/CartPole-v1/args.yml", "CartPole-v1_3/CartPole-v1/config.yml"} <= set(files())
    capsys.readouterr()
    zoo(*ENJOY)
    shown = capsys.readouterr().out
    assert "Loading latest experiment, id=1\n" in shown
    assert "Later runs, up to 3, do not hold the model: did they fail?\n" in shown


def test_evaluation_passes_over_them_as_well(zoo, monkeypatch):
    monkeypatch.setattr(__main__, "registry", registry)
    zoo("train", "--algo", "fast_a2c", *TRAIN[3:])
    Path("logs/fast_a2c/CartPole-v1_2").mkdir()
    returns, run = evaluate_latest_run("fast_a2c", "CartPole-v1", "logs", n_episodes=1, seed=0)
    assert run == "logs/fast_a2c/CartPole-v1_1"
    assert len(returns) == 1


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Three runs: the first with a model, the second with a checkpoint and the best model, the third with nothing."""
    monkeypatch.chdir(tmp_path)
    for name in ("1/CartPole-v1.zip", "2/best_model.zip", "2/rl_model_8_steps.zip", "3/CartPole-v1/config.yml"):
        path = RUNS / f"CartPole-v1_{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({}, "1/CartPole-v1.zip"),
        ({"load_best": True}, "2/best_model.zip"),
        ({"load_checkpoint": "8"}, "2/rl_model_8_steps.zip"),
        ({"load_last_checkpoint": True}, "2/rl_model_8_steps.zip"),
        ({"exp_id": 1}, "1/CartPole-v1.zip"),
    ],
    ids=str,
)
def test_the_latest_run_with_the_model_is_chosen(runs, choice, expected):
    arguments = {"exp_id": 0, "folder": "logs", "algo": "toy", "env_name": utils.EnvironmentName("CartPole-v1")}
    assert get_model_path(**{**arguments, **choice})[1] == str(RUNS / f"CartPole-v1_{expected}")


@pytest.mark.parametrize("choice", [{"exp_id": 3}, {"load_checkpoint": "9"}, {"env_name": "Pendulum-v1"}], ids=str)
def test_a_model_that_is_not_there_is_rl_zoos_error(runs, choice):
    arguments = {"exp_id": 0, "folder": "logs", "algo": "toy", "env_name": "CartPole-v1", **choice}
    arguments["env_name"] = utils.EnvironmentName(arguments["env_name"])
    with pytest.raises(ValueError, match="No model found for toy on"):
        get_model_path(**arguments)


def test_what_was_trained(runs):
    (RUNS / "Pendulum-v1_12").mkdir()
    (RUNS / "report_CartPole-v1_500-trials-9.csv").touch()
    assert find_trained("logs", "toy") == ["CartPole-v1", "Pendulum-v1"]
    assert find_trained("logs", "other") == []


@pytest.mark.parametrize("kept", ["model.zip", "CartPole-v1/vecnormalize.pkl", "evaluations.npz", "notes.txt"])
def test_a_run_with_anything_of_worth_is_kept(tmp_path, kept):
    for name in ("0.monitor.csv", kept):
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).touch()
    discard_empty_run(str(tmp_path / "run"))
    assert (tmp_path / "run" / kept).exists()
    assert (tmp_path / "run/0.monitor.csv").exists()


@pytest.mark.parametrize("n_episodes", [0, 1])
def test_a_monitor_file_is_of_worth_from_its_first_episode_on(tmp_path, n_episodes):
    (tmp_path / "run").mkdir()
    env = Monitor(Toy("MlpPolicy", "CartPole-v1").env.envs[0].unwrapped, str(tmp_path / "run/0"))
    for _ in range(n_episodes):
        env.reset(seed=0)
        while not env.step(0)[2]:
            pass
    env.close()
    discard_empty_run(str(tmp_path / "run"))
    assert (tmp_path / "run").exists() == bool(n_episodes)
