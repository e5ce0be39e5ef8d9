"""The measured numbers on the pages, in tables and in sentences, made from files of results.

    python benchmarks/tables.py            # make all of them anew, in place
    python benchmarks/tables.py --check    # only say which differ from their data; status 1 if some do

Above such a table stands a comment that names it, with its arguments: ``<!-- table: learning npg -->``. Before a number
in a sentence stands one that names a table, a column and a row: ``<!-- value: learning npg | worst | Hopper-v4 -->``.
The column and the row are given by how they begin. What follows, ``-82.8``, ``-82.8 ± 3.8``, ``1.30 (1.14 to 1.38)``,
``981, 988 and 1026``, is made of the numbers of that cell in turn, each with as many decimals as are there; only
``-82`` becomes -83. A list has to have all of the cell's numbers. No such comment begins a line, where Markdown would
end the paragraph.

Nothing is trained or measured here: the numbers are those in ``benchmarks/results``.
"""

# ruff: noqa: E402

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
sys.path[:0] = [str(ROOT / "examples")]  # a study lies there

import actor_critic_bias
import actors
import asynchrony
import decision_table
import engines
import equal_time
import failures
import interval_coverage
import learning
import natural_gradients
import ppo_surrogates
import printed
import rivals
import score_and_reparametrization
import simulators
import streaming
import throughput
import usable
import variance_of_baselines
import wallclock
from runs import read, spaced

MARKED = re.compile(r"(<!-- table: ([^>]+?) -->\n)((?:\|.*\n)*)")
"""A comment, and the table under it."""

NUMBER = r"[-−]?\d+(?: \d{3})*(?:\.\d+)?"
MORE = rf"\s+±\s+{NUMBER}|\s+\({NUMBER}(?:\s+to\s+|–){NUMBER}\)|(?:,\s+{NUMBER})*\s+and\s+{NUMBER}"
VALUE = re.compile(rf"(<!--\s+value:((?:(?!-->)[\s\S])+)-->\s?)({NUMBER}(?:{MORE})?)")
"""A comment, and the numbers after it."""


def pages() -> list[Path]:
    """Where tables are."""
    return sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])


def stored(name: str) -> Any:
    """A file of results, if it is a single document."""
    return json.loads((RESULTS / name).read_text())


def ratios(columns: Sequence[tuple[str, int]], names: Sequence[str]) -> str:
    """Some comparisons of :mod:`throughput`, made on the CPU, in some columns."""
    chosen = [
        result
        for result in stored("throughput.json")["results"]
        if result["comparison"] in names
        and (result["env"], result["n_envs"]) in columns
        and result.get("device", "cpu") == "cpu"
    ]
    return throughput.table(chosen, speeds=False)


def variance(study: str, **settings: Any) -> list[dict[str, Any]]:
    """The lines of a study of variance, with the settings that are current."""
    tasks = [task for task in variance_of_baselines.make_tasks(quick=False) if task["study"] == study]
    lines = [variance_of_baselines.find(task, RESULTS / "variance") for task in tasks]
    return [line for line in lines if line and settings.items() <= line.items()]


def surrogates(raw: str) -> str:
    """Scores, or returns themselves, of the surrogates of PPO after 300 000 steps."""
    chosen = ppo_surrogates.select(read(ppo_surrogates.RESULTS), 300_000, ppo_surrogates.ENV_IDS, [0, 1, 2])
    scores = ppo_surrogates.normalized(chosen)
    return ppo_surrogates.raw_table(chosen, list(scores)) if raw == "returns" else ppo_surrogates.table(scores)


def peers(make: Callable[..., str], algos: Sequence[str], **arguments: Any) -> str:
    """A table of several algorithms."""
    return make({algo: learning.load_runs(algo) for algo in algos}, **arguments)


def minatar(*algos: str) -> str:
    """Returns after five million frames: the mean over seeds ± 95 % and every seed's, beside published means."""
    sources = [learning.published(name) for name in ("minatar-ac", "minatar-dqn")]
    heads = ["game", *(f"`{algo}`" for algo in algos), *(source["source"] for source in sources)]
    lines = [learning.row(*heads), "|---" * len(heads) + "|"]
    runs = {algo: learning.load_runs(algo) for algo in algos}
    for env_id in sources[0]["scores"]:
        scores = [[run["mean"] for run in runs[algo] if run["env"] == env_id] for algo in algos]
        if any(scores):
            cells = [f"{learning.written(each)} ({', '.join(f'{score:.1f}' for score in each)})" for each in scores]
            cells += [str(source["scores"][env_id][5_000_000][0]) for source in sources]
            lines.append(learning.row(env_id.removeprefix("MinAtar/").removesuffix("-v0"), *cells))
    return "\n".join(lines)


