"""Plots without a display, and of what is left of runs of unequal length."""

import numpy as np
import pytest
from matplotlib import pyplot as plt

from sb3_pg_ext.zoo import __main__

GATHER = ["all_plots", "-a", "toy", "-e", "CartPole-v1", "-f", "logs", "-o", "results", "--no-display"]


@pytest.fixture
def runs(tmp_path):
    """``runs((5, 3), (5, 2))`` leaves runs with so many evaluations of so many episodes."""

    def make(*shapes, env_id="CartPole-v1"):
        for number, (n_evaluations, n_episodes) in enumerate(shapes, start=1):
            folder = tmp_path / f"logs/toy/{env_id}_{number}"
            folder.mkdir(parents=True)
            results = number + np.arange(n_evaluations * n_episodes).reshape(n_evaluations, n_episodes)
            np.savez(folder / "evaluations.npz", timesteps=10 * np.arange(1, n_evaluations + 1), results=results)

    return make


@pytest.fixture(autouse=True)
def _pictures():
    yield
    plt.close("all")


@pytest.mark.parametrize(
    "shapes",
    [[(3, 5)], [(3, 5), (2, 5)], [(3, 5), (3, 5), (2, 5)], [(3, 1), (3, 1)]],
    ids=["one run", "one is left", "two are left", "one episode each"],
)
def test_what_was_gathered_is_plotted(zoo, runs, tmp_path, shapes):
    runs(*shapes)
    zoo(*GATHER)
    zoo("plot_from_file", "-i", "results.pkl", "-o", "curves.svg")
    assert "<svg" in (tmp_path / "curves.svg").read_text()


def test_the_last_evaluations_are_one_number_for_every_run(zoo, runs, monkeypatch):
    """So that the bars of the picture are right as well."""
    runs((3, 1), (3, 1))
    zoo(*GATHER)
    drawn = []
    monkeypatch.setattr("seaborn.barplot", lambda data, **keywords: drawn.append(data))
    zoo("plot_from_file", "-i", "results.pkl")
    assert sorted(drawn[0]["Score"]) == [3.0, 4.0]


@pytest.mark.parametrize("shapes", [[(3, 1)], [(3, 5), (3, 4)]], ids=["one episode", "unequal numbers of episodes"])
def test_what_cannot_be_merged_is_explained(zoo, runs, capsys, shapes):
    runs(*shapes)
    with pytest.raises(SystemExit) as exit_:
        zoo(*GATHER)
    assert exit_.value.code == 2
    assert "The evaluations cannot be merged" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:No artists with labels")
def test_what_is_saved_needs_no_display(zoo, runs, capsys, tmp_path):
    runs((3, 5))
    zoo(*GATHER)
    capsys.readouterr()
    zoo("plot_from_file", "-i", "results.pkl", "--output", "curves.svg")
    assert "no display" not in capsys.readouterr().out
    assert (tmp_path / "curves.svg").exists()
    zoo("plot_from_file", "-i", "results.pkl")
    assert "There is no display" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:No artists with labels")
def test_an_environment_without_results_is_explained(zoo, runs, capsys):
    runs((3, 5))
    runs((3, 5), env_id="Acrobot-v1")
    zoo(*GATHER, "-e", "CartPole-v1", "Pendulum-v1")
    with pytest.raises(SystemExit):
        zoo("plot_from_file", "-i", "results.pkl")
    assert "There are no results of 'TOY-logs' for one of the environments" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [(("all_plots",), "-a/--algos, -e/--env, -f/--exp-folders"), (("plot_from_file",), "-i/--input")],
    ids=["all_plots", "plot_from_file"],
)
def test_what_rl_zoo_needs_is_asked_for(zoo, capsys, arguments, missing):
    with pytest.raises(SystemExit) as exit_:
        zoo(*arguments)
    assert exit_.value.code == 2
    assert f"the following arguments are required: {missing}\n" in capsys.readouterr().err


def test_a_missing_file_is_named(zoo, runs, capsys):
    runs((3, 5))
    zoo(*GATHER)
    for script in (("plot_from_file", "-i", "result.pkl"), ("plot_train", "-a", "toyy", "-e", "X", "-f", "logs")):
        with pytest.raises(SystemExit):
            zoo(*script)
    shown = capsys.readouterr().err
    assert "sb3-pg plot_from_file: error: There is no result.pkl; did you mean results.pkl?\n" in shown
    assert "sb3-pg plot_train: error: There is no logs/toyy; did you mean logs/toy?\n" in shown


PLOT = ["plot_train", "-a", "toy", "-e", "CartPole-v1", "-f", "logs", "-w", "1"]


@pytest.fixture
def trained(zoo):
    zoo("train", "--algo", "toy", "--env", "CartPole-v1", "-n", "200", "-f", "logs", "--eval-freq", "-1")


@pytest.mark.usefixtures("trained")
def test_without_a_display_it_says_so(zoo, capsys):
    capsys.readouterr()
    zoo(*PLOT)
    assert capsys.readouterr().out == "There is no display to show the picture; --output FILE saves it\n"


@pytest.mark.usefixtures("trained")
def test_the_picture_can_be_saved(zoo, capsys, tmp_path):
    capsys.readouterr()
    zoo(*PLOT, "--output", "returns.png")
    assert capsys.readouterr().out == "Saved returns.png\n"
    assert (tmp_path / "returns.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("trained")
def test_with_a_display_it_is_shown(zoo, capsys, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(len(plt.gca().lines)))
    monkeypatch.setattr("sb3_pg_ext.zoo.plots.FigureManagerBase", int)  # any other than that of the backend
    capsys.readouterr()
    zoo(*PLOT)
    assert shown == [1]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("script", ["plot_train", "all_plots", "plot_from_file"])
def test_help_is_rl_zoos(zoo, capsys, script):
    with pytest.raises(SystemExit) as exit_:
        zoo(script, "--help")
    assert exit_.value.code == 0
    shown = capsys.readouterr().out
    assert "Gather results" in shown
    assert ("save the picture" in shown) == (script == "plot_train")
    assert __main__.SCRIPTS[script].module == "sb3_pg_ext.zoo.plots"
