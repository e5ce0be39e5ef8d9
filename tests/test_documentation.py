"""The pages are narrow, their links lead somewhere, and what they name exists."""

import ast
import importlib
import re
import sys
import textwrap
import unicodedata
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/[a-z]*/**/*.md"), *ROOT.glob("examples/**/*.md")]
)
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
FOLDERS = ("sb3_pg_ext", "benchmarks", "docs", "examples", "tests", "zoo_configs")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.*)$", prose(page), re.MULTILINE)
    return {anchor(heading) for heading in headings}


def anchor(heading: str) -> str:
    kept = (c for c in heading.lower() if c in " -_" or unicodedata.category(c)[0] in "LN")
    return "".join(kept).replace(" ", "-")


def names(page: Path) -> list[str]:
    """What stands in backticks, line breaks within it apart."""
    return [" ".join(name.split()) for name in re.findall(r"`([^`]+)`", prose(page))]


def test_the_project_has_pages():
    assert {page.name for page in PAGES} >= {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "engines.md", "zoo.md"}


@each_page
def test_no_line_is_too_wide(page):
    lines = enumerate(page.read_text(encoding="utf-8").splitlines(), start=1)
    assert [number for number, line in lines if len(line) > 120] == []


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("What is learned is the same", "what-is-learned-is-the-same"),
        ("Clipping or a penalty?", "clipping-or-a-penalty"),
        ("Differences from SB3's `PPO`, n_steps", "differences-from-sb3s-ppo-n_steps"),
    ],
)
def test_anchors_are_githubs(heading, expected):
    assert anchor(heading) == expected


@each_page
def test_every_link_within_the_project_leads_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", prose(page)):
        path, _, fragment = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if fragment:
            assert fragment in anchors(linked), target


