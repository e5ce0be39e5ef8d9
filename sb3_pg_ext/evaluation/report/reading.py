"""Reading runs of ``sb3-pg sweep``, of RL Zoo and of SB3's Monitor, as far as their files can be read.

Files may come from strangers: nothing in them is run. YAML is read as plain data, arrays without pickles, and of a
model only the text about the system that made it.
"""

import csv
import json
import math
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from reprlib import Repr
from typing import Any

import numpy as np
import yaml

from sb3_pg_ext.checkpoints.safety.yaml_files import BoundedLoader
from sb3_pg_ext.evaluation.curves import diagnostics, training_curve
from sb3_pg_ext.evaluation.records import RESULT_FILE, RecordError, read_result
from sb3_pg_ext.evaluation.report.runs import Run, Series, as_numbers

SYSTEM_INFO_LIMIT = 10_000
FINAL_SHARE = 0.9
"""An evaluation is one of the final policy if at most a tenth of the training followed."""
_ZOO_RUN = re.compile(r"(?P<env>.+)_\d+(_[0-9a-f-]{36})?")
_NUMBERED = re.compile(r"(?P<name>.*?)[_\-. ]*(?:seed|run)?[_\-. ]*(?P<number>\d+)", re.IGNORECASE)
_DAMAGED = (ValueError, KeyError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged archive may raise."""
_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 200, 200
_SHORT.maxdict = _SHORT.maxlist = _SHORT.maxtuple = 20


def find_runs(folders: list[str]) -> tuple[list[Run], list[str]]:
    """All runs below some folders.

    :param folders: where to look, at any depth
    :return: the runs, and a message about everything that could not be used
    """
    runs: list[Run] = []
    problems: list[str] = []
    for root in dict.fromkeys(os.path.normpath(folder) for folder in folders):
        if not os.path.isdir(root):
            problems.append(f"{root} is no folder")
            continue
        before = len(runs), len(problems)
        for path, files in _walk(root):
            try:
                run = _read(Path(path), files, root, problems)
            except (ValueError, OSError, OverflowError, RecursionError, csv.Error) as error:
                problems.append(str(error) if isinstance(error, RecordError) else f"{path}: {error}")
                continue
            if run is not None:
                runs.append(run)
        if (len(runs), len(problems)) == before:
            problems.append(
                f"{root} holds no run: neither {RESULT_FILE} nor a run of RL Zoo nor a *.monitor.csv or progress.csv"
            )
    return runs, problems


def _walk(root: str) -> Iterator[tuple[str, list[str]]]:
    """Folders that may be runs; what lies within a run is not looked at."""
    for path, folders, files in os.walk(root):
        folders.sort(key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])
        if RESULT_FILE in files or _zoo_settings(Path(path)) or _is_monitored(files):
            yield path, files
            if RESULT_FILE in files or _zoo_settings(Path(path)):
                folders.clear()


def _is_monitored(files: list[str]) -> bool:
    return "progress.csv" in files or any(file.endswith("monitor.csv") for file in files)


def _zoo_settings(path: Path) -> Path | None:
    """The folder with the settings of a run of RL Zoo."""
    match = _ZOO_RUN.fullmatch(path.name)
    settings = path / match["env"] if match else None
    return settings if settings and any((settings / name).is_file() for name in ("args.yml", "config.yml")) else None


def _read(path: Path, files: list[str], root: str, problems: list[str]) -> Run | None:
    if RESULT_FILE in files:
        return _read_sweep(path, root)
    if settings := _zoo_settings(path):
        return _read_zoo(path, settings, root, problems)
    return _read_monitored(path, root, problems)


def _read_sweep(path: Path, root: str) -> Run:
    record = read_result(path)
    curve, evaluation = (record.get(key) or {} for key in ("curve", "evaluation"))
    setting = record["setting"]
    evaluations = [(item.get("timesteps"), as_numbers(item["returns"])) for item in record.get("evaluations") or ()]
    return Run(
        algorithm=record["algo"] if setting == "default" else f"{record['algo']}-{setting}",
        env=record["env"],
        path=str(path),
        root=root,
        source="sb3-pg sweep",
        seed=record["seed"],
        status=record["status"],
        traceback=_text(record.get("traceback")),
        n_timesteps=record["n_timesteps"],
        seconds=_positive(record.get("seconds")),
        returns=Series.of(curve.get("timesteps", []), curve.get("returns", [])),
        final=_finite(as_numbers(evaluation.get("returns"))),
        evaluations=Series.of(
            [step for step, _ in evaluations], [x.mean() if len(x) else math.nan for _, x in evaluations]
        ),
        diagnostics=_read_diagnostics(record.get("diagnostics")),
        hyperparameters=_as_texts(record.get("hyperparameters")),
        versions=_as_texts(record.get("versions")),
        command=_text(record.get("command")),
    )


def _read_diagnostics(logged: Any) -> dict[str, Series]:
    items = logged.items() if isinstance(logged, dict) else ()
    series = {
        key: Series.of(value.get("timesteps"), value.get("values")) for key, value in items if isinstance(value, dict)
    }
    return {key: value for key, value in series.items() if len(value.timesteps) > 1}


def _read_zoo(path: Path, settings: Path, root: str, problems: list[str]) -> Run:
    arguments, hyperparameters = (_read_yaml(settings / name, problems) for name in ("args.yml", "config.yml"))
    env = _text(arguments.get("env")) or settings.name
    steps = [_positive(each.get("n_timesteps")) for each in (arguments, hyperparameters)]
    run = Run(
        algorithm=_text(arguments.get("algo")) or path.parent.name,
        env=env,
        path=str(path),
        root=root,
        source="RL Zoo",
        seed=seed if isinstance(seed := arguments.get("seed"), int) and seed >= 0 else None,
        status="finished" if (path / f"{settings.name}.zip").is_file() else "interrupted",
        n_timesteps=next((int(n) for n in steps if n), None),
        hyperparameters=_as_texts(hyperparameters),
        versions=_read_system_info(path / f"{settings.name}.zip"),
    )
    if (settings / "command.txt").is_file():
        run.command = (settings / "command.txt").read_text(encoding="utf-8", errors="replace")
    _add_monitor(run, path, problems)
    _add_evaluations(run, path / "evaluations.npz", problems)
    return run


def _read_monitored(path: Path, root: str, problems: list[str]) -> Run | None:
    algorithm, seed = _name_by_folder(path, root)
    run = Run(algorithm=algorithm, env="", path=str(path), root=root, source="SB3's Monitor", seed=seed)
    _add_monitor(run, path, problems)
    _add_evaluations(run, path / "evaluations.npz", problems)
    if len(run.returns.timesteps) == 0 and not run.diagnostics and len(run.evaluations.timesteps) == 0:
        problems.append(f"{path}: no complete episode")
        return None
    run.env = run.env or "unknown environment"
    run.algorithm = run.algorithm.removesuffix(run.env).rstrip("/_- ") or run.env
    return run


def _name_by_folder(path: Path, root: str) -> tuple[str, int | None]:
    """What a folder such as ``ppo/seed_3`` or ``ppo_3`` says about algorithm and seed."""
    parts = list(path.relative_to(root).parts) or [Path(os.path.abspath(root)).name]
    match = _NUMBERED.fullmatch(parts[-1])
    if match is None:
        return "/".join(parts), None
    parts[-1:] = [match["name"]] if match["name"] else []
    return "/".join(parts) or Path(os.path.abspath(root)).name, int(match["number"])


def _add_monitor(run: Run, path: Path, problems: list[str]) -> None:
    """What Monitor and SB3's logger have left beside each other."""
    starts, ends, envs = [], [], set()
    for file in sorted(path.glob("*monitor.csv")):
        header, last, trouble = _look_into(file)
        if trouble:
            problems.append(f"{file}: {trouble}")
        if header is None:
            continue
        envs |= {_text(header.get("env_id"))} - {"", "None"}
        starts.append(float(header["t_start"]))
        ends.append(float(header["t_start"]) + last)
    if len(envs) > 1:
        raise ValueError(f"holds runs of different environments ({', '.join(sorted(envs))}); it is left out")
    if run.env and envs and run.env not in envs:
        problems.append(f"{path}: named after {run.env}, but its Monitor files are of {next(iter(envs))}, which counts")
    run.env = next(iter(envs), run.env)
    if starts:
        curve = training_curve(path, lockstep=False)
        run.returns = Series.of(curve["timesteps"], curve["returns"])
        run.seconds = _positive(max(ends) - min(starts))
        run.n_timesteps = run.n_timesteps or int(run.last_step)
    if (path / "progress.csv").is_file():
        run.diagnostics = _read_diagnostics(diagnostics(path / "progress.csv"))


def _look_into(file: Path) -> tuple[dict[str, Any] | None, float, str]:
    """The header of a Monitor file, the time of its last episode, and what is wrong with it."""
    lines = file.read_text(encoding="utf-8").split("\n")
    try:
        header = json.loads(lines[0].lstrip("#"))
        float(header["t_start"])
    except (ValueError, KeyError, TypeError):
        return None, 0.0, "has no header of SB3's Monitor; left out"
    names = lines[1].split(",") if len(lines) > 1 else []
    if not {"r", "l", "t"} <= set(names):
        return header, 0.0, "has no columns r, l and t"
    is_cut = lines.pop() != ""
    rows = [line.split(",") for line in lines[2:]]
    n_bad = sum(len(row) < len(names) for row in rows)
    troubles = ["its last line was cut off"] * is_cut + [f"{n_bad} lines are incomplete"] * bool(n_bad)
    last = next((row for row in reversed(rows) if len(row) == len(names)), None)
    seconds = as_numbers([_number(last[names.index("t")])])[0] if last else 0.0
    return header, float(seconds) if math.isfinite(seconds) else 0.0, ", ".join(troubles)


def _add_evaluations(run: Run, file: Path, problems: list[str]) -> None:
    if not file.is_file():
        return
    try:
        with np.load(file, allow_pickle=False) as saved:
            steps, results = saved["timesteps"], saved["results"]
        means = np.asarray(results, float).reshape(len(steps), -1).mean(axis=1)
    except _DAMAGED as error:
        problems.append(f"{file} cannot be read ({error}); the run is shown without its evaluations")
        return
    run.evaluations = Series.of(steps, means)
    if len(steps) and steps[-1] >= FINAL_SHARE * (run.n_timesteps or run.last_step):
        run.final = _finite(np.asarray(results[-1], float).reshape(-1))


def _read_system_info(model: Path) -> dict[str, str]:
    """The versions that SB3 writes into a model's archive."""
    try:
        with zipfile.ZipFile(model) as archive, archive.open("system_info.txt") as file:
            text = file.read(SYSTEM_INFO_LIMIT).decode(errors="replace")
    except _DAMAGED:
        return {}
    lines = (line.lstrip("- ").partition(": ") for line in text.splitlines())
    names = {"Python", "Stable-Baselines3", "PyTorch", "Numpy", "Gymnasium"}
    return {name.lower().replace("-", "_"): value for name, _, value in lines if name in names}


class _PlainLoader(BoundedLoader):
    """A safe loader that takes Python's own tags, which RL Zoo writes, for the data below them."""

    def construct_plain(self, _suffix: str, node: yaml.Node) -> Any:
        """What stands below a tag, as a list, a dictionary or a text."""
        if isinstance(node, yaml.MappingNode):
            return self.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            return self.construct_sequence(node, deep=True)
        return self.construct_scalar(node)  # type: ignore[arg-type]


_PlainLoader.add_multi_constructor("tag:yaml.org,2002:python/", _PlainLoader.construct_plain)
_PlainLoader.add_multi_constructor("!", _PlainLoader.construct_plain)


def _read_yaml(file: Path, problems: list[str]) -> dict[str, Any]:
    """A dictionary, or what Python's OrderedDict is written as: a list with the list of its items."""
    if not file.is_file():
        return {}
    try:
        content: Any = yaml.load(file.read_text(encoding="utf-8"), _PlainLoader)
        if isinstance(content, list):
            content = dict(content[0])
        if not isinstance(content, dict):
            raise ValueError("it holds no settings")
    except (ValueError, TypeError, IndexError, RecursionError, yaml.YAMLError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        problems.append(f"{file} cannot be read ({first_line}); the run is shown without it")
        return {}
    return content


def _as_texts(values: Any) -> dict[str, str]:
    """Settings as short texts, whatever they are."""
    items = values.items() if isinstance(values, dict) else ()
    return {_text(key)[:100]: str(_text(value) or value)[:300] for key, value in items}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else _SHORT.repr(value)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _positive(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < math.inf else None


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]
