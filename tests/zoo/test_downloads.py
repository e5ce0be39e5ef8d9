"""Runs from elsewhere are played without running what strangers have written."""

import importlib
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
from sb3_pg_ext.zoo.resuming import find_unfinished_run

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


def config(**settings):
    return lambda hub, mark: (hub / "config.yml").write_text(yaml.dump(settings))


def text(name, content):
    return lambda hub, mark: (hub / name).write_text(content)


def levels(first, template, n=9):
    """YAML in which each level stands for several of the one before it."""
    return "\n".join([first, *(template.format(i=i, j=i - 1) for i in range(1, n))])


BOMBS = {
    "merge keys": text("config.yml", levels("a0: &a0 {k: 1}", "a{i}: &a{i}\n  <<: [" + ", ".join(["*a{j}"] * 8) + "]")),
    "aliases": text("config.yml", levels("a0: &a0 [1]", "a{i}: &a{i} [" + ", ".join(["*a{j}"] * 8) + "]")),
    "aliases in a wrapper": text(
        "config.yml", levels("a0: &a0 [1]", "a{i}: &a{i} [*a{j}, *a{j}]", 40) + "\nenv_wrapper: *a39\n"
    ),
    "a list within itself": text("config.yml", "normalize: &a [*a]\n"),
    "YAML nested deeply": text("config.yml", "a: " + "[" * 5000 + "]" * 5000),
    "a long file": text("config.yml", "a: " + "x" * 300_000),
    "a long number": text("config.yml", "a: " + "9" * 5000),
    "a day that is none": text("config.yml", "a: 2001-99-99"),
    "a list for settings": text("config.yml", "[1, 2]"),
    "nothing": text("args.yml", ""),
    "normalize: a list": config(normalize="[1]"),
    "normalize: no literal": config(normalize="{[]: 1}"),
    "normalize: nested deeply": config(normalize="(" * 1000),
    "very many frames": config(frame_stack=10**9),
    "very large images": config(env_wrapper=[{"gymnasium.wrappers.ResizeObservation": {"shape": [10**6, 10**6]}}]),
    "very many wrappers": config(env_wrapper=["gymnasium.wrappers.FlattenObservation"] * 1000),
    "arguments of a wrapper that are none": config(env_wrapper=[{"gymnasium.wrappers.FlattenObservation": 3}]),
    "a file for the environment": text("args.yml", "env_kwargs: {xml_file: ../../evil.xml}\n"),
    "a file for the environment, as configured": config(env_kwargs={"xml_file": "~/evil.xml"}),
    "no arguments of the environment": config(env_kwargs=[1]),
}
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


@pytest.mark.parametrize("name", BOMBS)
def test_settings_that_do_harm_in_other_ways_are_refused(name, run, hub, tmp_path, capsys):
    BOMBS[name](hub, None)
    download(run, tmp_path)
    with pytest.raises(SystemExit) as caught:
        play(run, tmp_path)
    assert caught.value.code == 2
    assert "--trust plays it anyway" in capsys.readouterr().err


def test_what_enjoy_downloads_by_itself_is_not_trusted(run, hub, tmp_path, monkeypatch, capsys):
    its = importlib.import_module("rl_zoo3.enjoy").download_from_hub.__globals__
    monkeypatch.setitem(its, "load_from_hub", lambda _, name: str(hub / name))
    play(run, tmp_path / "rl-trained-agents")
    assert (run_folder(tmp_path / "rl-trained-agents") / downloads.MARK).exists()
    shutil.rmtree(tmp_path / "rl-trained-agents")
    spoil_model(hub, tmp_path / "mark")
    with pytest.raises(SystemExit):
        play(run, tmp_path / "rl-trained-agents")
    assert "--trust plays it anyway" in capsys.readouterr().err
    (run_folder(tmp_path / "rl-trained-agents") / downloads.MARK).unlink()
    with pytest.raises(SystemExit):  # RL Zoo itself has downloaded it before
        play(run, tmp_path / "rl-trained-agents")
    assert not (tmp_path / "mark").exists()


def test_the_run_that_is_played_is_the_one_that_is_looked_at(run, hub, tmp_path, monkeypatch, capsys):
    """It may be an earlier one than the latest, and lie in the folder that a script takes by default."""
    monkeypatch.chdir(tmp_path)
    spoil_model(hub, tmp_path / "mark")
    download(run, "logs")
    (tmp_path / "logs" / "ppo" / f"{ENV}_2" / ENV).mkdir(parents=True)
    with pytest.raises(SystemExit):
        play(run, "logs")
    with pytest.raises(SystemExit):
        run("evaluate", "--algo", "ppo", "--env", ENV, "--episodes", "2", "--device", "cpu")
    assert capsys.readouterr().err.count("--trust plays it anyway") == 2
    assert not (tmp_path / "mark").exists()


def test_training_does_not_go_on_with_what_was_downloaded(run, hub, tmp_path, capsys):
    def train(*more):
        run("train", "--algo", "ppo", "--env", ENV, "-f", str(tmp_path / "own"), "-n", "16", *more)

    download(run, tmp_path)
    model = run_folder(tmp_path).with_suffix(".zip")
    shutil.copytree(tmp_path / "ppo" / f"{ENV}_1", tmp_path / "own" / "ppo" / f"{ENV}_1")
    checkpoint = tmp_path / "own" / "ppo" / f"{ENV}_1" / "checkpoint" / "000001_10_steps"
    checkpoint.mkdir(parents=True)
    assert find_unfinished_run(str(tmp_path / "own"), "ppo", ENV, None) is None
    (run_folder(tmp_path / "own") / downloads.MARK).unlink()
    assert find_unfinished_run(str(tmp_path / "own"), "ppo", ENV, None) == checkpoint.parents[1]
    spoil_model(hub, tmp_path / "mark")
    shutil.copy(hub / f"ppo-{ENV}.zip", model)
    with pytest.raises(SystemExit):
        train("-i", str(model), "-params", "n_steps:16", "batch_size:16", "n_envs:1")
    assert "it was downloaded, and is not trusted" in capsys.readouterr().err
    assert not (tmp_path / "mark").exists()


def test_logs_do_not_bring_other_runs_along(run, hub, tmp_path):
    with zipfile.ZipFile(hub / "train_eval_metrics.zip", "w") as archive:
        archive.writestr("Acrobot-v1_9/Acrobot-v1/config.yml", "")
    with pytest.raises(SystemExit):
        download(run, tmp_path)
    assert not list(tmp_path.rglob("Acrobot*"))


def test_the_hub_is_not_asked_to_be_trusted(run, monkeypatch, hub, tmp_path):
    """Its loader downloads only if it may, since SB3's ``load`` would run what it downloads."""
    import huggingface_hub
    from huggingface_sb3.load_from_hub import load_from_hub

    monkeypatch.delenv("TRUST_REMOTE_CODE", raising=False)
    monkeypatch.setattr("huggingface_sb3.load_from_hub", load_from_hub)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda filename, **_: str(hub / filename))
    download(run, tmp_path)
    assert (run_folder(tmp_path) / downloads.MARK).exists()
    assert "TRUST_REMOTE_CODE" not in os.environ


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
