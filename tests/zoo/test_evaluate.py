"""`sb3-pg evaluate`, as it is typed."""

import json
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

from sb3_pg_ext.plugins import registry
from sb3_pg_ext.zoo import __main__
from sb3_pg_ext.zoo.evaluation import evaluate_latest_run

RUN = ["--algo", "fast_a2c", "--env", "CartPole-v1", "-f", "logs"]
EVALUATE = ["evaluate", *RUN, "--device", "cpu"]


@pytest.fixture
def trained(zoo, monkeypatch, capsys):
    """The command line, in a folder with a run."""
    monkeypatch.setattr(__main__, "registry", registry)
    zoo("train", *RUN, "-n", "64", "--eval-freq", "32", "--eval-episodes", "2", "--device", "cpu")
    capsys.readouterr()
    return zoo


def test_says_how_good_a_model_is(trained, capsys):
    trained(*EVALUATE, "--episodes", "8", "--json")
    result = json.loads(capsys.readouterr().out)
    assert result["seeds"] == list(range(1000, 1008))
    assert result["mean"]["low"] <= result["mean"]["estimate"] == pytest.approx(np.mean(result["returns"]))
    assert result["median"] == np.median(result["returns"])
    assert result["worst"]["return"] == min(result["returns"])
    assert result["run"] == "logs/fast_a2c/CartPole-v1_1"
    returns, _ = evaluate_latest_run("fast_a2c", "CartPole-v1", "logs", 8, seed=1000)
    assert returns == result["returns"]
    trained(*EVALUATE, "--episodes", "8")
    out = capsys.readouterr().out
    for name in ("mean", "median", "IQM", "sd", "worst", "length"):
        assert f"\n{name} " in out
    trained(*EVALUATE, "--seeds", "1000-1002", "7", "--load-best", "--json", "--stochastic")
    result = json.loads(capsys.readouterr().out)
    assert result["seeds"] == [1000, 1001, 1002, 7]
    assert result["model"].endswith("best_model.zip")


def test_imports_packages_with_environments(zoo, monkeypatch, capsys):
    """As in a new process, in which nothing has registered the environment."""
    monkeypatch.setattr(__main__, "registry", registry)
    monkeypatch.syspath_prepend(".")
    Path("own_envs.py").write_text(
        "import gymnasium as gym\ngym.register('Own-v0', gym.spec('CartPole-v1').entry_point, max_episode_steps=20)"
    )
    own = ["--algo", "fast_a2c", "--env", "Own-v0", "--gym-packages", "own_envs", "-f", "logs", "--device", "cpu"]
    zoo("train", *own, "-n", "16")
    try:
        del gym.registry["Own-v0"], sys.modules["own_envs"]
        capsys.readouterr()
        zoo("evaluate", *own, "--episodes", "2", "--json")
        assert json.loads(capsys.readouterr().out)["env"] == "Own-v0"
    finally:
        gym.registry.pop("Own-v0", None)


def test_keeps_lists_and_replays_episodes(trained, capsys):
    trained(*EVALUATE, "--episodes", "5", "--cache", "episodes", "--worst", "2", "--json")
    result = json.loads(capsys.readouterr().out)
    worst = result["worst_cached"]
    assert [item["return"] for item in worst] == sorted(result["returns"])[:2]
    assert len(list(Path("episodes").rglob("*.npz"))) == 5
    seed = worst[0]["seed"]
    for file in ("episode.webp", "episode.gif"):
        trained(*EVALUATE, "--cache", "episodes", "--replay", str(seed), "--output", file)
        with Image.open(file) as image:
            assert image.n_frames > 1
    out = capsys.readouterr().out
    assert f"seed {seed}: return {worst[0]['return']:.2f}" in out
    assert "the environment has changed" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "9-3"], "--seeds 9-3; allowed: an integer ≥ 0, or first-last"),
        (["--seeds", "1", "1"], "--seeds has 1 twice"),
        (["--seeds", "1-4", "--episodes", "5"], "--episodes 5 with 4 seeds; allowed: one of both"),
        (["--episodes", "0"], "'0'; allowed: an integer ≥ 1"),
        (["--worst", "3"], "--worst takes episodes from a cache; allowed with --cache FOLDER"),
        (["--output", "x.gif"], "allowed with --replay SEED"),
        (["--cache", "c", "--replay", "5"], "has no episode of this model from this seed"),
        (["--exp-id", "7"], "CartPole-v1_7"),
        (["--gym-packages", "nowhere"], "gym_packages='nowhere' cannot be imported: No module named 'nowhere'"),
    ],
)
def test_tells_what_is_wrong_in_one_line(trained, capsys, arguments, message):
    with pytest.raises(SystemExit):
        trained(*EVALUATE, *arguments)
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
