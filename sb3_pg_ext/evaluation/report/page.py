"""The page: numbers and words put into one HTML file."""

import base64
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from sb3_pg_ext.evaluation.records import write_atomically
from sb3_pg_ext.evaluation.report import words
from sb3_pg_ext.evaluation.report.analysis import (
    ALL,
    LAST_SHARE,
    Analysis,
    Comparison,
    Curve,
    first_reached,
    score,
)
from sb3_pg_ext.evaluation.report.reading import find_runs
from sb3_pg_ext.evaluation.report.runs import Run, differing_keys, group
from sb3_pg_ext.evaluation.statistics import Interval
from sb3_pg_ext.version import __version__

Cell = str | float | Interval | None

TITLES = {
    "train/kl": "KL divergence",
    "train/approx_kl": "KL divergence (approximate)",
    "train/kl_divergence_loss": "KL divergence",
    "train/entropy_loss": "Entropy loss (−entropy)",
    "train/entropy": "Entropy",
    "train/grad_norm": "Gradient norm",
    "train/explained_variance": "Explained variance",
    "train/td_error_mean": "TD error, mean",
    "train/td_error_std": "TD error, standard deviation",
    "train/q_max": "Largest Q",
    "train/value_loss": "Value loss",
    "train/critic_loss": "Critic loss",
    "train/step_norm": "Length of the update",
    "time/fps": "Steps per second",
}
"""Logged values that are drawn first, and what they are called."""
MAX_COMMANDS = 200
LONGEST_LINE = 30
"""Letters of a cell that does not wrap."""


@dataclass
class Table:
    """A table that a person reads and copies.

    :param name: under which its cells are kept for copying
    :param rows: the first cell of each is its name
    """

    name: str
    title: str
    columns: list[str]
    rows: list[list[Cell]]

    def as_html(self) -> str:
        """With buttons for copying."""
        numeric = [any(not isinstance(row[k], str | None) for row in self.rows) for k in range(len(self.columns))]
        head = "".join(
            f'<th scope="col"{" class=number" if is_number else ""}>{escape(column)}</th>'
            for column, is_number in zip(self.columns, numeric, strict=True)
        )
        lines, before = [], None
        for row in self.rows:
            first = f'<th scope="row">{_cell(row[0])}</th>'
            rest = "".join(f"<td{_style(row[k], numeric[k])}>{_cell(row[k])}</td>" for k in range(1, len(row)))
            lines.append(f"<tr{' class=group' if before not in (None, row[0]) else ''}>{first}{rest}</tr>")
            before = row[0]
        title = escape(self.title)
        return (
            f'<div class="table"><div class="table-head" data-table="{escape(self.name)}" data-title="{title}">'
            f'<h3>{title}</h3></div><div class="scroll" tabindex="0" role="region" aria-label="{title}">'
            f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div></div>"
        )

    def as_data(self) -> dict[str, Any]:
        """For copying."""
        return {"columns": self.columns, "rows": [[_plain(cell) for cell in row] for row in self.rows]}


@dataclass
class Report:
    """What was made of some folders.

    :param path: of the page
    :param n_runs: how many runs are on it
    :param problems: what could not be used, and why
    :param warnings: why the numbers may say less than they seem to
    :param answer: to ``compare``, as lines; empty if nothing was asked
    """

    path: Path
    n_runs: int
    problems: list[str]
    warnings: list[str]
    answer: list[str] = field(default_factory=list)