def fuzzing() -> str:
    """What reading spoilt files safely came to, all runs of :mod:`fuzzing` together."""
    runs = read(RESULTS / "fuzzing.jsonl")
    minutes, of_processor = (sum(run[key] for run in runs) / 60 for key in ("seconds", "processor_seconds"))
    readings = sum(sum(run["outcomes"].values()) for run in runs)
    errors = sum(run["outcomes"]["clear error"] for run in runs)
    cells = [
        *("of all", spaced(sum(run["files"] for run in runs)), spaced(readings), spaced(errors)),
        *(f"{minutes:.0f}", f"{of_processor:.1f}", f"{max(run['longest_seconds'] for run in runs):.2f}"),
        *(max(run["megabytes"] for run in runs), sum(len(run["ran"]) for run in runs)),
    ]
    heads = ["all runs", "files", "read", "clear errors", "minutes", "of the processor", "longest, s", "MB", "ran"]
    return "\n".join([learning.row(*heads), "|---" * len(heads) + "|", learning.row(*cells)])


USUAL = [name for name in throughput.COMPARISONS if name != "vec_env"]
TABLES: dict[str, Callable[..., str]] = {
    "learning": lambda algo: learning.table(algo, learning.load_runs(algo)),
    "comparison": lambda *algos: peers(learning.comparison, algos),
    "final": lambda *algos: peers(learning.side_by_side, algos, best=False),
    "best": lambda *algos: peers(learning.side_by_side, algos, final=False),
    "side_by_side": lambda *algos: peers(learning.side_by_side, algos),
    "race": lambda algo, peer: learning.race(algo, peer, {each: learning.load_runs(each) for each in (algo, peer)}),
    "by_seed": lambda algo: learning.by_seed(algo, learning.load_runs(algo)),
    "best_by_seed": lambda algo: learning.by_seed(algo, learning.load_runs(algo), best=True),
    "trials": learning.trials,
    "mended": lambda algo: learning.mended(algo, learning.load_runs(algo)),
    "failures": failures.table,
    "fuzzing": fuzzing,
    "decision_table": decision_table.table,
    "usable": usable.table,
    "throughput": lambda *names: ratios(
        [*throughput.COLUMNS, ("Pendulum-v1", 1)], [*names] or [*USUAL, "naf", "naf-autograd", "sac_v"]
    ),
    "masks": lambda: (
        ratios(throughput.MASKED, ["maskable_ppo", "maskable_ppo-autograd"])
        .replace("Masked20-v0 × 8", "20 actions, 8 environments")
        .replace("Masked200-v0 × 8", "200 actions, 8 environments")
    ),
    "threads": lambda: throughput.threads_table(stored("threads.json")["results"]),
    "directions": lambda: natural_gradients.table(stored("natural_gradients.json")),
    "memory": lambda: throughput.memory_table(stored("memory.json")["results"]),
    "printed": printed.table,
    "rivals": lambda: rivals.table(stored("rivals.json")),
    "engines": lambda: engines.table(read(engines.RESULTS)),
    "actors": lambda: actors.learning_table(read(actors.RESULTS)),
    "asynchrony": lambda: asynchrony.learning_table(read(asynchrony.RESULTS)),
    "equal_time": lambda: equal_time.table(stored("equal_time.json")),
    "actor_critic_bias": lambda: actor_critic_bias.table(
        stored("actor_critic_bias.json")["bias and standard deviation"]
    ),
    "streaming": lambda name: streaming.MEASUREMENTS[name][1](stored("streaming.json")[name]),
    "simulators": lambda: simulators.table(stored("simulators.json")),
    "simulators_growth": lambda: simulators.growth_table(stored("simulators.json")),
    "simulators_profile": lambda: simulators.profile_table(stored("simulators.json")),
    "wallclock": lambda: wallclock.table(wallclock.finished(wallclock.RESULTS)),
    "coverage": lambda: interval_coverage.markdown(stored("coverage.json")["records"]),
    "minatar": minatar,
    "ppo_surrogates": surrogates,
    "variance": lambda env: variance_of_baselines.variance_table(env, variance("variance", env=env)),
    "batch_size": lambda *sizes: variance_of_baselines.batch_size_table(
        [line for line in variance("batch_size") if str(line["n_episodes"]) in sizes]
    ),
    "variance_learning": lambda env: variance_of_baselines.learning_table(variance("learning", env=env)),
    "variance_of_actions": lambda: variance_of_baselines.actions_table(
        {line["env"]: variance("actions", env=line["env"]) for line in variance("actions")}
    ),
    "variance_parts": lambda env: variance_of_baselines.parts_table({env: variance("parts", env=env)}),
    "score_functions": lambda: variance_of_baselines.speed_table(variance("speed")),
    "score_and_reparametrization": lambda: score_and_reparametrization.table(stored("variance/roughness.json")),
    "crossings": lambda: score_and_reparametrization.crossing_table(stored("variance/roughness.json")),
    "score_in_sac_v": lambda: score_and_reparametrization.sac_table(stored("variance/roughness.json")),
}
"""What a comment may name."""


