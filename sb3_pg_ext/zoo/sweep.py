"""``sb3-pg sweep``: algorithms × environments × settings × seeds, in one folder that can be gone on with."""

import argparse
import ast
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import gymnasium as gym
import rl_zoo3.import_envs  # noqa: F401
import yaml
from rl_zoo3.utils import ALGOS

from sb3_pg_ext.arguments import check_choice, check_count, check_range
from sb3_pg_ext.checkpoints.folder import checkpoints
from sb3_pg_ext.evaluation.processes import LocalProcesses
from sb3_pg_ext.evaluation.runs import CHECKPOINT_FOLDER, DEFAULT_SETTING, SETTING_NAME, Run
from sb3_pg_ext.evaluation.sweep import Executor, Outcome, SweepError, sort_out, sweep
from sb3_pg_ext.plugins import registry
from sb3_pg_ext.plugins.configs import known_hyperparameters
from sb3_pg_ext.zoo import bridge
from sb3_pg_ext.zoo.training import environment_modules, train
from sb3_pg_ext.zoo.user_errors import UserError, suggest

DEFAULTS: dict[str, Any] = {
    "algos": None,
    "envs": None,
    "seeds": None,
    "n_timesteps": None,
    "log_folder": None,
    "settings": {DEFAULT_SETTING: {}},
    "hyperparams": {},
    "conf_file": None,
    "final_episodes": 100,
    "eval_freq": -1,
    "eval_episodes": 10,
    "checkpoint_freq": None,
    "device": "auto",
    "gym_packages": [],
}
"""What a file may set, and what holds where nothing is said."""
PRELOAD = f"{__package__}.preload"
"""What a process from which runs are forked imports, beside environments."""
SEEDS = re.compile(r"(\d+)(?:-(\d+))?")
MIN_CHECKPOINT_FREQ = 10_000
"""Where nobody says otherwise: saving takes as long as some thousand steps in a small environment."""
COUNTS = ("final_episodes", "eval_freq", "eval_episodes", "checkpoint_freq")
LISTED = ("algos", "envs", "gym_packages")


