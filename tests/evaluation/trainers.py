"""Trainers that train nothing, for sweeps in other processes, too."""

import os
import signal
import time
from pathlib import Path

from sb3_pg_ext.evaluation.runs import Run


def make_run(seed=0, algo="toy", env="Toy-v0", n_timesteps=100, **keywords):
    return Run(algo, env, seed, n_timesteps, **keywords)


def train(run, folder, report):
    """What a run is to do stands in its hyper-parameters."""
    print(f"training with seed {run.seed}")
    with (folder / "trained.txt").open("a") as file:
        file.write(f"{os.getpid()}\n")
    report(run.n_timesteps // 2)
    match run.hyperparameters.get("do"):
        case "raise":
            raise RuntimeError("nothing learned")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "wait":
            while not (folder / "go").exists():
                time.sleep(0.01)
    return {"evaluation": {"timesteps": run.n_timesteps, "seeds": [1], "returns": [run.seed], "lengths": [1]}}


def train_in_parts(run, folder, report):
    """A checkpoint after the first part; the second waits for a file."""
    checkpoint = folder / "checkpoint" / "1"
    resumed = checkpoint.exists()
    checkpoint.mkdir(parents=True, exist_ok=True)
    report(run.n_timesteps // 2)
    while not Path(run.hyperparameters["go"]).exists():
        time.sleep(0.05)
    evaluation = {"timesteps": run.n_timesteps, "seeds": [1], "returns": [run.seed], "lengths": [1]}
    return {"resumed": resumed, "evaluation": evaluation}