@each_page
def test_every_file_named_exists(page):
    """Files and folders of the project, in backticks or in commands; ``*`` stands for anything."""
    commands = re.findall(r"python3? (\S+\.py)", page.read_text(encoding="utf-8"))
    paths = [name for name in names(page) if re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w./*-]*", name)]
    for path in {*commands, *paths}:
        assert any(ROOT.glob(path.rstrip("/"))), path


@each_page
def test_every_name_of_the_package_exists(page):
    for name in names(page):
        if re.fullmatch(r"sb3_pg_ext(\.\w+)+", name):
            assert exists(name), name


def exists(name: str) -> bool:
    """Whether there is a module of this name, or something of this name in a module."""
    module, _, attribute = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return bool(module) and exists(module) and hasattr(importlib.import_module(module), attribute)
    return True


def test_a_name_that_is_not_there_is_noticed():
    assert exists("sb3_pg_ext.fast")
    assert exists("sb3_pg_ext.callbacks.GradientVarianceCallback")
    assert not exists("sb3_pg_ext.fast.nothing")
    assert not exists("sb3_pg_ext.nothing")


@each_page
def test_every_import_shown_works(page):
    """Imports of this package in blocks of Python."""
    for language, code in FENCED.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            for node in ast.walk(ast.parse(textwrap.dedent(code))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sb3_pg_ext":
                    for alias in node.names:
                        assert exists(f"{node.module}.{alias.name}"), f"{node.module}.{alias.name}"


ALGORITHMS = [
    f"docs/{name}.md"
    for name in ("reinforce", "npg", "ppo_kl", "acktr", "a3c", "impala", "naf", "sac_v", "gumbel_ddpg", "fast")
]
TABLE = re.compile(r"(?:^<!-- table: [^>]+ -->\n)?^\|.*\n\|[-:|]+\n(?:^\|.*\n)+", re.MULTILINE)
NUMBER = re.compile(r"[-−+]?[\d.,\s]*\d[\d.,\s]*(?:e[+-]\d+)?(?:$|[ ×%/(–±…]| to | and | ms)")


@pytest.fixture(scope="module")
def tables():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    return importlib.import_module("tables")


def test_tables_say_what_their_data_say(tables):
    differing = {
        str(page.relative_to(ROOT)) for page in tables.pages() if tables.renewed(page.read_text()) != page.read_text()
    }
    assert not differing, "python benchmarks/tables.py makes them anew"


def test_a_changed_number_is_noticed(tables):
    text = (ROOT / "docs" / "sac_v.md").read_text()
    for number in tables.looked_up("throughput sac_v | Pendulum-v1 × 1 | `SACV`"):
        assert tables.renewed(text.replace(number, "7.77")) == text != text.replace(number, "7.77")
    text = (ROOT / "docs" / "ppo_kl.md").read_text()
    assert tables.renewed(text.replace("| 851.7", "| 852.7")) == text != text.replace("| 851.7", "| 852.7")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("7.2 or", "{0:.1f} or"),
        ("7.23 (1.00 to 2.00) or", "{0:.2f} ({1:.2f} to {2:.2f}) or"),
        ("7 (1.0–2.00) or", "{0:.0f} ({1:.1f}–{2:.2f}) or"),
        ("7.23 (1.00) or", "{0:.2f} (1.00) or"),
    ],
)
def test_values_have_as_many_numbers_and_decimals_as_are_written(tables, written, expected):
    key = "throughput sac_v | Pendulum-v1 × 1\n| `SACV`"
    comment, numbers = f"of <!-- value: {key} -->", map(float, tables.looked_up(key))
    assert tables.renewed(comment + written) == comment + expected.format(*numbers)


def test_a_list_in_a_sentence_has_all_numbers_of_its_cell(tables):
    comment = "at <!-- value: by_seed ddpg | ascending | InvertedDoublePendulum-v4 -->"
    numbers = tables.looked_up("by_seed ddpg | ascending | InvertedDoublePendulum-v4")
    first, *more, last = numbers
    assert tables.renewed(f"{comment}1.0,\n  1.0\n  and 1.0") == f"{comment}{first},\n  {', '.join(more)}\n  and {last}"
    with pytest.raises(ValueError, match="has to have all of"):
        tables.renewed(comment + "1.0 and 1.0")


@pytest.mark.parametrize("row", ["| Pendulum-v2", "| Inverted", "| 1 | Pendulum-v1"])
def test_a_value_that_is_not_there_or_ambiguous_is_an_error(tables, row):
    with pytest.raises(ValueError, match="has to be one of"):
        tables.renewed(f"of <!-- value: learning naf | worst {row} -->1.5")


def test_signs_stay_as_they_are_written(tables):
    assert tables.rounded("-163.6", "-1.0") == "-163.6"
    assert tables.rounded("-163.6", "−100") == "−164"
    assert tables.rounded("2 000 000", "1 000") == "2 000 000"


@each_page
def test_after_every_comment_of_a_value_there_is_a_number(page, tables):
    text = page.read_text(encoding="utf-8")
    assert len(tables.VALUE.findall(text)) == len(re.findall(r"<!--\s+value:", text))


@each_page
def test_no_value_begins_a_line(page):
    """Markdown ends the paragraph there."""
    assert not re.findall(r"^[\s>*-]*<!--\s+value.*", page.read_text(), re.MULTILINE)


MEASURED = re.compile(
    r"\d ± \d"
    r"|\d (?:\([^)]*\) )?times (?:as (?:fast|many|much|long)|stock)"
    r"|(?<![\d.·/])[\d.]+ (?:µs|ms|s|seconds|minutes|hours|kB|MB|GB|MiB|nats|steps/s|steps (?:of \S+ )?a second)\b"
    r"|(?:returns?(?: of)?|returned|end(?:s|ed)?(?: at)?|falls? to) [-−]?\d[\d.]*\d(?![\d.]*\d| greedy| episodes)"
    r"|\b(?!95)\d\d(?:\.\d)? %"
)
"""How results look in a sentence."""

NOT_MEASURED = {
    "Every 50 ms a worker": "set",
    "10 times as long as later ones": "arithmetic",
    "is 2 × 40 MB for": "arithmetic",
    "twice: 0.3 MB here": "arithmetic",
    "chunks of 16 MB": "set",
    "have a mean return of 475": "what counts as solved",
    "a mean training return of 400; the": "set",
    "episodes return 150, of": "set",
    "a return of 80, by": "set",
    "worker, which ends at 233": "in the table above it",
    "all end at 500 except": "in the table above it",
    "50, 75 and 90 % of the way": "set",
    "at 80 % power": "set",
    "Where a step takes 5 ms more": "set",
    "environment that sleeps 5 ms a step": "set",
    "is killed every 5 seconds": "set",
}
"""Numbers that only look like results, each with a few words around it, and why they are none."""


def sentences(text: str) -> str:
    """A page's prose in one line, without code, links and what the comments of tables and values stand before."""
    for pattern in (r"`[^`]*`", r"\]\([^)]*\)", r"(?<=\n\n)(?: {4,}.*\n)+", r"<?https?:\S+"):
        text = re.sub(pattern, "…", text)
    return " ".join(text.split())


def bare_results(text: str, tables: ModuleType) -> list[str]:
    """What looks like a result in a sentence, and does not name its data."""
    prose = sentences(TABLE.sub("", tables.VALUE.sub("…", FENCED.sub("", text))))
    for words in NOT_MEASURED:
        prose = prose.replace(words, "…")
    return [prose[max(0, found.start() - 30) : found.end() + 10] for found in MEASURED.finditer(prose)]


def test_results_in_sentences_name_their_data(tables):
    for page in tables.pages():
        bare = bare_results(page.read_text(), tables)
        assert not bare, f"{page.name}: {bare}; benchmarks/tables.py tells how to mark them"


def test_what_is_no_result_is_on_some_page(tables):
    prose = " ".join(sentences(page.read_text()) for page in tables.pages())
    assert [words for words in NOT_MEASURED if words not in prose] == []


@pytest.mark.parametrize(
    "sentence",
    [
        "It takes 0.3 ms.",
        "The returns of two seeds are 5.0 ± 1.0.",
        "Seed 3 ends at −206.4.",
        "It was 3.5\n(2.0–4.0) times as fast, in\n20 seconds.",
        "The interval holds in 84 % of studies.",
        "It makes 24 000 steps of HalfCheetah a second.",
    ],
)
def test_a_result_without_its_data_is_noticed(tables, sentence):
    assert bare_results(sentence, tables)
    assert not bare_results(re.sub(r"[-−]?\d[\d .]*\d?( ±|\n\()?", "one ", sentence), tables)


def test_tables_of_numbers_name_their_data(tables):
    for page in tables.pages():
        for table in TABLE.findall(page.read_text()):
            cells = [cell.strip() for line in table.splitlines()[2:] for cell in line.strip("|").split("|")[1:]]
            measured = 2 * sum(bool(NUMBER.match(cell)) for cell in cells) > len(cells)
            assert table.startswith("<!--") or not measured, (page.name, table.partition("\n")[0])