def main() -> None:
    """Make the runs that are missing; exit with status 1 if one has failed, and 130 after Ctrl-C."""
    parser = _make_parser()
    options = parser.parse_args()
    try:
        wanted = read_options(options)
        runs = plan(wanted, command=shlex.join(["sb3-pg", "sweep", *sys.argv[1:]]))
        folder = Path(wanted["log_folder"])
        todo, outcome = sort_out(runs, folder, retry_failed=options.retry_failed, again=options.again)
        if options.dry_run:
            print(_list(todo, outcome, folder))
            return
        executor = _make_executor(options, runs)
    except (UserError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    try:
        outcome = sweep(runs, folder, executor, retry_failed=options.retry_failed, again=options.again)
    except SweepError as error:  # another sweep has made a run with other settings meanwhile
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    raise SystemExit(1 if outcome.failed else 0)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Train algorithms × environments × settings × seeds, each run in a folder of its own with its\n"
        "result.json. The same command goes on where it was interrupted; finished runs stay.",
        epilog="examples:\n"
        "  sb3-pg sweep --algos npg ppo --envs CartPole-v1 Acrobot-v1 --seeds 0-4 -n 100000 -f logs/sweep\n"
        "  sb3-pg sweep --algos npg --envs CartPole-v1 --seeds 0-9 --settings default \\\n"
        "    --settings upgo advantage_estimator:upgo -f logs/estimators\n"
        "  sb3-pg sweep study.yml -f logs/study --ray auto",
    )
    add = parser.add_argument
    add("file", nargs="?", help="a YAML file with any of the options below, by their long names with underscores")
    add("--algos", nargs="+", help="names of algorithms, RL Zoo's own, too")
    add("--envs", nargs="+", help="ids of environments")
    add("--seeds", nargs="+", help="seeds and ranges of them, such as 0-4 or 0 3 7-9")
    add("-n", "--n-timesteps", type=_integer, help="steps of every run (default: as configured)")
    add("-f", "--log-folder", help="where every run gets the folder <algo>[-<setting>]/<env>/seed_<seed>")
    add(
        "--settings",
        nargs="+",
        action="append",
        metavar=("NAME", "KEY:VALUE"),
        help=f"hyper-parameters with a name; may be given several times; {DEFAULT_SETTING!r} changes nothing",
    )
    add("-params", "--hyperparams", nargs="+", metavar="KEY:VALUE", help="hyper-parameters of all runs")
    add("-conf", "--conf-file", help="RL Zoo's file of hyper-parameters, for a single algorithm")
    add("--final-episodes", type=int, help="episodes that the final policy plays (default: 100)")
    add("--eval-freq", type=_integer, help="steps between evaluations on the way (default: none)")
    add("--eval-episodes", type=int, help="episodes of an evaluation on the way (default: 10)")
    add(
        "--checkpoint-freq",
        type=_integer,
        help="steps between checkpoints (default: a tenth, at least 10000)",
    )
    add("--device", help="PyTorch's device (default: auto)")
    add("--gym-packages", nargs="+", help="modules that register environments")
    add("--workers", type=int, help="runs side by side (default: one per core)")
    add("--cpus-per-run", type=int, default=1, help="threads of a run, and cores that it needs (default: 1)")
    add("--ray", nargs="?", const="auto", metavar="ADDRESS", help="make runs on a Ray cluster (default address: auto)")
    add("--gpus-per-run", type=float, default=0.0, help="GPUs that a run needs, or a part of one; with --ray")
    add("--retry-failed", action="store_true", help="go on with runs that have failed, too")
    add("--again", action="store_true", help="make runs anew whose settings have changed, in place of what is there")
    add("--dry-run", action="store_true", help="list what there is to do, and do nothing")
    return parser


def _integer(text: str) -> int:
    try:
        return _as_integer("", text)
    except UserError as error:
        raise ValueError(text) from error


_integer.__name__ = "integer"  # what argparse calls it


def _as_integer(name: str, value: Any) -> int:
    """An integer, 1e5, or a text of either."""
    try:
        if float(value) == int(float(value)):
            return int(float(value))
    except (TypeError, ValueError, OverflowError):
        pass
    raise UserError(f"{name}={value!r}; allowed: an integer")


def read_options(options: argparse.Namespace) -> dict[str, Any]:
    """What the command line says, over what the file says, over what holds by default.

    :param options: the command line
    :raises UserError: if something is missing, or the file is wrong
    """
    given = {key: value for key, value in vars(options).items() if key in DEFAULTS and value is not None}
    if "settings" in given:
        given["settings"] = {name: _parse_pairs("--settings", pairs) for name, *pairs in given["settings"]}
    if "hyperparams" in given:
        given["hyperparams"] = _parse_pairs("-params", given["hyperparams"])
    wanted = {**DEFAULTS, **(_read_file(options.file) if options.file else {}), **given}
    for key in ("algos", "envs", "seeds", "log_folder"):
        if wanted[key] is None or not (wanted[key] or wanted[key] == 0):
            option = "-f" if key == "log_folder" else f"--{key}"
            raise UserError(f"{key}={wanted[key]!r}; allowed: at least one, by {option} or in a file")
    return wanted


