"""A search with several seeds a trial, and one by several processes."""

import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from rl_zoo3.exp_manager import ExperimentManager

from sb3_pg_ext.zoo.seeds import SCORES

SEARCH = ["-optimize", "--n-evaluations", "2", "--no-optim-plots", "--eval-episodes", "1", "-n", "64"]
SEARCH += ["--storage", "study.log", "--study-name", "study"]
TRAIN = ["train", "--algo", "toy", "--env", "CartPole-v1", "-f", "logs", "--seed", "5", "--verbose", "0"]


def load():
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend("study.log"))
    return optuna.load_study(study_name="study", storage=storage)


@pytest.mark.filterwarnings("ignore")
def test_the_median_of_the_seeds_counts(zoo, config, monkeypatch):
    """One trial that is trained for real, and then three whose scores are given."""
    zoo(*TRAIN, "--conf-file", str(config), *SEARCH, "--n-trials", "1", "--n-seeds", "3")
    (trial,) = load().trials
    assert len(trial.user_attrs[SCORES]) == 3
    assert trial.value == sorted(trial.user_attrs[SCORES])[1]
    assert sorted(trial.intermediate_values) == [1, 2, 3, 4]  # two evaluations of the first seed, then the others
    assert trial.intermediate_values[4] == trial.value

    seen = []

    def objective(manager, trial):
        """The second seed of the second trial is bad, and its reports are not those of the study."""
        seen.append((trial.number, manager.seed, trial.suggest_float("one_minus_gamma", 0.01, 0.1)))
        trial.report(100.0, 1)
        assert not trial.should_prune()
        return {5: 1.0, 6: -10.0, 7: 4.0}[manager.seed]

    monkeypatch.setattr(ExperimentManager, "objective", objective)
    zoo(*TRAIN, "--conf-file", str(config), *SEARCH, "--n-trials", "2", "--n-seeds", "3", "--pruner", "none")
    assert [(number, seed) for number, seed, _ in seen] == [(1, 5), (1, 6), (1, 7), (2, 5), (2, 6), (2, 7)]
    assert len({value for _, _, value in seen}) == 2
    assert [trial.value for trial in load().trials[1:]] == [1.0, 1.0]
    assert load().trials[1].intermediate_values == {1: 100.0, 3: -4.5, 4: 1.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n-seeds", "3"], "--n-seeds 3 without -optimize; allowed: sb3-pg sweep --seeds 0-2"),
        ([*SEARCH, "--n-seeds", "0"], "--n-seeds 0; allowed: an integer ≥ 1"),
    ],
)
def test_a_number_of_seeds_that_makes_no_sense(zoo, config, capsys, arguments, message):
    with pytest.raises(SystemExit):
        zoo(*TRAIN, "--conf-file", str(config), *arguments)
    assert message in capsys.readouterr().err


@pytest.mark.thorough
def test_two_processes_share_a_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    arguments = ["train", "--algo", "npg", "--env", "CartPole-v1", "-f", "logs", *SEARCH, "--n-seeds", "3"]
    command = [sys.executable, "-m", "sb3_pg_ext.zoo", *arguments, "--max-total-trials", "4", "-params", "n_envs:1"]
    processes = [
        subprocess.Popen([*command, "--seed", str(seed)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for seed in (1, 2)
    ]
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    trials = load().trials
    assert len(trials) == 4
    assert len({tuple(sorted(trial.params.items())) for trial in trials}) == 4
    for trial in trials:
        if trial.value is not None:
            assert trial.value == sorted(trial.user_attrs[SCORES])[1]
