"""A training that was killed ends, when it is run again, as one that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch as th
from stable_baselines3 import DQN, PPO

import sb3_pg_ext

SCRIPT = Path(__file__).with_name("killed.py")


def start(name, folder):
    paths = os.pathsep.join([str(Path(sb3_pg_ext.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(SCRIPT), name, str(folder)]
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    with (folder / "output").open("a") as output:
        return subprocess.Popen(command, stdout=output, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("cls", [PPO, pytest.param(DQN, marks=pytest.mark.thorough)])
def test_a_killed_training_ends_as_one_that_was_not(cls, tmp_path):
    name, whole, killed = cls.__name__, tmp_path / "whole", tmp_path / "killed"
    undisturbed, process = start(name, whole), start(name, killed)
    checkpoints = killed / "checkpoint"
    while not (checkpoints.is_dir() and len(list(checkpoints.iterdir())) > 1):
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    time.sleep(np.random.default_rng().uniform(0, 0.3))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    again = start(name, killed)
    assert again.wait() == undisturbed.wait() == 0
    assert "resumed at" in (killed / "output").read_text()
    models = [cls.load(folder / "model", device="cpu") for folder in (whole, killed)]
    th.testing.assert_close(*(model.get_parameters() for model in models), rtol=0, atol=0)
    texts = [(folder / "0.monitor.csv").read_text().splitlines()[1:] for folder in (whole, killed)]
    one, other = ([row.rsplit(",", 1)[0] for row in rows] for rows in texts)
    assert one == other
