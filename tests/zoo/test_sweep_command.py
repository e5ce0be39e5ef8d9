"""``sb3-pg sweep``: what it plans, what it refuses, and that it trains."""

import json
from pathlib import Path

import pytest
import yaml

from sb3_pg_ext.evaluation.records import read_results
from sb3_pg_ext.zoo import sweep
from sb3_pg_ext.zoo.sweep import DEFAULTS, parse_seeds, plan

TINY = "policy_kwargs:{'net_arch': [4]}"


def planned(**options):
    wanted = {"algos": ["npg"], "envs": ["CartPole-v1"], "seeds": "0-1", "log_folder": "nowhere"}
    return plan({**DEFAULTS, **wanted, **options})


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """Run the command line; what it prints, and its exit status."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["sb3-pg sweep", *arguments])
        status = 0
        try:
            sweep.main()
        except SystemExit as error:
            status = error.code
        return status, "".join(capsys.readouterr())

    return run


def test_runs_of_every_combination_seed_by_seed():
    runs = planned(
        algos=["npg", "ppo"],
        envs=["CartPole-v1", "Acrobot-v1"],
        settings={"default": {}, "slow": {"learning_rate": 1e-5}},
        n_timesteps=5000,
    )
    assert len({run.name for run in runs}) == len(runs) == 16
    assert [run.seed for run in runs] == [0] * 8 + [1] * 8
    assert {run.n_timesteps for run in runs} == {5000}
    slow = [run.hyperparameters for run in runs if run.setting == "slow"]
    assert {hyperparameters["learning_rate"] for hyperparameters in slow} == {1e-5}
    assert runs[1].name == "npg-slow/CartPole-v1/seed_0"


def test_hyperparameters_are_the_shipped_ones_and_over_them_the_given():
    (run,) = planned(seeds=0)
    shipped = yaml.safe_load(Path(run.details["config"]).read_text())["CartPole-v1"]
    assert run.hyperparameters == {**shipped, "n_timesteps": int(float(shipped["n_timesteps"]))}
    (run,) = planned(seeds=0, hyperparams={"gamma": 0.5, "n_envs": 2}, settings={"a": {"gamma": 0.6}})
    assert run.hyperparameters == {**shipped, "n_timesteps": run.n_timesteps, "gamma": 0.6, "n_envs": 2}


def test_steps_by_environment():
    steps = {"CartPole-v1": 100, "Acrobot-v1": "2e2"}  # YAML takes 2e2 for a text
    runs = planned(envs=["CartPole-v1", "Acrobot-v1"], seeds=[3], n_timesteps=steps)
    assert [(run.env, run.n_timesteps) for run in runs] == [("CartPole-v1", 100), ("Acrobot-v1", 200)]


@pytest.mark.parametrize(
    ("given", "seeds"),
    [("0-4", [0, 1, 2, 3, 4]), (7, [7]), (["0", "3", "7-9"], [0, 3, 7, 8, 9]), ("1,0-2", [1, 0, 2]), ([4, 4], [4])],
)
def test_seeds(given, seeds):
    assert parse_seeds(given) == seeds


GIVEN = ["--algos", "npg", "--envs", "CartPole-v1", "--seeds", "0", "-f", "sweep"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--algos", "npgg"], "did you mean 'npg'"),
        (["--envs", "CartPole-v2"], "There is no environment 'CartPole-v2'; did you mean 'CartPole-v1'"),
        (["--seeds", "4-0"], "seeds='4-0'; allowed: integers from 0 to 2**32 - 1, and ranges such as 0-4"),
        (["--seeds", "-1"], "seeds='-1'; allowed: integers"),
        (["--seeds", ""], "seeds=''; allowed: integers"),
        (["--settings", "slow", "lerning_rate:1"], "npg has no argument 'lerning_rate'; did you mean 'learning_rate'"),
        (["--settings", "slow", "learning_rate"], "--settings learning_rate; allowed: KEY:VALUE"),
        (["--settings", "a/b"], "settings='a/b'; allowed: names of letters, digits and any of _ . + = -"),
        (["--algos", "npg", "ppo", "--conf-file", "a.yml"], "conf_file='a.yml' for 2 algorithms; allowed: a mapping"),
        (["--conf-file", "a.yml"], "--conf-file a.yml: there is no such file"),
        (["-n", "0"], "n_timesteps=0; allowed: an integer ≥ 1"),
        (["-n", "1.5"], "invalid integer value: '1.5'"),
        (["--workers", "0"], "workers=0; allowed: an integer ≥ 1"),
        (["--final-episodes", "0"], "final_episodes=0; allowed: an integer ≥ 1"),
        (["--gym-packages", "nowhere"], "gym_packages='nowhere' cannot be imported"),
        (["none.yml"], "none.yml cannot be read: No such file or directory"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(command, arguments, message):
    status, output = command(*GIVEN, *arguments)
    assert status == 2
    assert message in output
    assert "Traceback" not in output
    assert not output.startswith("usage") or "invalid" in output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("algos: [npg", "is no YAML"),
        ("- npg", "study.yml holds list; allowed: a mapping with algos, envs, seeds"),
        ("algo: npg", "there is no option 'algo'; did you mean 'algos'"),
        ("algos: []\nenvs: [CartPole-v1]\nseeds: 0", "algos=[]; allowed: at least one, by --algos or in a file"),
        ("algos: npg\nenvs: CartPole-v1\nlog_folder: a", "seeds=None; allowed: at least one, by --seeds or in a file"),
        ("algos: npg\nenvs: CartPole-v1\nseeds: 0", "log_folder=None; allowed: at least one, by -f or in a file"),
        ("settings: [slow]", "settings is ['slow']; allowed: a mapping"),
        (
            "algos: npg\nenvs: CartPole-v1\nseeds: 0\nlog_folder: a\nn_timesteps: many",
            "n_timesteps='many'; allowed: an",
        ),
        ("eval_freq: [1]", "eval_freq=[1]; allowed: an integer"),
        ("settings: {slow: 3}", "settings.slow is 3; allowed: a mapping"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_in_a_line(command, tmp_path, content, message):
    (tmp_path / "study.yml").write_text(content)
    status, output = command("study.yml")
    assert status == 2
    assert message in output


STUDY = """
algos: [npg, ppo]
envs: CartPole-v1
seeds: 0-1
n_timesteps: 100
log_folder: study
settings:
  default:
  slow: {learning_rate: 1e-5}
