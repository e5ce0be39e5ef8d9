"""What the tables of learned returns say, and what is made of runs."""

import json
import math
import re
from pathlib import Path

import learning
import numpy as np
import pytest
import yaml

from sb3_pg_ext.evaluation.records import write_result
from sb3_pg_ext.evaluation.sweep import Outcome

SHIPPED = sorted((Path(__file__).parents[2] / "zoo_configs").glob("*.yml"))
ENV_ID = "InvertedPendulum-v4"
BUDGET = 100_000


def run(seed, mean, evaluations):
    return {"env": ENV_ID, "seed": seed, "mean": mean, "evaluations": evaluations, "curve": [[1, 0.0], [2, 1.0]]}


@pytest.fixture
def runs():
    return [
        run(0, 900.0, [[50_000, 10.0], [BUDGET, 990.0]]),
        run(1, 1000.0, [[50_000, 1000.0], [BUDGET, 970.0]]),
    ]


def test_interval_is_students():
    scores = [1.0, 2.0, 4.0]
    expected = 4.302653 * np.std(scores, ddof=1) / math.sqrt(3)
    assert learning.interval(scores) == pytest.approx(expected, rel=1e-6)
    assert math.isnan(learning.interval([1.0]))


def test_table_gives_final_and_best_scores(runs):
    cells = learning.table("npg", runs).splitlines()[-1].split(" | ")
    assert cells[:3] == [f"| {ENV_ID}", "100 000", "0–1"]
    assert cells[3].startswith("950.0 ± ")
    assert cells[4:7] == ["", "900.0", "1000.0"]
    assert cells[7].startswith("995.0 ± ")


def test_the_interquartile_mean_leaves_the_ends_out(runs):
    runs = [run(seed, score, [[BUDGET, 0.0]]) for seed, score in enumerate([-500.0, 1.0, 2.0, 6.0, 900.0])]
    assert learning.table("npg", runs).splitlines()[-1].split(" | ")[4] == "3.0"


@pytest.mark.parametrize(
    ("numbers", "text"), [([3], "3"), ([4, 0, 2, 1], "0–2, 4"), (range(10, 20), "10–19"), ([1, 3], "1, 3")]
)
def test_ranges(numbers, text):
    assert learning.ranges(numbers) == text