def write_report(
    folders: Sequence[str],
    output: str | Path,
    compare: tuple[str, str] | None = None,
    title: str = "",
    confidence: float = 0.95,
    references: Mapping[str, tuple[float, float]] | None = None,
    thresholds: Mapping[str, list[float]] | None = None,
) -> Report:
    """Write one HTML page about all runs below some folders.

    :param folders: folders of ``sb3-pg sweep``, of RL Zoo or with SB3's Monitor files, at any depth
    :param output: the page, replaced if it is there
    :param compare: two groups of runs: is the first better than the second?
    :param title: of the page; by default the algorithms and environments
    :param confidence: of all intervals
    :param references: worst and best score by environment, 0 and 1 of the common scale; by default those of the runs
    :param thresholds: by environment, the returns whose reaching is looked at
    :raises ValueError: if there is no run at all, or an argument names a group or an environment that there is not
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence!r}; allowed: a number between 0 and 1")
    found, problems = find_runs(list(folders))
    runs, remarks = group(found)
    if not runs:
        raise ValueError("\n".join(["there is no run to report on", *problems]))
    analysis = Analysis.of(runs, confidence, references, thresholds)
    for name, given in (("references", references), ("thresholds", thresholds)):
        _check_names(name, given or (), analysis.envs, "environment")
    _check_names("compare", compare or (), analysis.labels, "group of runs")
    page = _Page(analysis, [*problems, *remarks], compare, title)
    content = page.write()
    write_atomically(Path(output), content.encode())
    answer = [page.answers[0]["answer"], *page.answers[0]["details"]] if compare else []
    return Report(Path(output), len(runs), [*problems, *remarks], page.warnings, answer)


def _check_names(argument: str, names: Iterable[str], known: list[str], kind: str) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{argument}: there is no {kind} {name!r}; there are: {', '.join(map(repr, known))}")


class _Page:
    def __init__(self, analysis: Analysis, problems: list[str], compare: tuple[str, str] | None, title: str) -> None:
        self.analysis = analysis
        self.problems = problems
        self.compare = compare
        self.envs = analysis.envs
        self.labels = analysis.labels
        self.title = title or f"{_some(self.labels)} on {_some(self.envs)}"
        self.tables: dict[str, Table] = {}
        self.warnings = words.warnings(analysis)
        self.curves = {env: analysis.curves(env) for env in self.envs}
        self.evaluations = {env: analysis.curves(env, of_evaluations=True) for env in self.envs}
        self.aggregates = {env: analysis.aggregates(env) for env in self.envs}
        self.common = analysis.common()[0]
        self.of_all = analysis.aggregates(ALL) if self.common else {}
        self.diagnostics = {
            env: _sorted_diagnostics(found) for env in self.envs if (found := analysis.diagnostics(env))
        }
        self.answers, self.compared = self._answers()

    def write(self) -> str:
        """The HTML."""
        body = self._body()  # before the data, since it makes the tables
        style, script = (_asset(name) for name in ("page.css", "page.js"))
        runs = [run for some in self.analysis.groups.values() for run in some]
        created = datetime.now(timezone.utc)
        meta = [
            _count(len(runs), "run"),
            _count(len(self.labels), "group"),
            _count(len(self.envs), "environment"),
            f"intervals of {100 * self.analysis.confidence:g} %",
            created.strftime("%-d %B %Y"),
        ]
        return Template(_asset("page.html")).substitute(
            title=escape(self.title),
            meta=" · ".join(map(escape, meta)),
            version=escape(__version__),
            created=created.strftime("%Y-%m-%d %H:%M UTC"),
            style=style,
            script=script,
            style_hash=_hash(style),
            script_hash=_hash(script),
            body=body,
            data=_json(self._data()),
        )

    def _answers(self) -> tuple[list[dict[str, Any]], dict[tuple[str, str], list[Comparison]]]:
        """Answers for all pairs of groups, first what was asked."""
        place = ALL if self.common else max(self.envs, key=lambda env: len(self.analysis.tasks(env)))
        pairs = dict.fromkeys(self.analysis.pairs(place))
        for env in self.envs:
            pairs |= dict.fromkeys(pair for pair in self.analysis.pairs(env) if pair[::-1] not in pairs)
        asked = [self.compare] if self.compare else []
        wanted = [*asked, *(pair for pair in pairs if self.compare not in (pair, pair[::-1]))]
        answers, compared = [], {}
        for a, b in wanted:
            answer, details, comparisons = words.comparison(self.analysis, a, b)
            answers.append({"a": a, "b": b, "answer": answer, "details": details})
            compared[a, b] = comparisons
        return answers, compared

    # -- the text and the tables --

    def _body(self) -> str:
        sections = [
            ("scores", "Scores", self._scores()),
            ("compare", "Comparison", self._comparison()),
            ("curves", "Learning curves", self._learning_curves()),
            ("efficiency", "Sample efficiency", self._efficiency()),
            ("all", "All environments together", self._across()),
            ("profiles", "Performance profiles", self._profiles()),
            ("improvement", "Probability of improvement", self._improvement()),
            ("diagnostics", "Training diagnostics", self._diagnostics()),
            ("settings", "Settings", self._settings()),
            ("runs", "Runs", self._runs()),
            ("method", "How the numbers are made", _METHOD),
        ]
        if self.compare:  # what was asked is answered first
            sections.insert(0, sections.pop(1))
        shown = [(key, name, content) for key, name, content in sections if content]
        links = "".join(f'<li><a href="#{key}">{name}</a></li>' for key, name, _ in shown)
        parts = [f'<nav aria-label="Contents"><ul class="contents">{links}</ul></nav>', self._worth_knowing()]
        parts += [
            f'<section id="{key}" aria-labelledby="h-{key}"><h2 id="h-{key}">{name}</h2>{content}</section>'
            for key, name, content in shown
        ]
        return "\n".join(parts)

    def _worth_knowing(self) -> str:
        content = ""
        if self.warnings:
            content += f'<div class="card warn"><h3>Before you trust a number</h3>{_list(self.warnings)}</div>'
        if self.problems:
            content += f'<div class="card warn"><h3>Left out, or worth a look</h3>{_list(self.problems)}</div>'
        return f'<section aria-label="Worth knowing">{content}</section>' if content else ""

    def _table(self, name: str, title: str, columns: list[str], rows: list[list[Cell]]) -> str:
        if not rows:
            return ""
        table = self.tables[name] = Table(name, title, columns, rows)
        return table.as_html()

    def _scores(self) -> str:
        rows: list[list[Cell]] = []
        for env in self.envs:
            for label in self.labels:
                runs = self.analysis.runs_of(label, env)
                if runs:
                    values = self.aggregates[env].get(label, {})
                    speeds = [run.n_timesteps / run.seconds for run in runs if run.n_timesteps and run.seconds]
                    rows.append(
                        [
                            env,
                            label,
                            sum(run.is_finished for run in runs),
                            sum(not run.is_finished for run in runs),
                            *(values.get(key) for key in ("mean", "median", "IQM")),
                            float(np.median(speeds)) if speeds else None,
                        ]
                    )
        columns = ["environment", "group", "runs", "failed", "mean", "median", "IQM", "steps/s"]
        return (
            '<p class="lead">The score of a run is the mean return of its final evaluation. Bars are intervals of the '
            "mean over runs, dots the runs.</p>"
            '<div class="grid" id="score-charts"></div>' + self._table("scores", "Scores by group", columns, rows)
        )

    def _comparison(self) -> str:
        if not self.answers:
            return ""
        first = self.answers[0]
        asked = f"Is {first['a']} better than {first['b']}, by how much, how sure?"
        rows: list[list[Cell]] = [
            [
                c.env or f"all {len(self.common)}, normalised",
                a,
                b,
                c.means[0],
                c.means[1],
                c.difference,
                c.p_value,
                c.probability,
            ]
            for (a, b), comparisons in self.compared.items()
            for c in comparisons
        ]
        columns = ["environment", "A", "B", "mean A", "mean B", "A − B", "p", "P(A > B)"]
        table = self._table("comparisons", "All comparisons", columns, rows)
        return (
            f'<div class="card answer" id="comparison" aria-live="polite"><div class="pickers" id="comparison-pickers">'
            f"{'' if len(self.answers) > 1 else f'<strong>{escape(asked)}</strong>'}</div>"
            f'<p class="verdict" id="verdict">{escape(first["answer"])}</p>'
            f'<ul id="details">{_items(first["details"])}</ul></div>'
            + (table if len(rows) <= 6 else f"<details><summary>Table of all comparisons</summary>{table}</details>")
        )

    def _learning_curves(self) -> str:
        if not any(self.curves.values()) and not any(self.evaluations.values()):
            return ""
        return (
            '<p class="lead">Returns against steps of training, averaged over the last twentieth of the training '
            "before each point. Lines are means over finished runs, with their intervals; dotted thin lines are runs "
            "that failed or were interrupted.</p>"
            '<div class="pickers" id="curve-pickers"></div><div class="grid" id="curve-charts"></div>'
        )

    def _efficiency(self) -> str:
        rows: list[list[Cell]] = []
        for env, found in self._reached().items():
            for value, text, by_group in found:
                for label, steps in by_group.items():
                    known = steps[np.isfinite(steps)]
                    median = float(np.median(np.where(np.isfinite(steps), steps, np.inf)))
                    rows.append(
                        [
                            env,
                            f"{words.number(value)} ({text})",
                            label,
                            f"{len(known)} of {len(steps)}",
                            median if math.isfinite(median) else "more than half never",
                            float(known.min()) if len(known) else None,
                            float(known.max()) if len(known) == len(steps) else None,
                        ]
                    )
        columns = ["environment", "return", "group", "reached by", "median steps", "fastest", "slowest"]
        if not rows:
            return ""
        table = self._table("reach", "Steps to a return", columns, rows)
        return (
            '<p class="lead">How many steps it takes until the learning curve of a run first reaches a return, and '
            "what share of the runs is there by then.</p>"
            '<div class="grid" id="reach-charts"></div>' + table
        )

    def _reached(self) -> dict[str, list[tuple[float, str, dict[str, np.ndarray]]]]:
        result: dict[str, list[tuple[float, str, dict[str, np.ndarray]]]] = {}
        for env, curves in self.curves.items():
            finished = {
                label: Curve(curve.x, curve.interval, curve.runs[kept])
                for label, curve in curves.items()
                if (kept := self._finished_rows(label, env)).any()
            }
            result[env] = [
                (value, text, {label: first_reached(curve, value) for label, curve in finished.items()})
                for value, text in self.analysis.thresholds_of(env, finished)
            ]
        return {env: found for env, found in result.items() if found and any(of for _, _, of in found)}

    def _finished_rows(self, label: str, env: str) -> np.ndarray:
        shown = [run for run in self.analysis.runs_of(label, env) if len(run.returns.timesteps)]
        return np.array([run.is_finished for run in shown], bool)

    def _across(self) -> str:
        if not self.of_all:
            return ""
        ends = {env: map(words.number, self.analysis.references[env]) for env in self.common}
        scale = "; ".join(f"{env} {' to '.join(pair)}" for env, pair in ends.items())
        left_out = [label for label in self.labels if label not in self.of_all]
        note = f" Without {words.listed(left_out)}, which not every environment has." if left_out else ""
        rows: list[list[Cell]] = [
            [label, *(values[key] for key in ("IQM", "mean", "median", "optimality gap"))]
            for label, values in self.of_all.items()
        ]
        columns = ["group", "IQM", "mean", "median", "optimality gap"]
        return (
            f'<p class="lead">Scores on a common scale, on which these are 0 and 1: {escape(scale)}. By default, the '
            f"lowest and the highest score of a run.{escape(note)} Intervals are from a bootstrap stratified by "
            "environment.</p>"
            '<div class="grid" id="all-charts"></div>' + self._table("all", "Over all environments", columns, rows)
        )

    def _profiles(self) -> str:
        if not any(self.analysis.tasks(env) for env in self.envs):
            return ""
        return (
            '<p class="lead">The share of runs that score more than a threshold: the higher the curve, the better; '
            "where curves cross, neither is better throughout.</p>"
            '<div class="grid" id="profile-charts"></div>'
        )

    def _improvement(self) -> str:
        if len(self.labels) < 2 or not any(len(self.analysis.tasks(env)) > 1 for env in self.envs):
            return ""
        return (
            '<p class="lead">The probability that a run of the first group scores higher than one of the second, equal '
            "scores counted half.</p>"
            '<div class="grid" id="improvement-charts"></div>'
        )

    def _diagnostics(self) -> str:
        if not self.diagnostics:
            return ""
        return (
            '<p class="lead">What SB3’s logger has written during the training: means over runs, and the range from '
            "the smallest to the largest.</p>"
            '<div class="pickers" id="diagnostic-pickers"></div>'
            '<div class="grid small-charts" id="diagnostic-charts"></div><div id="more-diagnostics"></div>'
        )

    def _settings(self) -> str:
        content = ""
        for env in self.envs:
            firsts = {label: runs[0] for label in self.labels if (runs := self.analysis.runs_of(label, env))}
            if not any(run.hyperparameters for run in firsts.values()):
                continue
            keys = differing_keys([run.hyperparameters for run in firsts.values()])
            content += self._table(
                f"differences {env}",
                f"What differs on {env}",
                ["hyper-parameter", *firsts],
                [[key, *(run.hyperparameters.get(key) for run in firsts.values())] for key in keys],
            )
            everything = sorted({key for run in firsts.values() for key in run.hyperparameters})
            same = [key for key in everything if key not in keys]
            if same:
                table = self._table(
                    f"settings {env}",
                    f"The same in all groups on {env}",
                    ["hyper-parameter", "value"],
                    [[key, next(iter(firsts.values())).hyperparameters.get(key)] for key in same],
                )
                content += f"<details><summary>The same in all groups on {escape(env)}</summary>{table}</details>"
        return content + self._versions() + self._commands()

    def _versions(self) -> str:
        runs = [run for some in self.analysis.groups.values() for run in some if run.versions]
        found = Counter(tuple(sorted(run.versions.items())) for run in runs)
        names = sorted({name for versions in found for name, _ in versions})
        rows: list[list[Cell]] = [
            [_count(count, "run"), *(dict(versions).get(name) for name in names)]
            for versions, count in found.most_common()
        ]
        return self._table("versions", "Versions", ["of", *names], rows)

    def _commands(self) -> str:
        commands: dict[str, list[Run]] = {}
        for some in self.analysis.groups.values():
            for run in some:
                if run.command:
                    commands.setdefault(run.command, []).append(run)
        if not commands:
            return ""
        items = "".join(
            f'<p class="small note">{escape(_some([f"{run.label} on {run.env}, {run.name}" for run in of]))}</p>'
            f"<pre>{escape(command)}</pre>"
            for command, of in list(commands.items())[:MAX_COMMANDS]
        )
        more = len(commands) - MAX_COMMANDS
        left = f'<p class="note">{more} more are in the runs’ own records.</p>' if more > 0 else ""
        return f"<details><summary>Exact commands ({len(commands)})</summary>{items}{left}</details>"

    def _runs(self) -> str:
        evaluated = {env: self.analysis.has_evaluations(env) for env in self.envs}
        everything = [run for label in self.labels for env in self.envs for run in self.analysis.runs_of(label, env)]
        rows: list[list[Cell]] = [
            [
                run.label,
                run.env,
                run.name,
                run.status,
                score(run, evaluated[run.env]) if run.is_finished else None,
                float(run.n_timesteps) if run.n_timesteps else None,
                run.seconds,
                run.n_timesteps / run.seconds if run.n_timesteps and run.seconds else None,
                run.source,
                run.path,
            ]
            for run in everything
        ]
        columns = ["group", "environment", "run", "status", "score", "steps", "seconds", "steps/s", "tool", "folder"]
        table = self._table("runs", "All runs", columns, rows)
        failed = "".join(
            f'<div class="card failed"><h3>{escape(f"{run.label} on {run.env}, {run.name}")}: {run.status}</h3>'
            f'<p class="small note">{escape(run.path)}</p>'
            + (
                f"<details><summary>{escape(run.traceback.strip().splitlines()[-1][:300])}</summary>"
                f"<pre>{escape(run.traceback)}</pre></details>"
                if run.traceback.strip()
                else ""
            )
            + "</div>"
            for run in everything
            if not run.is_finished
        )
        many = len(rows) > 12
        return failed + (f"<details><summary>All {len(rows)} runs</summary>{table}</details>" if many else table)

    # -- the data of the charts --

    def _data(self) -> dict[str, Any]:
        everywhere = [(ALL, f"all {len(self.common)} environments")] if self.common else []
        places = [*everywhere, *((env, env) for env in self.envs)]
        return {
            "groups": self.labels,
            "envs": [
                {"name": env, "score": "mean return" if self.analysis.has_evaluations(env) else "return in training"}
                for env in self.envs
            ],
            "scores": {env: self._score_data(env) for env in self.envs},
            "curves": {env: data for env in self.envs if (data := self._curve_data(env))},
            "reach": {
                env: {
                    "x": _numbers(next(iter(self.curves[env].values())).x),
                    "thresholds": [
                        {
                            "value": _number(value),
                            "label": text,
                            "groups": {label: _numbers(steps) for label, steps in by_group.items()},
                        }
                        for value, text, by_group in found
                    ],
                }
                for env, found in self._reached().items()
            },
            "all": {label: {key: _numbers(values[key]) for key in values} for label, values in self.of_all.items()},
            "profiles": [profile for env, name in places if (profile := self._profile_data(env, name))],
            "improvement": [
                {
                    "title": name,
                    "pairs": [{"x": x, "y": y, "p": _numbers(self.analysis.improvement(x, y, env))} for x, y in pairs],
                }
                for env, name in places
                if (pairs := list(self.analysis.pairs(env)))
            ],
            "diagnostics": {env: self._diagnostic_data(env) for env in self.diagnostics},
            "comparisons": self.answers,
            "tables": {name: table.as_data() for name, table in self.tables.items()},
        }

    def _score_data(self, env: str) -> dict[str, Any]:
        evaluated = self.analysis.has_evaluations(env)
        return {
            label: {
                "mean": _numbers(values["mean"]),
                "runs": [
                    {"name": run.name, "value": _number(value)}
                    for run in self.analysis.finished(label, env)
                    if (value := score(run, evaluated)) is not None
                ],
            }
            for label, values in self.aggregates[env].items()
        }

    def _curve_data(self, env: str) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for kind, curves in (("training", self.curves[env]), ("evaluations", self.evaluations[env])):
            if curves:
                data[kind] = {
                    "x": _numbers(next(iter(curves.values())).x),
                    "groups": {label: self._band_data(label, env, kind, curve) for label, curve in curves.items()},
                }
        return data

    def _band_data(self, label: str, env: str, kind: str, curve: Curve) -> dict[str, Any]:
        shown = [
            run
            for run in self.analysis.runs_of(label, env)
            if len((run.returns if kind == "training" else run.evaluations).timesteps)
        ]
        return {
            **_interval_data(curve.interval),
            "runs": [
                {"name": run.name, "y": _numbers(row), "partial": not run.is_finished}
                for run, row in zip(shown, curve.runs, strict=True)
            ],
        }

    def _profile_data(self, env: str, name: str) -> dict[str, Any] | None:
        thresholds, profiles = self.analysis.profiles(env)
        if not profiles:
            return None
        return {
            "title": name,
            "normalised": env == ALL,
            "x": _numbers(thresholds),
            "groups": {label: _interval_data(profile) for label, profile in profiles.items()},
        }

    def _diagnostic_data(self, env: str) -> dict[str, Any]:
        return {
            key: {
                "title": TITLES.get(key, key),
                "main": key in TITLES,
                "groups": {label: {"x": _numbers(x), **_interval_data(band)} for label, (x, band) in of_key.items()},
            }
            for key, of_key in self.diagnostics[env].items()
        }


def _sorted_diagnostics(found: dict[str, Any]) -> dict[str, Any]:
    """The best known values first, in the order of :data:`TITLES`."""
    places = {key: place for place, key in enumerate(TITLES)}
    return {key: found[key] for key in sorted(found, key=lambda key: (places.get(key, len(places)), key))}


def _interval_data(interval: Interval) -> dict[str, list[float | None]]:
    return {"y": _numbers(interval.estimate), "low": _numbers(interval.low), "high": _numbers(interval.high)}


def _number(value: float) -> float | None:
    """A number short enough for a page; None for what JSON does not know."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _numbers(values: Iterable[float]) -> list[float | None]:
    return [_number(float(value)) for value in values]


