"""What the shipped configurations reach: train each with several seeds by ``sb3-pg sweep``, tabulate, plot.

    python benchmarks/learning.py reinforce --seeds 0 1 2 3 4
    python benchmarks/learning.py npg --beside fast_trpo --plot docs/images/npg.png
    python benchmarks/learning.py npg --show      # the runs that are finished; none is made

Runs are made in ``logs/learning``, where an interrupted one goes on. A finished run becomes one line of
``benchmarks/results/learning/<algo>.jsonl``; a run whose configuration has changed since is made again. The score of a
run is the mean return of 100 greedy episodes of the final policy; on the way, at every twentieth of the training, 10
greedy episodes are played.

What to compare with is configured in ``benchmarks/peers/<algo>.yml``: stock algorithms, and other settings of ours as
``<algo>-<setting>.yml``. Published numbers stand in ``benchmarks/published.yml``.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import yaml
from matplotlib.axes import Axes
from runs import Run, read, spaced
from scipy import stats

from sb3_pg_ext.evaluation.processes import LocalProcesses
from sb3_pg_ext.evaluation.records import Result, read_result
from sb3_pg_ext.evaluation.statistics import iqm
from sb3_pg_ext.evaluation.sweep import sweep
from sb3_pg_ext.plugins import AlgorithmSpec, registry
from sb3_pg_ext.plugins.configs import find_config
from sb3_pg_ext.zoo.sweep import DEFAULTS, PRELOAD, plan
from sb3_pg_ext.zoo.training import train

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "learning"
FOLDER = HERE.parent / "logs" / "learning"
"""Where runs are made."""
N_EPISODES = 100
N_POINTS = 100
N_EVALUATIONS = 20
N_EPISODES_ON_THE_WAY = 10
FIRST_FRESH_SEED = 10
"""Configurations are chosen with seeds below."""
COLORS = ("tab:red", "tab:blue", "tab:green", "tab:purple")


def peer_config(algo: str) -> Path:
    """Where the configurations of a peer are."""
    return HERE / "peers" / f"{algo}.yml"


def configurations(algo: str) -> dict[str, dict[str, Any]]:
    """The configurations by environment, without ``default`` and ``atari`` and without v5 where there is v4."""
    peer = peer_config(algo)
    files = [peer] if peer.exists() else map(find_config, registry().find(AlgorithmSpec, algo).configs)
    entries: dict[str, dict[str, Any]] = {}
    for file in files:  # the first that has an entry counts
        entries = yaml.safe_load(file.read_text()) | entries
    special = ("default", "atari")
    others = {name.removesuffix("4") + "5" for name in entries if name.endswith("-v4")}
    return {name: entry for name, entry in entries.items() if name not in special and name not in others}


def folder(algo: str) -> Path:
    """Where its runs are made: apart for another setting of an algorithm."""
    return FOLDER / algo if "-" in algo else FOLDER


def published(algo: str) -> dict[str, Any]:
    """Published scores: where they are from, and by environment and step the mean and its standard deviation."""
    return yaml.safe_load((HERE / "published.yml").read_text()).get(algo, {"source": "", "scores": {}})


def options(algo: str, env_id: str, seeds: Iterable[int], config: dict[str, Any]) -> dict[str, Any]:
    """What to train, as ``sb3-pg sweep`` takes it."""
    chosen: dict[str, Any] = {"algos": [algo.split("-")[0]], "envs": [env_id], "seeds": list(seeds)}
    chosen |= {"log_folder": str(folder(algo))}
    chosen |= {"final_episodes": N_EPISODES, "eval_episodes": N_EPISODES_ON_THE_WAY}
    chosen |= {"eval_freq": int(float(config["n_timesteps"])) // N_EVALUATIONS}
    if peer_config(algo).exists():
        chosen["conf_file"] = str(peer_config(algo))
    return chosen


def command(chosen: dict[str, Any]) -> str:
    """The same on the command line, from the project's folder."""
    words = ["sb3-pg", "sweep"]
    for key, value in chosen.items():
        words.append("-f" if key == "log_folder" else "--" + key.replace("_", "-"))
        words += [str(each).removeprefix(f"{HERE.parent}/") for each in (value if isinstance(value, list) else [value])]
    return " ".join(words)


