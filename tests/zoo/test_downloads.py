"""Runs from elsewhere are played without running what strangers have written."""

import os
import pickle
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from attacks import with_attribute
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_pg_ext.zoo import __main__ as command_line
from sb3_pg_ext.zoo import downloads

ENV = "CartPole-v1"


class Calls:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture
def hub(tmp_path):
    """What a stranger has uploaded, and a folder to download it to."""
    folder = tmp_path / "hub"
    folder.mkdir()
    venv = VecNormalize(make_vec_env(ENV))
    PPO("MlpPolicy", venv, n_steps=16, batch_size=16, policy_kwargs={"net_arch": [8]}).save(folder / f"ppo-{ENV}.zip")
    venv.save(folder / "vec_normalize.pkl")
    (folder / "config.yml").write_text(
        "!!python/object/apply:collections.OrderedDict\n"
        "- - - normalize\n    - \"{'norm_obs': True}\"\n  - - n_envs\n    - 1\n"
    )
    (folder / "args.yml").write_text(yaml.dump({"env_kwargs": {}}))
    (folder / "env_kwargs.yml").write_text("{}")
    with zipfile.ZipFile(folder / "train_eval_metrics.zip", "w") as archive:
        archive.writestr("0.monitor.csv", "")
    return folder


@pytest.fixture
def run(monkeypatch, hub, tmp_path):
    """Run ``sb3-pg`` in this process."""
    import huggingface_sb3

    monkeypatch.setattr(huggingface_sb3, "load_from_hub", lambda _, name: str(hub / name))

    def execute(*arguments):
        monkeypatch.setattr(sys, "argv", ["sb3-pg", *arguments])
        command_line.main()

    return execute


def download(run, tmp_path):
    run("load_from_hub", "--algo", "ppo", "--env", ENV, "-f", str(tmp_path), "-orga", "somebody")


def play(run, tmp_path, *more):
    arguments = ("--algo", "ppo", "--env", ENV, "-f", str(tmp_path), "--no-render", "-n", "20", "--device", "cpu")
    run("enjoy", *arguments, *more)


def run_folder(tmp_path) -> Path:
    return tmp_path / "ppo" / f"{ENV}_1" / ENV


def test_good_ones_play(run, tmp_path, capsys):
    download(run, tmp_path)
    assert (run_folder(tmp_path) / downloads.MARK).exists()
    play(run, tmp_path)
    play(run, tmp_path, "--trust")
    assert "error" not in capsys.readouterr().err


def spoil_model(hub, mark):
    path = hub / f"ppo-{ENV}.zip"
    path.write_bytes(with_attribute(path.read_bytes(), "gamma", pickle.dumps(Calls(f"touch {mark}"))))


ATTACKS = {
    "model": spoil_model,
    "statistics": lambda hub, mark: (hub / "vec_normalize.pkl").write_bytes(pickle.dumps(Calls(f"touch {mark}"))),
    "config.yml": lambda hub, mark: (hub / "config.yml").write_text(
        f"!!python/object/apply:os.system ['touch {mark}']\n"
    ),
    "args.yml": lambda hub, mark: (hub / "args.yml").write_text(
        f"env_kwargs: !!python/object/apply:os.system ['touch {mark}']\n"
    ),
    "normalize": lambda hub, mark: (hub / "config.yml").write_text(
        yaml.dump({"normalize": f"__import__('os').system('touch {mark}')"})
    ),
    "a wrapper that writes files": lambda hub, mark: (hub / "config.yml").write_text(
        yaml.dump({"env_wrapper": [{"stable_baselines3.common.monitor.Monitor": {"filename": str(mark)}}]})
    ),
    "a wrapper": lambda hub, mark: (hub / "config.yml").write_text(
        yaml.dump({"env_wrapper": [{"subprocess.check_call": {"args": ["touch", str(mark)]}}]})
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_bad_ones_are_refused(name, run, hub, tmp_path, capsys):
    mark = tmp_path / "mark"
    ATTACKS[name](hub, mark)
    download(run, tmp_path)
    with pytest.raises(SystemExit) as caught:
        play(run, tmp_path)
    assert caught.value.code == 2
    assert "--trust plays it anyway" in capsys.readouterr().err
    assert not mark.exists()


@pytest.mark.parametrize("name", ["model", "args.yml"])
def test_bad_ones_are_not_evaluated(name, run, hub, tmp_path, capsys):
    ATTACKS[name](hub, tmp_path / "mark")
    download(run, tmp_path)
    with pytest.raises(SystemExit):
        run("evaluate", "--algo", "ppo", "--env", ENV, "-f", str(tmp_path), "--episodes", "2", "--device", "cpu")
    assert "--trust plays it anyway" in capsys.readouterr().err
    assert not (tmp_path / "mark").exists()


def test_a_download_that_fails_is_marked_all_the_same(run, hub, tmp_path):
    (hub / "train_eval_metrics.zip").write_bytes(b"no zip")
    with pytest.raises(SystemExit):
        download(run, tmp_path)
    assert (run_folder(tmp_path) / downloads.MARK).exists()


@pytest.mark.parametrize("name", ["model", "statistics", "config.yml", "args.yml", "normalize"])
def test_trusted_ones_run_what_they_bring_along(name, run, hub, tmp_path):
    """Each attack is one."""
    mark = tmp_path / "mark"
    ATTACKS[name](hub, mark)
    download(run, tmp_path)
    try:
        play(run, tmp_path, "--trust")
    except (Exception, SystemExit) as problem:
        print(problem)
    assert mark.exists()


def test_runs_of_ones_own_play_as_before(run, hub, tmp_path):
    download(run, tmp_path)
    (run_folder(tmp_path) / downloads.MARK).unlink()
    (run_folder(tmp_path) / "args.yml").write_text("env_kwargs: !!python/object/apply:collections.OrderedDict []\n")
    play(run, tmp_path)


def test_bombs_are_not_unpacked(run, hub, tmp_path):
    with zipfile.ZipFile(hub / "train_eval_metrics.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.monitor.csv", b"0" * 64 * 1024**2)
    with pytest.raises(SystemExit):
        download(run, tmp_path)
    shutil.rmtree(tmp_path / "ppo", ignore_errors=True)
