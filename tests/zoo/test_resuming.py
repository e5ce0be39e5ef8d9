"""``sb3-pg train --resume``."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from toys import Toy

from sb3_pg_ext.zoo import bridge

RUNS = Path("logs/toy")
TRAIN = ["train", "--algo", "toy", "--env", "CartPole-v1", "-n", "640", "-f", "logs", "--eval-freq", "200"]


class Interrupt(BaseCallback):
    """Does what Ctrl-C does."""

    at = 400

    def _on_step(self):
        if self.num_timesteps >= self.at:
            raise KeyboardInterrupt
        return True


@pytest.fixture
def interrupted(zoo, monkeypatch):
    """A run that was interrupted."""
    make = bridge.PluginExperimentManager.create_callbacks

    def with_interrupt(self):
        make(self)
        self.callbacks.append(Interrupt())

    with monkeypatch.context() as patch:
        patch.setattr(bridge.PluginExperimentManager, "create_callbacks", with_interrupt)
        zoo(*TRAIN, "--seed", "3", "--resume")
    return RUNS / "CartPole-v1_1"


def parameters(run):
    return th.nn.utils.parameters_to_vector(Toy.load(run / "CartPole-v1.zip").policy.parameters())


def episodes(run):
    """Returns and lengths in the files of Monitor."""
    found = []
    for path in sorted(run.glob("*.monitor.csv")):
        with path.open() as file:
            file.readline()
            found.append([(row["r"], row["l"]) for row in csv.DictReader(file)])
    return found


def test_an_interrupted_run_is_gone_on_with(zoo, interrupted, capsys):
    assert len(list((interrupted / "checkpoint").iterdir())) == 2
    capsys.readouterr()
    zoo(*TRAIN, "--resume")
    assert "Going on with logs/toy/CartPole-v1_1 after 384 of 640 steps" in capsys.readouterr().out
    assert not (interrupted / "checkpoint").exists()
    zoo(*TRAIN, "--seed", "3")
    whole = RUNS / "CartPole-v1_2"
    th.testing.assert_close(parameters(interrupted), parameters(whole), rtol=0, atol=0)
    assert episodes(interrupted) == episodes(whole)
    assert len(episodes(whole)) == 2
    evaluations = [np.load(run / "evaluations.npz") for run in (interrupted, whole)]
    for name in ("timesteps", "results", "ep_lengths"):
        np.testing.assert_array_equal(*(each[name] for each in evaluations))


def test_another_number_of_steps_is_refused(zoo, interrupted, capsys):
    with pytest.raises(SystemExit):
        zoo(*TRAIN, "--resume", "-n", "1280")
    assert "--resume with 1280 steps; allowed: 640" in capsys.readouterr().err
    assert (interrupted / "checkpoint").exists()


def test_another_seed_or_nothing_unfinished_begins_a_new_run(zoo, interrupted, capsys):
    zoo(*TRAIN, "--seed", "4", "--resume")
    assert "There is no unfinished run to go on with" in capsys.readouterr().out
    assert (RUNS / "CartPole-v1_2" / "CartPole-v1.zip").exists()
    assert (interrupted / "checkpoint").exists()


def test_checkpoints_come_as_often_as_is_asked(zoo, monkeypatch):
    made = []
    monkeypatch.setattr(bridge, "TrainingCheckpointCallback", lambda *arguments: made.append(arguments) or Interrupt())
    zoo(*TRAIN, "--checkpoint-freq", "100")
    zoo(*TRAIN, "--resume")
    zoo(*TRAIN)
    assert [frequency for frequency, _ in made] == [100, 32]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint-freq", "0"], "--checkpoint-freq 0; allowed: an integer ≥ 1"),
        (["--resume", "-optimize"], "--resume with --optimize-hyperparameters; allowed: one of them"),
        (["--resume", "-params", "gamma:0.5"], "begun with other hyper-parameters"),
        (["--resume", "--algo", "ars"], "allowed: on-policy and off-policy algorithms"),
    ],
)
def test_what_cannot_be(zoo, interrupted, capsys, arguments, message):
    with pytest.raises(SystemExit):
        zoo(*TRAIN, *arguments)
    assert message in capsys.readouterr().err
    assert (interrupted / "checkpoint").exists()