def make(algo: str, tasks: dict[str, list[int]], n_workers: int) -> None:
    """Make runs, and append those that have finished to the file of the algorithm, whatever becomes of the others.

    :param algo: the Zoo id
    :param tasks: seeds by environment
    :param n_workers: runs side by side
    """
    configs = configurations(algo)
    runs = [
        run
        for env_id, seeds in tasks.items()
        for chosen in [options(algo, env_id, seeds, configs[env_id])]
        for run in plan({**DEFAULTS, **chosen}, command(chosen))
    ]
    try:
        sweep(runs, folder(algo), LocalProcesses(train, n_workers, modules=[PRELOAD]), retry_failed=True, again=True)
    finally:
        RESULTS.mkdir(parents=True, exist_ok=True)
        with (RESULTS / f"{algo}.jsonl").open("a") as file:
            for run in runs:
                path = folder(algo) / run.name / "result.json"
                if path.exists() and (record := read_result(path))["status"] == "finished":
                    file.write(json.dumps(summary(record, configs[run.env])) + "\n")


def summary(record: Result, config: dict[str, Any]) -> Run:
    """A finished run, in a line: its score, and what it earned on the way."""
    returns = record["evaluation"]["returns"]
    steps, earned = np.array(record["curve"]["timesteps"]), np.array(record["curve"]["returns"])
    edges = np.linspace(0, steps[-1], N_POINTS + 1)
    bins = np.clip(np.searchsorted(edges, steps, side="left") - 1, 0, N_POINTS - 1)
    return {
        "env": record["env"],
        "seed": record["seed"],
        "config": config,
        "command": record["command"],
        "seconds": round(record["seconds"], 1),
        "mean": round(float(np.mean(returns)), 3),
        "sd": round(float(np.std(returns)), 3),
        "curve": [[round(edges[i + 1]), round(float(earned[bins == i].mean()), 2)] for i in np.unique(bins)],
        "evaluations": [
            [each["timesteps"], round(float(np.mean(each["returns"])), 2)] for each in record["evaluations"]
        ],
        "versions": record["versions"],
    }


def shipped_runs(algo: str) -> list[Run]:
    """The finished runs whose configuration is still the shipped one."""
    current = configurations(algo)
    shipped = (run for run in read(RESULTS / f"{algo}.jsonl") if current.get(run["env"]) == run["config"])
    return list({(run["env"], run["seed"]): run for run in shipped}.values())


def load_runs(algo: str) -> list[Run]:
    """The runs that count: where a task has two seeds or more on which nothing was tuned, only those."""
    runs = shipped_runs(algo)
    fresh = Counter(run["env"] for run in runs if run["seed"] >= FIRST_FRESH_SEED)
    return [run for run in runs if run["seed"] >= FIRST_FRESH_SEED or fresh[run["env"]] < 2]


def interval(scores: list[float]) -> float:
    """Half the width of Student's 95 % confidence interval of the mean."""
    return float(stats.t.ppf(0.975, len(scores) - 1) * stats.sem(scores)) if len(scores) > 1 else float("nan")


def written(scores: list[float]) -> str:
    """Their mean, with its interval if there are several."""
    return "" if not scores else f"{np.mean(scores):.1f}" + (f" ± {interval(scores):.1f}" if len(scores) > 1 else "")