def test_seeds_of_the_tuning_count_until_there_are_two_fresh_ones(runs, monkeypatch, tmp_path):
    shipped = learning.configurations("npg")[ENV_ID]
    monkeypatch.setattr(learning, "RESULTS", tmp_path)
    lines = []
    for seed, counting in ((0, [0]), (10, [0, 10]), (11, [10, 11])):
        lines.append({**runs[0], "seed": seed, "config": shipped})
        (tmp_path / "npg.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert [each["seed"] for each in learning.load_runs("npg")] == counting


def test_comparison_takes_the_same_step_of_all(runs):
    lines = learning.comparison({"npg": runs, "fast_trpo": runs[:1]}).splitlines()
    (line,) = [line for line in lines if ENV_ID in line]
    cells = line.split(" | ")
    assert cells[1] == "100 000"
    assert cells[2].startswith("980.0 ± ")
    assert cells[3] == "990.0"
    assert cells[4] == "1000 (sd 0) |"


def test_race_tells_when_the_peers_last_return_is_reached(runs):
    peer = [run(0, 0.0, [[50_000, 0.0], [BUDGET, 990.0]])]
    cells = learning.race("npg", "fast_trpo", {"npg": runs, "fast_trpo": peer}).splitlines()[-1].split(" | ")
    assert cells[:2] == [f"| {ENV_ID}", "990.0"]
    assert cells[2].startswith("75 000 ± ")
    assert cells[2].endswith(" (2 of 2)")
    assert cells[3] == "100 000 (1 of 1) |"
    peer[0]["evaluations"][-1][1] = 995.0
    assert "50 000 (1 of 2)" in learning.race("npg", "fast_trpo", {"npg": runs, "fast_trpo": peer})


def test_steps_are_those_of_every_algorithm_where_they_differ(runs):
    with_budget = [[{**each, "config": {"n_timesteps": budget}} for each in runs] for budget in (1e5, 1e5, 3e5)]
    for algos, steps in ((with_budget[:2], "100 000"), (with_budget[1:], "100k, 300k")):
        (line,) = learning.side_by_side(dict(zip(("npg", "fast_trpo"), algos, strict=True))).splitlines()[2:]
        assert line.split(" | ")[1:3] == [steps, "2, 2"]


def test_every_seed_has_its_score_and_its_best_evaluation(runs):
    head, _, line = learning.by_seed("npg", runs[::-1]).splitlines()
    assert head == "| environment | least | most | ascending | seed 0 | seed 1 |"
    assert line == f"| {ENV_ID} | 900.0 | 1000.0 | 900.0, 1000.0 | 900.0 | 1000.0 |"
    line = learning.by_seed("npg", runs, best=True).splitlines()[-1]
    assert line == f"| {ENV_ID} | 990.0 | 1000.0 | 990.0, 1000.0 | 990.0 | 1000.0 |"


def test_trials_are_the_latest_runs_with_other_settings(runs, monkeypatch, tmp_path):
    shipped = learning.configurations("npg")[ENV_ID]
    other = {key: value for key, value in shipped.items() if key != "target_kl"} | {"gamma": 0.5}
    lines = [{**runs[0], "config": shipped}, {**runs[0], "mean": 1.0, "config": other}]
    lines += [{**each, "config": other} for each in runs]
    (tmp_path / "npg.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(learning, "RESULTS", tmp_path)
    (line,) = learning.trials("npg").splitlines()[2:]
    assert line == (
        f"| {ENV_ID} | `gamma=0.5`, no `target_kl` | 0, 1 | 950.0 | 900.0 | 1000.0 | 900.0, 1000.0 | 990.0, 1000.0 |"
    )


def test_every_published_environment_has_a_configuration():
    for algo in ("npg", "ppo_kl", "acktr"):
        assert set(learning.published(algo)["scores"]) <= set(learning.configurations(algo))


def test_plot_shows_runs_with_and_without_evaluations(runs, tmp_path):
    older = {key: value for key, value in runs[0].items() if key != "evaluations"}
    for chosen in (runs, [older]):
        learning.plot({"npg": chosen}, tmp_path / "plot.png")
        assert (tmp_path / "plot.png").stat().st_size > 1000


def test_peers_are_configured_for_environments_of_ours():
    assert set(learning.configurations("fast_trpo")) <= set(learning.configurations("npg"))
    assert set(learning.configurations("fast_a2c")) <= set(learning.configurations("acktr"))
    assert set(learning.configurations("ac-classic")) <= set(learning.configurations("ac"))


def test_finished_runs_of_a_sweep_become_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(learning, "FOLDER", tmp_path / "runs")
    monkeypatch.setattr(learning, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(learning, "LocalProcesses", lambda *_, **__: None)
    curve = {"timesteps": list(range(10, 2010, 10)), "returns": list(range(200)), "lengths": [10] * 200}
    results = {
        "status": "finished",
        "seconds": 12.34,
        "curve": curve,
        "evaluation": {"timesteps": 2000, "seeds": [1, 2], "returns": [3.0, 5.0], "lengths": [1, 1]},
        "evaluations": [{"timesteps": 100, "returns": [1.0, 2.0]}],
        "versions": {"python": "3"},
    }

    def sweep(runs, folder, executor, **_):
        """The second one has failed."""
        for run, status in zip(runs, ("finished", "failed"), strict=True):
            record = {**run.settings, "command": run.command, **results, "status": status}
            write_result(folder / run.name, record)
        return Outcome([], [])

    monkeypatch.setattr(learning, "sweep", sweep)
    monkeypatch.setattr("sys.argv", ["learning.py", "ddpg", "--envs", "Pendulum-v1", "--seeds", "0", "3"])
    learning.main()
    (line,) = (tmp_path / "results" / "ddpg.jsonl").read_text().splitlines()
    made = json.loads(line)
    assert (made["env"], made["seed"], made["mean"], made["sd"], made["seconds"]) == ("Pendulum-v1", 0, 4.0, 1.0, 12.3)
    assert made["curve"][:2] == [[20, 0.5], [40, 2.5]]
    assert made["evaluations"] == [[100, 1.5]]
    config = learning.configurations("ddpg")["Pendulum-v1"]
    assert made["config"] == config
    assert made["command"].startswith("sb3-pg sweep --algos ddpg --envs Pendulum-v1 --seeds 0 3 -f ")
    eval_freq = int(config["n_timesteps"]) // 20
    assert made["command"].endswith(f" --eval-freq {eval_freq} --conf-file benchmarks/peers/ddpg.yml")
    assert len(learning.load_runs("ddpg")) == 1


def test_committed_results_are_read():
    for algo in ("npg", "ddpg"):
        assert len(learning.load_runs(algo)) > 0


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_entries_without_a_run_are_said_to_be_untested(path):
    """At the head of their file. A run with MuJoCo's v4 stands for v5 as well."""
    text = path.read_text()
    entries = yaml.safe_load(text)
    runs = learning.read(learning.RESULTS / f"{path.stem}.jsonl")
    tested = {run["env"] for run in runs if run["config"] == entries.get(run["env"])}
    untested = {name for name in entries if not {name, re.sub("-v5$", "-v4", name)} & tested} - {"default"}
    named = re.search(r"^# Untested: (.*?)\.$", text, re.MULTILINE | re.DOTALL)
    assert untested == (set(named[1].replace("\n#", "").split(", ")) if named else set())


@pytest.mark.parametrize("show", [False, True])
def test_showing_makes_no_runs(monkeypatch, capsys, show):
    made = []
    monkeypatch.setattr(learning, "make", lambda *arguments: made.append(arguments))
    monkeypatch.setattr("sys.argv", ["learning.py", "npg", "--seeds", "0", "99", *["--show"] * show])
    learning.main()
    assert bool(made) is not show
    assert "| CartPole-v1 | 100 000 | 10–12 | 500.0" in capsys.readouterr().out


def test_what_was_mended(runs, monkeypatch, tmp_path):
    """The latest of the former settings counts."""
    shipped = learning.configurations("npg")[ENV_ID]
    monkeypatch.setattr(learning, "RESULTS", tmp_path)
    former = [(0, {"n_steps": 1}, -5.0), (0, {"n_steps": 2}, 1.0), (1, {"n_steps": 2}, 3.0), (0, shipped, 9.0)]
    lines = [{**run(seed, mean, [[BUDGET, mean + 1]]), "config": config} for seed, config, mean in former]
    (tmp_path / "npg.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    *_, last = learning.mended("npg", learning.load_runs("npg")).splitlines()
    cells = [cell.strip() for cell in last.strip("|").split("|")]
    assert cells[0] == ENV_ID
    assert cells[1] == "0–1"
    assert cells[2].startswith("2.0 ±")
    assert cells[3] == "1.0"
    assert cells[4].startswith("3.0 ±")
    assert cells[5:] == ["0", "9.0", "9.0"]
