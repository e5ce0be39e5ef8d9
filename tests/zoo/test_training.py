"""A run of a sweep that is interrupted goes on, and ends as if nothing had happened."""

import shutil

import pytest
import torch as th
from rl_zoo3.utils import ALGOS

from sb3_pg_ext.evaluation.records import read_result
from sb3_pg_ext.evaluation.runs import perform
from sb3_pg_ext.zoo import sweep, training

RESULTS = ("evaluation", "curve", "evaluations", "n_timesteps", "hyperparameters", "status")
SMALL = {"policy_kwargs": {"net_arch": [8]}, "n_envs": 2, "normalize": True}


def plan(algo, env_id, **hyperparameters):
    wanted = {"algos": [algo], "envs": [env_id], "seeds": 3, "log_folder": "nowhere", "n_timesteps": 600}
    wanted |= {"hyperparams": hyperparameters, "final_episodes": 3, "checkpoint_freq": 100}
    (run,) = sweep.plan({**sweep.DEFAULTS, **wanted})
    return run


def interrupt_at(steps):
    def report(so_far):
        if so_far >= steps:
            raise KeyboardInterrupt

    return report


@pytest.mark.parametrize(
    "run",
    [
        plan("npg", "CartPole-v1", n_steps=32, **SMALL),
        plan("ppo", "CartPole-v1", n_steps=32, batch_size=16, **SMALL),
        plan("dqn", "CartPole-v1", learning_starts=50, policy_kwargs={"net_arch": [8]}),
    ],
    ids=lambda run: run.algo,
)
def test_it_goes_on_within_the_run(run, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "REPORT_SECONDS", 0.0)
    undisturbed, interrupted = tmp_path / "undisturbed", tmp_path / "interrupted"
    perform(training.train, run, undisturbed, lambda steps: None)
    with pytest.raises(KeyboardInterrupt):
        perform(training.train, run, interrupted, interrupt_at(350))
    assert read_result(interrupted)["status"] == "interrupted"
    shutil.copytree(interrupted, tmp_path / "elsewhere")  # as on another machine
    for folder in (interrupted, tmp_path / "elsewhere"):
        begun = []
        perform(training.train, run, folder, begun.append)
        assert 200 <= begun[0] < 350
        record, expected = read_result(folder), read_result(undisturbed)
        assert {key: record[key] for key in RESULTS} == {key: expected[key] for key in RESULTS}
        assert record["resumed"] == 1
        for key in ("train/loss", "train/value_loss", "rollout/ep_rew_mean"):
            assert record["diagnostics"].get(key) == expected["diagnostics"].get(key)
        models = [ALGOS[run.algo].load(path / "model.zip") for path in (folder, undisturbed)]
        for ours, theirs in zip(*(model.policy.parameters() for model in models), strict=True):
            assert th.equal(ours, theirs)
        assert not (folder / "checkpoint").exists()