def table(algo: str, runs: list[Run]) -> str:
    """A Markdown table: mean over seeds with its 95 % interval, IQM, the worst and the best seed, best evaluation."""
    lines = [
        "| environment | steps | seeds | return, mean ± 95 % | IQM | worst | best | best on the way |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for env_id, config in configurations(algo).items():
        chosen = [run for run in runs if run["env"] == env_id]
        if chosen:
            scores = [run["mean"] for run in chosen]
            middle = f"{iqm(scores):.1f}" if len(scores) > 3 else ""
            cells = (env_id, spaced(config["n_timesteps"]), ranges(run["seed"] for run in chosen), written(scores))
            ends = (f"{min(scores):.1f}", f"{max(scores):.1f}")
            lines.append(row(*cells, middle, *ends, written(best_on_the_way(chosen))))
    return "\n".join(lines)


def ranges(numbers: Iterable[int]) -> str:
    """Whole numbers as people write them: 0, 1, 2, 4 is 0–2, 4."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}–{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def row(*cells: object) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def best_on_the_way(runs: list[Run]) -> list[float]:
    """The best evaluation of every run that has some."""
    return [max(y for _, y in run["evaluations"]) for run in runs if "evaluations" in run]


def by_seed(algo: str, runs: list[Run], best: bool = False) -> str:
    """A Markdown table of every seed's score, or of its best evaluation on the way, and of all in ascending order.

    :param algo: whose configurations give the rows their order
    :param runs: its runs
    :param best: the best evaluations
    """
    seeds = sorted({run["seed"] for run in runs})
    heads = ["environment", "least", "most", "ascending", *(f"seed {seed}" for seed in seeds)]
    lines = [row(*heads), "|---" * len(heads) + "|"]
    for env_id in configurations(algo):
        chosen = {run["seed"]: run for run in runs if run["env"] == env_id}
        if chosen:
            scores = {seed: best_on_the_way([run])[0] if best else run["mean"] for seed, run in chosen.items()}
            cells = (f"{scores[seed]:.1f}" if seed in scores else "" for seed in seeds)
            lines.append(row(env_id, *in_order(list(scores.values())), *cells))
    return "\n".join(lines)


def in_order(scores: list[float]) -> tuple[str, str, str]:
    """The least, the most, and all in ascending order."""
    ascending = [f"{score:.1f}" for score in sorted(scores)]
    return ascending[0], ascending[-1], ", ".join(ascending)


def trials(algo: str) -> str:
    """A Markdown table of the runs with other settings than the shipped ones: what was tried on the way.

    Settings are in alphabetical order.
    """
    current = configurations(algo)
    tried: dict[tuple[str, str], dict[int, Run]] = {}
    for run in read(RESULTS / f"{algo}.jsonl"):
        if run["config"] != current[run["env"]]:
            tried.setdefault((run["env"], other_settings(run["config"], current[run["env"]])), {})[run["seed"]] = run
    heads = ["environment", "settings", "seeds", "mean", "least", "most", "ascending", "best on the way, ascending"]
    lines = [row(*heads), "|---" * len(heads) + "|"]
    for (env_id, settings), runs in tried.items():
        scores, (*_, best) = [run["mean"] for run in runs.values()], in_order(best_on_the_way([*runs.values()]))
        seeds = ", ".join(map(str, sorted(runs)))
        lines.append(row(env_id, settings, seeds, f"{np.mean(scores):.1f}", *in_order(scores), best))
    return "\n".join(lines)


def mended(algo: str, runs: list[Run]) -> str:
    """A Markdown table of tasks on which several seeds of a former configuration have run: how it ended, and how the
    shipped one does.

    :param algo: the algorithm
    :param runs: its runs with the shipped configurations
    """
    everything = read(RESULTS / f"{algo}.jsonl")
    before = ["seeds before", "mean before", "worst before", "best on the way before"]
    heads = ["environment", *before, "seeds now", "mean now", "worst now"]
    lines = [row(*heads), "|---" * len(heads) + "|"]
    for env_id, config in configurations(algo).items():
        now = [run for run in runs if run["env"] == env_id]
        of_task = [run for run in everything if run["env"] == env_id]
        configs = [run["config"] for run in of_task]
        earlier = of_task[: configs.index(config)] if config in configs else []
        latest = {run["seed"]: run for run in earlier if run["config"] == earlier[-1]["config"]}
        former = list(latest.values())
        if now and len(former) > 1:
            lines.append(row(env_id, *ends(former), written(best_on_the_way(former)), *ends(now)))
    return "\n".join(lines)


def ends(runs: list[Run]) -> tuple[str, str, str]:
    """Cells of some runs of a task: their seeds, the mean and the worst score."""
    scores = [run["mean"] for run in runs]
    return ranges(run["seed"] for run in runs), written(scores), f"{min(scores):.1f}"


def other_settings(config: dict[str, Any], shipped: dict[str, Any]) -> str:
    """In which settings a configuration is not the shipped one."""
    changed = [key for key in sorted({*config, *shipped}) if config.get(key) != shipped.get(key)]
    return ", ".join(f"`{key}={config[key]}`" if key in config else f"no `{key}`" for key in changed)


def side_by_side(runs: dict[str, list[Run]], final: bool = True, best: bool = True) -> str:
    """A Markdown table of several algorithms: final scores and the best evaluations on the way, mean over seeds ± 95 %.

    :param runs: the runs by algorithm, the first being the one in question
    :param final: with final scores
    :param best: with the best evaluations
    """
    columns = list(runs) if final else []
    columns += [f"{algo}, best on the way" if final else algo for algo in runs] if best else []
    heads = ["environment", "steps", "seeds", *columns]
    lines = [row(*heads), "|---" * len(heads) + "|"]
    for env_id in configurations(next(iter(runs))):
        chosen = [[run for run in algo_runs if run["env"] == env_id] for algo_runs in runs.values()]
        if chosen[0] and any(chosen[1:]):
            budgets = [int(run["config"]["n_timesteps"]) for run, *_ in filter(None, chosen)]
            steps = ", ".join(f"{n // 1000}k" for n in budgets) if len({*budgets}) > 1 else spaced(budgets[0])
            scores = [written([run["mean"] for run in algo_runs]) for algo_runs in chosen]
            highest = [written(best_on_the_way(algo_runs)) for algo_runs in chosen]
            seeds = ", ".join(str(len(algo_runs)) for algo_runs in chosen)
            cells = (scores if final else []) + (highest if best else [])
            lines.append(row(env_id, steps, seeds, *cells))
    return "\n".join(lines)


def race(algo: str, peer: str, runs: dict[str, list[Run]]) -> str:
    """A Markdown table of the steps after which greedy returns on the way first are what the peer has in the end.

    That is the mean of the peer's last evaluations, over seeds. The mean over the seeds that come so far ± 95 %, and
    how many of them do.

    :param algo: the algorithm in question
    :param peer: whom it is compared with
    :param runs: the runs by algorithm
    """
    lines = [row("environment", f"return of {peer}", algo, peer), "|---|---|---|---|"]
    for env_id in configurations(algo):
        sides = [[run for run in runs[side] if run["env"] == env_id and "evaluations" in run] for side in (algo, peer)]
        if all(sides):
            goal = float(np.mean([run["evaluations"][-1][1] for run in sides[1]]))
            lines.append(row(env_id, f"{goal:.1f}", *(steps_to(goal, side) for side in sides)))
    return "\n".join(lines)


def steps_to(goal: float, runs: list[Run]) -> str:
    """The cell of a race: steps to a return, and how many runs come so far."""
    firsts = [next((x for x, y in run["evaluations"] if y >= goal), None) for run in runs]
    steps = [first for first in firsts if first is not None]
    if not steps:
        return f"none of {len(runs)}"
    spread = f" ± {spaced(interval(steps))}" if len(steps) > 1 else ""
    return f"{spaced(np.mean(steps))}{spread} ({len(steps)} of {len(runs)})"


def comparison(runs: dict[str, list[Run]]) -> str:
    """A Markdown table of greedy returns on the way, of several algorithms and beside what is published.

    :param runs: the runs by algorithm, the first being the one in question
    """
    algo = next(iter(runs))
    reference = published(algo)
    lines = [row("environment", "steps", *runs, reference["source"]), "|---" * (3 + len(runs)) + "|"]
    for env_id, config in configurations(algo).items():
        known = reference["scores"].get(env_id, {})
        budget = int(config["n_timesteps"])
        evaluated = range(budget // N_EVALUATIONS, budget + 1, budget // N_EVALUATIONS)
        for steps in [step for step in evaluated if step in known or step == budget]:
            cells = [written(scores_at(steps, env_id, algo_runs)) for algo_runs in runs.values()]
            if not any(cells):
                continue
            mean, *deviation = known.get(steps, [""])
            cells.append(f"{mean} (sd {deviation[0]})" if deviation else str(mean))
            lines.append(row(env_id, spaced(steps), *cells))
    return "\n".join(lines)


def scores_at(steps: int, env_id: str, runs: list[Run]) -> list[float]:
    """What every seed's evaluation at that step gave."""
    chosen = (run.get("evaluations", []) for run in runs if run["env"] == env_id)
    return [y for evaluations in chosen for x, y in evaluations if x == steps]


def plot(runs: dict[str, list[Run]], path: Path) -> None:
    """Learning curves: the mean return over seeds with its 95 % interval, against steps.

    Returns are those of the evaluations on the way; of older runs, which have none, those of the training.
    """
    algo = next(iter(runs))
    env_ids = [env_id for env_id in configurations(algo) if any(run["env"] == env_id for run in runs[algo])]
    columns = min(3, len(env_ids))
    rows = -(-len(env_ids) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(4 * columns, 3 * rows), layout="constrained", squeeze=False)
    for axes in grid.flat[len(env_ids) :]:
        axes.remove()
    reference = published(algo)
    for axes, env_id in zip(grid.flat, env_ids, strict=False):
        for (name, algo_runs), color in zip(runs.items(), COLORS, strict=False):
            chosen = [run for run in algo_runs if run["env"] == env_id]
            if chosen:
                draw_curves(axes, chosen, f"{name}, seeds: {len(chosen)}", color)
        known = reference["scores"].get(env_id, {})
        known = {steps: known[steps] for steps in known if steps <= axes.get_xlim()[1]}
        if known:
            means, deviations = zip(*((mean, *rest, 0)[:2] for mean, *rest in known.values()), strict=True)
            axes.errorbar(list(known), means, deviations, fmt="x", color="black", capsize=3, label=reference["source"])
        axes.set(title=env_id, xlabel="environment steps")
        axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:.0f}k")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    greedy = all("evaluations" in run for algo_runs in runs.values() for run in algo_runs)
    figure.supylabel("return of greedy episodes" if greedy else "training return")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_curves(axes: Axes, runs: list[Run], label: str, color: str) -> None:
    """Draw the mean of some seeds' curves, with its interval where there are enough of them to tell."""
    curves = [np.array(run.get("evaluations") or run["curve"]) for run in runs]
    steps = np.linspace(max(curve[0, 0] for curve in curves), min(curve[-1, 0] for curve in curves), N_POINTS)
    returns = np.stack([np.interp(steps, *curve.T) for curve in curves])
    mean = returns.mean(0)
    axes.plot(steps, mean, color=color, label=label)
    if len(curves) > 2:
        half = np.array([interval(list(column)) for column in returns.T])
        axes.fill_between(steps, mean - half, mean + half, color=color, alpha=0.2, linewidth=0)