@cache
def made(name: str, *arguments: str) -> str:
    """A table, made from its data."""
    return without_empty_columns(TABLES[name](*arguments))


def the_one(start: str, candidates: Sequence[str]) -> int:
    """Which of some texts is given, by the whole of it or its first cells, or by how it alone begins.

    :raises ValueError: if that is none, or several
    """
    found = [i for i, each in enumerate(candidates) if f"{each} |".startswith(f"{start} |")]
    found = found or [i for i, each in enumerate(candidates) if each.startswith(start)]
    if len(found) != 1:
        raise ValueError(f"{start!r} has to be one of {', '.join(candidates)}")
    return found[0]


def looked_up(key: str) -> list[str]:
    """The numbers of a cell: ``learning npg | worst | Hopper-v4``."""
    table, column, row = (part.strip() for part in " ".join(key.split()).split(" | ", 2))
    head, _, *lines = made(*table.split()).splitlines()
    rows = [line.strip("| ") for line in lines]
    cell = printed.cells(lines[the_one(row, rows)])[the_one(column, printed.cells(head))]
    return re.findall(NUMBER, cell)


def rounded(number: str, like: str) -> str:
    """A number with as many decimals as another one, and with its sign."""
    decimals = len(like.partition(".")[2])
    if decimals < len(number.partition(".")[2]):
        number = f"{float(number.replace(' ', '').replace('−', '-')):.{decimals}f}"
    return number.replace("-", "−") if "−" in like else number


def without_empty_columns(table: str) -> str:
    """A table without the columns that have nothing but a head."""
    rows = [line.strip("|").split("|") for line in table.splitlines()]
    filled = [i for i in range(len(rows[0])) if any(row[i].strip() for row in rows[2:])]
    return "".join(f"|{'|'.join(row[i] for i in filled)}|\n" for row in rows)


def renewed(text: str) -> str:
    """A page with its tables and values made anew."""

    def table(match: re.Match[str]) -> str:
        return match[1] + made(*match[2].split())

    def value(match: re.Match[str]) -> str:
        numbers, n_named = looked_up(match[2]), len(re.findall(NUMBER, match[3]))
        if n_named > len(numbers) or (" and " in " ".join(match[3].split()) and n_named != len(numbers)):
            raise ValueError(f"{match[3]!r} has to have all of {', '.join(numbers)}: {match[2].strip()}")
        in_turn = iter(numbers)
        return match[1] + re.sub(NUMBER, lambda old: rounded(next(in_turn), old[0]), match[3])

    return VALUE.sub(value, MARKED.sub(table, text))


def main(arguments: Sequence[str] | None = None) -> None:
    """Make, or check, all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    differing = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if (new := renewed(text)) != text:
            differing.append(page)
            print(f"{page.relative_to(ROOT)}: {'differs from its data' if options.check else 'made anew'}")
            if not options.check:
                page.write_text(new, encoding="utf-8")
    if options.check and differing:
        sys.exit(1)


if __name__ == "__main__":
    main()
