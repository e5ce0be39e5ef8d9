"""Reports: from the files of runs to the page, and what becomes of bad ones."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml

from sb3_pg_ext.evaluation.records import write_result
from sb3_pg_ext.evaluation.report import write_report
from sb3_pg_ext.evaluation.report.analysis import averaged
from sb3_pg_ext.evaluation.report.runs import Series
from sb3_pg_ext.evaluation.report.words import number
from sb3_pg_ext.evaluation.statistics import mean_interval, probability_of_improvement
from sb3_pg_ext.zoo import __main__

EVIL = '</script><script>alert(1)</script><img src=x onerror="alert(2)">'
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def run(root, algo="npg", env="CartPole-v1", seed=0, score=100.0, n_timesteps=1000, **changes):
    """A run of a sweep, whose two evaluation episodes have the given mean."""
    steps = list(range(n_timesteps // 50, n_timesteps + 1, n_timesteps // 50))
    result = {
        "algo": algo,
        "setting": "default",
        "env": env,
        "seed": seed,
        "n_timesteps": n_timesteps,
        "status": "finished",
        "traceback": None,
        "hyperparameters": {"gamma": 0.99, "n_steps": 8},
        "versions": {"python": "3.11.7"},
        "command": f"sb3-pg train --algo {algo} --env {env} --seed {seed}",
        "seconds": 2.0,
        "curve": {"timesteps": steps, "returns": [score * s / n_timesteps for s in steps], "lengths": steps},
        "evaluation": {"seeds": [0, 1], "returns": [score - 1, score + 1], "lengths": [5, 5]},
        "evaluations": [{"timesteps": s, "returns": [score]} for s in (n_timesteps // 2, n_timesteps)],
        "diagnostics": {"train/kl": {"timesteps": steps, "values": [0.01] * len(steps)}},
        **changes,
    }
    folder = Path(root, f"{algo}-{result['setting']}", env.replace("/", "-"), f"seed_{seed}")
    write_result(folder, result)
    return folder


def monitor(folder, returns, env="CartPole-v1", name="0.monitor.csv", end="\n"):
    """A Monitor file with episodes of ten steps."""
    folder.mkdir(parents=True, exist_ok=True)
    header = json.dumps({"t_start": 100.0, "env_id": env})
    lines = [f"#{header}", "r,l,t", *(f"{value},10,{float(k + 1)}" for k, value in enumerate(returns))]
    (folder / name).write_text("\n".join(lines) + end)
    return folder


def zoo_run(root, algo="ppo", env="CartPole-v1", number=1, seed=1, config=None, finished=True):
    """A run as RL Zoo leaves it."""
    folder = monitor(root / algo / f"{env}_{number}", np.linspace(0, 100, 20))
    settings = folder / env
    settings.mkdir()
    arguments = [["algo", algo], ["env", env], ["seed", seed], ["n_timesteps", -1]]
    tag = "!!python/object/apply:collections.OrderedDict\n"
    (settings / "args.yml").write_text(tag + yaml.safe_dump([arguments]))
    config = config or {"gamma": 0.9, "n_timesteps": 200.0}
    (settings / "config.yml").write_text(tag + yaml.safe_dump([[[k, v] for k, v in config.items()]]))
    np.savez(folder / "evaluations.npz", timesteps=[100, 200], results=[[1.0, 3.0], [40.0, 60.0 + seed]])
    if finished:
        (folder / f"{env}.zip").write_bytes(b"")
    return folder


class Page(HTMLParser):
    """The elements of a page, its visible text, and its data."""

    def __init__(self, path):
        super().__init__()
        self.source = Path(path).read_text(encoding="utf-8")
        self.elements, self.text, self.raw = [], "", []
        self._inside = []
        self.feed(self.source)
        self.data = json.loads(self.raw[-2])

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside.append(tag)

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._inside.pop()

    def handle_data(self, data):
        if self._inside:
            self.raw.append(data)
        else:
            self.text += data


@pytest.fixture
def report(tmp_path):
    def make(*folders, **keywords):
        made = write_report([str(f) for f in folders or (tmp_path,)], tmp_path / "page.html", **keywords)
        return made, Page(made.path)

    return make


def test_scores_and_their_intervals_are_on_the_page(tmp_path, report):
    scores = {"npg": [100.0, 110.0, 130.0], "ppo": [90.0, 95.0, 120.0]}
    for algo, values in scores.items():
        for seed, value in enumerate(values):
            run(tmp_path, algo, seed=seed, score=value)
    made, page = report()
    assert made.n_runs == 6
    assert made.problems == []
    for algo, values in scores.items():
        of_algo = page.data["scores"]["CartPole-v1"][algo]
        assert of_algo["mean"] == pytest.approx(mean_interval(values), rel=1e-4)
        assert [each["value"] for each in of_algo["runs"]] == values
    pair = page.data["improvement"][0]["pairs"][0]
    assert (pair["x"], pair["y"]) == ("npg", "ppo")
    assert pair["p"] == pytest.approx(probability_of_improvement(scores["npg"], scores["ppo"]), rel=1e-4)
    assert f"{number(np.mean(scores['npg']))} (" in page.text
    row = page.data["tables"]["scores"]["rows"][0]
    assert row[:4] == ["CartPole-v1", "npg", 3, 0]
    assert row[-1] == 500.0  # 1000 steps in 2 s


def test_curves_reach_what_they_reach(tmp_path, report):
    for seed, value in enumerate([100.0, 200.0]):
        run(tmp_path, seed=seed, score=value)
    _, page = report(thresholds={"CartPole-v1": [50.0, 150.0]})
    curve = page.data["curves"]["CartPole-v1"]["training"]
    of_npg = curve["groups"]["npg"]
    assert of_npg["y"][-1] == pytest.approx(0.5 * (of_npg["runs"][0]["y"][-1] + of_npg["runs"][1]["y"][-1]), rel=1e-4)
    reached = {t["value"]: t["groups"]["npg"] for t in page.data["reach"]["CartPole-v1"]["thresholds"]}
    assert reached[50.0][0] == pytest.approx(2 * reached[50.0][1], rel=0.1)
    assert reached[150.0][0] is None
    assert ["CartPole-v1", "150 (as asked for)", "npg", "1 of 2"] in [
        r[:4] for r in page.data["tables"]["reach"]["rows"]
    ]


def test_averages_are_those_of_the_window():
    rng = np.random.default_rng(0)
    steps, values, x = np.sort(rng.integers(1, 1000, 80)), rng.normal(size=80), np.linspace(10, 1000, 100)
    result = averaged(Series.of(steps, values), x)
    for at, value in zip(x, result, strict=True):
        inside = values[(steps > at - 50) & (steps <= at)]
        before = values[steps <= at]
        expected = inside.mean() if len(inside) else before[-1] if len(before) else np.nan
        assert value == pytest.approx(expected, nan_ok=True)


def test_environments_are_put_on_one_scale(tmp_path, report):
    for env, scale in (("A-v0", 1.0), ("B-v0", 1000.0)):
        for algo, values in (("npg", (1.0, 0.5)), ("ppo", (0.0, 0.25))):
            for seed, value in enumerate(values):
                run(tmp_path, algo, env, seed, scale * value)
    _, page = report()
    assert page.data["all"]["npg"]["mean"][0] == pytest.approx(0.75)
    assert page.data["all"]["ppo"]["optimality gap"][0] == pytest.approx(0.875)
    assert page.data["profiles"][0]["title"] == "all 2 environments"
    _, page = report(references={"A-v0": (0.0, 2.0), "B-v0": (0.0, 2000.0)})
    assert page.data["all"]["npg"]["mean"][0] == pytest.approx(0.375)


@pytest.mark.parametrize(
    ("a", "b", "answer"),
    [
        ([10, 11, 12, 13, 14], [0, 1, 2, 3, 4], "Yes: npg is better than ppo on CartPole-v1, by 10 (12 against 2"),
        ([0, 1, 2, 3, 4], [10, 11, 12, 13, 14], "No, the other way round: ppo is better than npg"),
        ([10, 12, 14, 16], [9, 11, 14, 17], "Not shown: 13 against 12.75 on CartPole-v1, but seeds differ too much"),
        ([10, 11, 12], [0, 1, 2], "With 3 against 3 runs no difference, however large, is significant at 5 %"),
        ([10], [0, 1, 2], "Cannot be said: 10 against 1 on CartPole-v1, but one seed alone"),
        ([5, 5, 5, 5], [5, 5, 5, 5], "No difference on CartPole-v1: 5 against 5."),
    ],
)
def test_a_comparison_is_answered_in_words(tmp_path, report, a, b, answer):
    for algo, values in (("npg", a), ("ppo", b)):
        for seed, value in enumerate(values):
            run(tmp_path, algo, seed=seed, score=float(value))
    made, page = report(compare=("npg", "ppo"))
    assert answer in made.answer[0]
    assert answer in page.text


def test_it_can_depend_on_the_environment(tmp_path, report):
    for env, sign in (("A-v0", 1), ("B-v0", -1)):
        for seed in range(6):
            run(tmp_path, "npg", env, seed, 10.0 * sign + seed)
            run(tmp_path, "ppo", env, seed, -10.0 * sign + seed)
    made, _ = report(compare=("npg", "ppo"))
    assert made.answer[0].startswith("It depends: npg is better on A-v0, ppo on B-v0.")
    assert any("when adjusted for 2 environments" in line for line in made.answer)


def test_runs_of_rl_zoo_are_read(tmp_path, report):
    for seed in (1, 2):
        zoo_run(tmp_path, number=seed, seed=seed)
    zoo_run(tmp_path, number=3, seed=3, finished=False)
    made, page = report()
    of_ppo = page.data["scores"]["CartPole-v1"]["ppo"]
    assert [each["value"] for each in of_ppo["runs"]] == [50.5, 51.0]  # of the last evaluations
    assert page.data["curves"]["CartPole-v1"]["evaluations"]["groups"]["ppo"]["y"][-1] == pytest.approx(50.75, rel=1e-4)
    assert any("1 interrupted of 3 runs" in line for line in made.warnings)
    assert ["gamma", "0.9"] in page.data["tables"]["settings CartPole-v1"]["rows"]


def test_runs_of_a_monitor_are_read(tmp_path, report):
    for seed in (1, 2):
        monitor(tmp_path / f"mine_{seed}", np.arange(100.0) + seed)
    monitor(tmp_path / "mine_2", np.arange(100.0), name="1.monitor.csv")
    _, page = report()
    of_mine = page.data["scores"]["CartPole-v1"]["mine"]
    assert [each["name"] for each in of_mine["runs"]] == ["seed 1", "seed 2"]
    assert of_mine["runs"][0]["value"] == pytest.approx(np.mean(np.arange(90.0, 100) + 1))
    assert "scores are mean returns of the episodes in the last tenth" in page.text


def test_runs_with_other_settings_are_another_group(tmp_path, report):
    for seed, gamma in enumerate((0.9, 0.9, 0.99), start=1):
        zoo_run(tmp_path, number=seed, seed=seed, config={"gamma": gamma, "n_timesteps": 200.0})
    _, page = report()
    assert page.data["groups"] == ["ppo [gamma=0.9]", "ppo [gamma=0.99]"]
    assert page.data["tables"]["differences CartPole-v1"]["rows"] == [["gamma", "0.9", "0.99"]]


def test_the_same_algorithm_in_two_folders_is_two_groups(tmp_path, report):
    for folder in ("before", "after"):
        run(tmp_path / folder, score=float(len(folder)))
    _, page = report(tmp_path / "before", tmp_path / "after")
    assert page.data["groups"] == ["npg (after)", "npg (before)"]


def test_a_copy_of_a_run_counts_once(tmp_path, report):
    original = run(tmp_path)
    shutil.copytree(original, tmp_path / "copy" / "seed_0")
    made, page = report()
    assert made.n_runs == 1
    assert "is a copy of" in page.text


def test_failed_runs_have_no_score_but_a_traceback(tmp_path, report):
    run(tmp_path, seed=0)
    run(tmp_path, seed=1)
    run(tmp_path, seed=2, status="failed", traceback="Traceback:\nValueError: no < luck", evaluation=None)
    made, page = report()
    assert len(page.data["scores"]["CartPole-v1"]["npg"]["runs"]) == 2
    assert [each["partial"] for each in page.data["curves"]["CartPole-v1"]["training"]["groups"]["npg"]["runs"]] == [
        False,
        False,
        True,
    ]
    assert any("1 failed of 3 runs" in line for line in made.warnings)
    assert "ValueError: no < luck" in page.text


@pytest.mark.parametrize(("n_seeds", "few"), [(1, True), (5, True), (10, False)])
def test_too_few_seeds_are_said(tmp_path, report, n_seeds, few):
    for seed in range(n_seeds):
        run(tmp_path, seed=seed, score=float(seed))
    made, page = report()
    assert any("Few seeds" in line for line in made.warnings) == few == ("Few seeds" in page.text)
    assert any("One run only" in line for line in made.warnings) == (n_seeds == 1)
    if n_seeds == 1:
        assert page.data["scores"]["CartPole-v1"]["npg"]["mean"] == [0.0, None, None]


def test_bad_files_are_named_and_the_rest_is_shown(tmp_path, report):
    run(tmp_path / "good")
    (run(tmp_path / "cut", seed=1) / "result.json").write_text('{"format": 1, "al')
    (run(tmp_path / "later", seed=2) / "result.json").write_text('{"format": 99}')
    monitor(tmp_path / "line", [1.0, 2.0, 3.0], end="\n4.0,1")
    monitor(monitor(tmp_path / "mixed", [1.0]), [1.0], env="Acrobot-v1", name="1.monitor.csv")
    monitor(tmp_path / "none", [])
    (monitor(tmp_path / "endless", [1.0]) / "progress.csv").write_text("a\n" + "1" * 200_000)
    (monitor(tmp_path / "infinite", [1.0]) / "1.monitor.csv").write_text('#{"t_start": 1}\nr,l,t\n1,inf,1\n')
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / "monitor.csv").write_bytes(b"\xff\xfe\x00")
    broken = zoo_run(tmp_path / "zoo")
    (broken / "evaluations.npz").write_bytes(b"PK half a file")
    (broken / "CartPole-v1" / "config.yml").write_text("a: [1, 2")
    (tmp_path / "empty").mkdir()
    made, page = report(tmp_path, tmp_path / "empty", tmp_path / "nowhere")
    assert made.n_runs == 3
    for place, reason in (
        ("cut", "was it cut short?"),
        ("later", "format 99"),
        ("line", "last line was cut off"),
        ("mixed", "different environments (Acrobot-v1, CartPole-v1)"),
        ("none", "no complete episode"),
        ("endless", "field larger than field limit"),
        ("infinite", "infinity"),
        ("binary", "utf-8"),
        ("evaluations.npz", "without its evaluations"),
        ("config.yml", "shown without it"),
        ("empty", "holds no run"),
        ("nowhere", "is no folder"),
    ):
        assert [place in line and reason in line for line in made.problems].count(True) == 1, place
        assert reason in page.text


def test_lists_of_unequal_length_are_refused(tmp_path, report):
    run(tmp_path, seed=0)
    run(tmp_path, seed=1, diagnostics={"train/kl": {"timesteps": [1, 2], "values": [1]}})
    made, _ = report()
    assert made.n_runs == 1
    assert "2 steps and 1 values do not go together" in made.problems[0]


def test_no_run_at_all_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"no run to report on\n.*holds no run"):
        write_report([str(tmp_path)], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"compare": ("npg", "sac")}, "compare: there is no group of runs 'sac'; there are: 'npg'"),
        ({"references": {"Pong-v5": (0, 1)}}, "references: there is no environment 'Pong-v5'"),
        ({"confidence": 95}, "confidence=95"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, report, keywords, message):
    run(tmp_path)
    with pytest.raises(ValueError, match=message):
        report(**keywords)


def test_nothing_of_a_stranger_is_run_or_becomes_markup(tmp_path, report):
    run(tmp_path, algo="a", env="CartPole-v1", hyperparameters={EVIL: EVIL}, command=EVIL, versions={EVIL: EVIL})
    run(
        tmp_path, algo="b", status="failed", traceback=EVIL, diagnostics={EVIL: {"timesteps": [1, 2], "values": [1, 2]}}
    )
    folder = run(tmp_path, algo="c", seed=5)
    record = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**record, "algo": EVIL, "env": EVIL, "setting": EVIL}))
    evil = zoo_run(tmp_path / "zoo")
    (evil / "CartPole-v1" / "config.yml").write_text(
        f"x: !!python/object/apply:os.system ['touch {tmp_path}/run']\ny: !!python/name:os.system\n"
    )
    np.savez(evil / "evaluations.npz", timesteps=[1], results=np.array([[print]], dtype=object))
    made, page = report(title=EVIL)
    assert not (tmp_path / "run").exists()
    assert EVIL in page.text
    assert EVIL in page.data["groups"][0]
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert "img" not in [tag for tag, _ in page.elements]
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert any("evaluations.npz cannot be read" in line for line in made.problems)
    assert "touch" in page.text  # the setting is shown


def test_a_name_of_an_environment_imports_nothing(tmp_path, report, monkeypatch):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    run(tmp_path / "runs", env="evil_module:CartPole-v1")
    made, _ = report(tmp_path / "runs")
    assert made.n_runs == 1


def test_a_yaml_of_many_references_stays_small(tmp_path, report):
    bomb = zoo_run(tmp_path)
    names = "abcdefghi"
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in pairwise(names)]
    (bomb / "CartPole-v1" / "config.yml").write_text("\n".join(lines))
    made, _ = report()
    assert made.path.stat().st_size < 500_000


def test_the_page_stands_alone_and_runs_only_its_own_script(tmp_path, report):
    run(tmp_path)
    _, page = report()
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", page.source) == []
    assert not [
        value
        for tag, attributes in page.elements
        for key, value in attributes.items()
        if key in ("src", "href") and not value.startswith(("#", "data:,"))
    ]
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    style, _, script = page.raw
    for content in (style, script):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_everything_has_a_name_for_screen_readers(tmp_path, report):
    for seed in range(2):
        run(tmp_path, seed=seed)
        run(tmp_path, "ppo", seed=seed)
    _, page = report(compare=("npg", "ppo"))
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    for tag, attributes in page.elements:
        if tag == "section":
            assert attributes.get("aria-labelledby") in ids or "aria-label" in attributes
        if attributes.get("tabindex") == "0":
            assert attributes.get("aria-label")
        if tag == "a" and attributes["href"].startswith("#"):
            assert attributes["href"][1:] in ids
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
    assert ("html", {"lang": "en"}) in page.elements
    # What was asked comes first.
    assert next(a["id"] for tag, a in page.elements if tag == "section" and "id" in a) == "compare"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (3, "3"),
        (-0.25, "−0.25"),
        (1234567, "1\u202f235\u202f000"),
        (99999.6, "100\u202f000"),
        (0.123456, "0.1235"),
        (1e-7, "1.000e−07"),
        (float("nan"), "–"),
        (float("inf"), "∞"),
    ],
)
def test_numbers_are_written_for_people(value, text):
    assert number(value) == text


def test_the_command_line_writes_a_page_and_answers(tmp_path, monkeypatch, capsys):
    for seed in range(5):
        run(tmp_path / "logs", "npg", seed=seed, score=10.0 + seed)
        run(tmp_path / "logs", "ppo", seed=seed, score=float(seed))
    monkeypatch.chdir(tmp_path)
    arguments = ["report", "logs", "-o", "page.html", "--compare", "npg", "ppo", "--threshold", "CartPole-v1", "5"]
    monkeypatch.setattr("sys.argv", ["sb3-pg", *arguments, "--reference", "CartPole-v1", "0", "20"])
    __main__.main()
    out = capsys.readouterr().out
    assert "Yes: npg is better than ppo on CartPole-v1, by 10" in out
    assert "10 runs on page.html" in out
    assert Page("page.html").data["reach"]["CartPole-v1"]["thresholds"][0]["value"] == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is no folder"),
        (["logs", "--compare", "npg", "sac"], "no group of runs 'sac'"),
        (["logs", "--reference", "CartPole-v1", "1", "0"], "has to be the smaller one"),
        (["logs", "--threshold", "CartPole-v1", "much"], "'much' is no number"),
        (["logs", "-o", "logs"], "logs cannot be written"),
    ],
)
def test_the_command_line_says_what_is_wrong(tmp_path, monkeypatch, capsys, arguments, message):
    run(tmp_path / "logs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["sb3-pg", "report", *arguments])
    with pytest.raises(SystemExit) as exit_:
        __main__.main()
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_hundred_runs_are_a_small_page_soon_made(tmp_path, report):
    rng = np.random.default_rng(0)
    steps, logged = list(range(1000, 1_001_000, 1000)), list(range(5000, 1_001_000, 5000))
    for algo in "abcde":
        for env in ("A-v0", "B-v0", "C-v0", "D-v0"):
            for seed in range(5):
                keys = (f"train/{name}" for name in ("kl", "entropy_loss", "grad_norm", *range(17)))
                diagnostics = {key: {"timesteps": logged, "values": rng.normal(size=200)} for key in keys}
                curve = {"timesteps": steps, "returns": rng.normal(size=1000), "lengths": steps}
                run(tmp_path, algo, env, seed, rng.normal(), 1_000_000, curve=curve, diagnostics=diagnostics)
    start = time.process_time()
    made, _ = report()
    assert made.n_runs == 100
    assert time.process_time() - start < 10
    assert made.path.stat().st_size < 3_000_000


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open the page with")
@pytest.mark.parametrize("width", [400, 1600])
def test_a_browser_draws_every_plot_without_an_error(tmp_path, width):
    for env in ("A-v0", "B-v0"):
        for seed in range(3):
            run(tmp_path / "logs", "npg", env, seed, 10.0 + seed)
            run(tmp_path / "logs", "ppo", env, seed, 5.0 + 2 * seed, hyperparameters={EVIL: EVIL})
    run(tmp_path / "logs", "ppo", "A-v0", 3, status="failed", traceback=EVIL, hyperparameters={EVIL: EVIL})
    write_report([str(tmp_path / "logs")], tmp_path / "page.html", compare=("npg", "ppo"))
    shown = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--window-size={width},900",
            "--dump-dom",
            f"--user-data-dir={tmp_path}/profile",
            "--enable-logging=stderr",
            "--virtual-time-budget=3000",
            f"file://{tmp_path}/page.html",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in shown.stderr
    assert 'data-ready="yes"' in shown.stdout
    charts = shown.stdout.split('<div class="chart"')[1:]
    assert len(charts) == 17
    for chart in charts:
        assert re.search(r'class="mean" d="M|class="estimate"', chart), chart[:300]
    assert shown.stdout.count("Copy ") >= 10