def main() -> None:
    """Make the runs that are missing, then print the table and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algo", help="the Zoo id, for example reinforce, or the name of a peer")
    parser.add_argument("--envs", nargs="+", help="some environments (default: all with a configuration)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--beside", nargs="+", default=[], help="other algorithms, whose finished runs are shown as well"
    )
    parser.add_argument("--workers", type=int, default=2, help="runs side by side (default: 2)")
    parser.add_argument("--plot", type=Path, help="where the figure goes, as PNG")
    parser.add_argument("--show", action="store_true", help="make no runs: show those that are finished")
    arguments = parser.parse_args()
    algo = arguments.algo
    done = {(run["env"], run["seed"]) for run in shipped_runs(algo)}
    tasks = {
        env_id: [seed for seed in arguments.seeds if (env_id, seed) not in done]
        for env_id in arguments.envs or configurations(algo)
    }
    tasks = {env_id: seeds for env_id, seeds in tasks.items() if seeds}
    if tasks and not arguments.show:
        make(algo, tasks, arguments.workers)
    runs = {algo: load_runs(algo) for algo in (algo, *arguments.beside)}
    print(table(algo, runs[algo]))
    if arguments.beside:
        print()
        print(side_by_side(runs))
        for peer in arguments.beside:
            print()
            print(race(algo, peer, runs))
    if published(algo)["scores"]:
        print()
        print(comparison(runs))
    if arguments.plot:
        plot(runs, arguments.plot)


if __name__ == "__main__":
    main()
