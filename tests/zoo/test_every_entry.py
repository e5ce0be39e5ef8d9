"""Every distinct entry of every shipped configuration trains for two updates, is saved, and plays."""

from dataclasses import replace

import pytest
import yaml
from entries import SHIPPED, find_entries
from rl_zoo3.utils import ALGOS

from sb3_pg_ext.plugins import registry
from sb3_pg_ext.zoo import __main__

pytestmark = [
    # Raised while Box2D is being imported: as an error it ends the process.
    pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning"),
    # Of RL Zoo's files, which the fast algorithms read.
    pytest.mark.filterwarnings("ignore:.*The environment .* is out of date:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You have specified a mini-batch size:UserWarning"),
]

LONG = {
    "a3c-Acrobot-v1",
    "a3c-HalfCheetah-v5",
    "a3c-LunarLander-v3",
    "a3c-Pendulum-v1",
    "a3c-default",
    "ppo_kl-LunarLander-v3",
    "ppo_kl-Pendulum-v1",
}
"""Many processes to start, or many steps and minibatches for an update; others of the same kind are left."""


def as_parameter(entry):
    return pytest.param(entry, id=str(entry), marks=[pytest.mark.thorough] if str(entry) in LONG else [])


OF_RL_ZOO = ("CartPole-v1",)
"""Of RL Zoo's own entries, which the twins read, these; ``make configs`` runs all of them."""


ELSEWHERE = {"acktr-atari"}
"""Ten seconds for the eigenvalues of the widest layer: ``make configs`` runs it, too."""


SMALLER = {"atari": {"n_envs": 2, "n_steps": 16, "batch_size": 32}}
"""Sizes that say nothing about whether an entry works, but cost time; ``make configs`` runs what is shipped."""


ENTRIES = [entry for entry in find_entries() if str(entry) not in ELSEWHERE]


def test_no_file_is_left_out():
    assert {entry.config for entry in ENTRIES} >= set(SHIPPED.glob("*.yml"))
    assert {str(entry) for entry in find_entries()} >= LONG | ELSEWHERE


@pytest.mark.parametrize("entry", [as_parameter(e) for e in ENTRIES if e.is_ours or e.name in OF_RL_ZOO])
def test_it_trains_is_saved_and_plays(zoo, monkeypatch, tmp_path, capsys, entry):
    if reason := entry.reason_to_skip():
        pytest.skip(reason)
    monkeypatch.setattr(__main__, "registry", registry)
    sizes = {key: size for key, size in SMALLER.get(entry.name, {}).items() if entry.hyperparams.get(key, 0) > size}
    entry = replace(entry, hyperparams={**entry.hyperparams, **sizes})
    given = ["-params", *(f"{key}:{size}" for key, size in sizes.items())] if sizes else []
    zoo("train", *entry.arguments(), *given, "-f", "logs", "--eval-freq", "-1", "--seed", "1", "--device", "cpu")
    name = entry.env_id.replace("/", "-")
    run = tmp_path / "logs" / entry.algo / f"{name}_1"
    saved = yaml.unsafe_load((run / name / "config.yml").read_text())
    shipped = {key: value for key, value in saved.items() if key != "learning_starts"}
    assert shipped == {key: value for key, value in entry.hyperparams.items() if key != "learning_starts"}
    assert ALGOS[entry.algo].load(run / f"{name}.zip", device="cpu")._n_updates >= 2
    capsys.readouterr()
    zoo("enjoy", "--algo", entry.algo, "--env", entry.env_id, "-n", "20", "-f", "logs", "--no-render")
    assert f"Loading logs/{entry.algo}/{name}_1/{name}.zip" in capsys.readouterr().out