def _read_file(path: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {type(content).__name__}; allowed: a mapping with {', '.join(DEFAULTS)}")
    for key in content:
        if key not in DEFAULTS:
            raise UserError(f"{path}: there is no option {key!r}{suggest(str(key), set(DEFAULTS))}")
    for key in LISTED:
        if isinstance(content.get(key), str):
            content[key] = [content[key]]
    for key in ("settings", "hyperparams"):
        if key in content:
            content[key] = _check_mapping(f"{path}: {key}", content[key])
    for name, changes in content.get("settings", {}).items():
        content["settings"][name] = _check_mapping(f"{path}: settings.{name}", changes)
    for key in COUNTS:
        if content.get(key) is not None:
            content[key] = _as_integer(key, content[key])
    return {key: value for key, value in content.items() if value is not None}


def _check_mapping(name: str, value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise UserError(f"{name} is {value!r}; allowed: a mapping")
    return {str(key): _as_number(item) for key, item in (value or {}).items()}


def _as_number(value: Any) -> Any:
    """YAML takes 1e-4, without a dot, for a text."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)
    return value


def _parse_pairs(option: str, pairs: Sequence[str]) -> dict[str, Any]:
    parsed = {}
    for pair in pairs:
        key, colon, text = pair.partition(":")
        if not (key and colon):
            raise UserError(f"{option} {pair}; allowed: KEY:VALUE")
        try:
            parsed[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            parsed[key] = text
    return parsed


def parse_seeds(given: Any) -> list[int]:
    """Seeds from ``"0-4"``, ``"0,3"``, 7, or a list of such, each once.

    :param given: what was given
    :raises UserError: if something in it is no seed
    """
    texts = map(str, given if isinstance(given, list | tuple) else [given])
    seeds: dict[int, None] = {}
    for item in ",".join(texts).split(","):
        found = SEEDS.fullmatch(item.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if last < first or last >= 2**32:
            raise UserError(f"seeds={item!r}; allowed: integers from 0 to 2**32 - 1, and ranges such as 0-4")
        seeds |= dict.fromkeys(range(first, last + 1))
    return list(seeds)


def plan(wanted: Mapping[str, Any], command: str = "") -> list[Run]:
    """The runs of a sweep, seed by seed, so that a sweep that is stopped early has some seeds of everything.

    :param wanted: the options, see ``DEFAULTS``
    :param command: for the records
    :raises UserError: if an environment or an argument is not known
    :raises ValueError: if an algorithm is not known, or a number is out of range
    """
    bridge.install(registry())
    bridge.import_gym_packages(wanted["gym_packages"])
    seeds = parse_seeds(wanted["seeds"])
    check_count("final_episodes", wanted["final_episodes"])
    check_count("eval_episodes", wanted["eval_episodes"], 2)
    if wanted["checkpoint_freq"] is not None:
        check_count("checkpoint_freq", wanted["checkpoint_freq"])
    for algo in wanted["algos"]:
        bridge.require_algorithm(registry(), algo)
    for env_id in wanted["envs"]:
        if env_id not in gym.registry:
            raise UserError(f"There is no environment {env_id!r}{suggest(env_id, set(gym.registry))}")
    variants = [
        (algo, env_id, setting)
        for algo in dict.fromkeys(wanted["algos"])
        for env_id in dict.fromkeys(wanted["envs"])
        for setting in wanted["settings"]
    ]
    entries = {
        (algo, env_id): _read_entry(algo, env_id, _choose_conf_file(algo, wanted))
        for algo in wanted["algos"]
        for env_id in wanted["envs"]
    }
    configured = {variant: _configure(*variant, wanted, *entries[variant[:2]]) for variant in variants}
    return [
        Run(algo, env_id, seed, setting=setting, command=command, **configured[algo, env_id, setting])
        for seed in seeds
        for algo, env_id, setting in variants
    ]


def _configure(
    algo: str, env_id: str, setting: str, wanted: Mapping[str, Any], entry: dict[str, Any], config: str
) -> dict[str, Any]:
    """What a run is trained with: an entry of a file of hyper-parameters, and over it what the sweep changes."""
    if not SETTING_NAME.fullmatch(setting):
        raise UserError(f"settings={setting!r}; allowed: names of letters, digits and any of _ . + = -")
    custom = {**wanted["hyperparams"], **wanted["settings"][setting]}
    known = known_hyperparameters(ALGOS[algo])
    for key in custom:
        if key not in known:
            raise UserError(f"{algo} has no argument {key!r}{suggest(key, known)}")
    n_timesteps = custom.pop("n_timesteps", wanted["n_timesteps"])
    if isinstance(n_timesteps, dict):
        check_choice("n_timesteps", env_id, n_timesteps)
        n_timesteps = n_timesteps[env_id]
    steps = _as_integer("n_timesteps", entry["n_timesteps"] if n_timesteps is None else n_timesteps)
    check_count("n_timesteps", steps)
    hyperparameters = {**entry, **custom, "n_timesteps": steps}
    return {
        "n_timesteps": steps,
        "hyperparameters": hyperparameters,
        "options": {key: wanted[key] for key in ("final_episodes", "eval_freq", "eval_episodes", "device")},
        "details": {
            "gym_packages": wanted["gym_packages"],
            "config": config,
            "checkpoint_freq": wanted["checkpoint_freq"] or max(MIN_CHECKPOINT_FREQ, steps // 10),
        },
    }


def _read_entry(algo: str, env_id: str, conf_file: str | None) -> tuple[dict[str, Any], str]:
    """The entry for an environment, as RL Zoo reads it, and the file that it stands in."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        manager = bridge.PluginExperimentManager(argparse.Namespace(), algo, env_id, "", config=conf_file)
        return manager.read_hyperparameters()[0], manager.config


def _choose_conf_file(algo: str, wanted: Mapping[str, Any]) -> str | None:
    given = wanted["conf_file"]
    if isinstance(given, dict):
        for name in given:
            check_choice("conf_file", name, wanted["algos"])
        return given.get(algo)
    if given is not None and len(wanted["algos"]) > 1:
        raise UserError(f"conf_file={given!r} for {len(wanted['algos'])} algorithms; allowed: a mapping, in a file")
    return given


def _make_executor(options: argparse.Namespace, runs: Sequence[Run]) -> Executor:
    check_count("cpus_per_run", options.cpus_per_run)
    check_range("gpus_per_run", options.gpus_per_run, 0)
    if options.ray is not None:
        return _connect(options)
    if options.gpus_per_run:
        raise UserError(f"gpus_per_run={options.gpus_per_run:g} without --ray; allowed: --device cuda")
    n_workers = options.workers
    if n_workers is None:
        n_workers = max(1, _count_cores() // options.cpus_per_run)
    check_count("workers", n_workers)
    modules = [PRELOAD, *runs[0].details["gym_packages"], *environment_modules([run.env for run in runs])]
    return LocalProcesses(train, n_workers, options.cpus_per_run, modules)


def _count_cores() -> int:
    """Those that this process may use, as far as the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _connect(options: argparse.Namespace) -> Executor:
    if options.workers is not None:
        raise UserError(f"workers={options.workers} with --ray; allowed: --cpus-per-run, of which the cluster has many")
    try:
        from sb3_pg_ext.evaluation.on_ray import RayTasks
    except ModuleNotFoundError as error:
        raise UserError(f'--ray needs {error.name}: pip install "sb3_pg_ext[ray]"') from error
    try:
        return RayTasks(train, options.ray, options.cpus_per_run, options.gpus_per_run)
    except ConnectionError as error:
        raise UserError(f"--ray {options.ray}: {' '.join(str(error).split())}") from error


def _list(todo: Sequence[Run], outcome: Outcome, folder: Path) -> str:
    begun = [run for run in todo if checkpoints(folder / run.name / CHECKPOINT_FOLDER)]
    new = [run for run in todo if run not in begun]
    kinds = {"new": new, "begun": begun, **vars(outcome)}
    lines = [f"{word.ljust(8)}  {run.title}" for word, runs in kinds.items() for run in runs]
    return "\n".join([*lines, ", ".join(f"{len(runs)} {word}" for word, runs in kinds.items())])