def _plain(cell: Cell) -> Any:
    if isinstance(cell, Interval):
        return [_plain(float(value)) for value in cell]
    if isinstance(cell, float):
        return cell if math.isfinite(cell) else None
    return cell


def _style(cell: Cell, numeric: bool) -> str:
    """Numbers are set to the right, and long texts wrap."""
    is_long = isinstance(cell, str) and len(cell) > LONGEST_LINE
    return ' class="number"' if numeric else ' class="text"' if is_long else ""


def _cell(cell: Cell) -> str:
    if isinstance(cell, Interval):
        estimate, _, rest = words.interval(cell).partition(" ")
        return f'{escape(estimate)} <span class="range-text">{escape(rest)}</span>'
    if cell is None:
        return "–"
    return escape(cell if isinstance(cell, str) else words.number(cell))


def _json(data: dict[str, Any]) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode(errors="replace").decode()


def _asset(name: str) -> str:
    return files("sb3_pg_ext.evaluation.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _items(lines: Iterable[str]) -> str:
    return "".join(f"<li>{escape(line)}</li>" for line in lines)


def _list(lines: list[str]) -> str:
    return f"<ul>{_items(lines)}</ul>"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _some(names: list[str]) -> str:
    """The first of some names."""
    return words.listed(names if len(names) <= 4 else [*names[:3], f"{len(names) - 3} more"])


_METHOD = f"""<ul class="lead">
<li>A score is the mean return of the greedy episodes that evaluate the final policy. Where a run of an environment has
none, all runs of that environment are judged by the training episodes in the last {100 * LAST_SHARE:g} % of their
steps.</li>
<li>Means have Student’s interval over runs; means over environments and differences have that of Welch and
Satterthwaite.</li>
<li>Medians, interquartile means (IQM), optimality gaps and performance profiles have bootstrap intervals, with runs
drawn again within each environment, at levels that are widened for small samples (Hesterberg 2015).</li>
<li>Probabilities of improvement have the bootstrap’s interval, but never a shorter one than Newcombe’s (2006).</li>
<li>p-values are of permutation tests of Welch’s t, within environments; over several environments they are adjusted by
Holm’s method.</li>
<li>An interval is about other seeds, not about other environments, settings or machines. Choosing the best of many
groups by its score, and reporting that score, is optimistic.</li>
<li>Steps per second are those of whole runs: evaluations and the start count.</li>
</ul>"""