"""


def test_a_file_and_over_it_the_command_line(command, tmp_path):
    (tmp_path / "study.yml").write_text(STUDY)
    begun = tmp_path / "study" / "ppo" / "CartPole-v1" / "seed_7" / "checkpoint" / "000001_50_steps"
    begun.mkdir(parents=True)
    status, output = command("study.yml", "--seeds", "7", "--dry-run")
    assert status == 0
    assert output.splitlines() == [
        "new       npg CartPole-v1 seed 7",
        "new       npg slow CartPole-v1 seed 7",
        "new       ppo slow CartPole-v1 seed 7",
        "begun     ppo CartPole-v1 seed 7",
        "3 new, 1 begun, 0 finished, 0 failed",
    ]
    assert [path.name for path in (tmp_path / "study").iterdir()] == ["ppo"]
    assert list((tmp_path / "study").rglob("*"))[-1] == begun


def test_a_real_sweep_goes_on_and_refuses_other_settings(command, tmp_path):
    arguments = ["--algos", "npg", "a2c", "--envs", "CartPole-v1", "-n", "64", "--final-episodes", "3", "-f", "runs"]
    arguments += ["--hyperparams", "n_steps:8", "n_envs:2", TINY, "normalize:True", "--eval-freq", "32"]
    arguments += ["--eval-episodes", "2", "--workers", "1"]
    status, output = command(*arguments, "--seeds", "0")
    assert status == 0, output
    (a2c, npg), problems = read_results(tmp_path / "runs")
    assert problems == []
    for record in (a2c, npg):
        assert record["status"] == "finished"
        assert record["hyperparameters"]["policy_kwargs"] == {"net_arch": [4]}
        assert record["evaluation"]["seeds"] == [1_000_000, 1_000_001, 1_000_002]
        assert len(record["evaluation"]["returns"]) == 3
        assert [(item["timesteps"], len(item["returns"])) for item in record["evaluations"]] == [(32, 2), (64, 2)]
        assert record["command"].startswith("sb3-pg sweep --algos npg a2c")
        folder = tmp_path / "runs" / record["algo"] / "CartPole-v1" / "seed_0"
        names = {path.name for path in folder.iterdir()}
        assert {"result.json", "model.zip", "vecnormalize.pkl", "0.monitor.csv", "progress.csv"} <= names
    assert npg["diagnostics"]["train/value_loss"]["timesteps"][-1] == 64
    steps = npg["curve"]["timesteps"]
    assert steps == sorted(steps)
    assert steps[-1] <= 64

    before = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    assert command(*arguments, "--seeds", "0")[0] == 0
    assert {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()} == before
    status, output = command(*arguments, "--seeds", "0", "--final-episodes", "4")
    assert status == 2
    assert "2 of 2 runs were made with other settings" in output
    assert "final_episodes was 3, and is 4" in output
    record = json.loads((tmp_path / "runs" / "npg" / "CartPole-v1" / "seed_0" / "result.json").read_text())
    assert record == npg
