"""The code of docs/writing_a_plugin.md keeps the contracts that the page describes."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from sb3_pg_ext.plugins import AlgorithmSpec, registry
from sb3_pg_ext.testing import check

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "writing_a_plugin.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
EXCERPTS = re.findall(r"<!-- in (\S+) -->\n```\w+\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
HOOKS = re.compile(r"def (sb3_pg_ext_\w+)\(")


@pytest.mark.parametrize(
    "code", [block for block in BLOCKS if HOOKS.search(block)], ids=lambda code: HOOKS.search(code)[1]
)
def test_what_the_page_registers_keeps_its_contract(code, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples" / "algorithm_plugin")
    namespace = {"__name__": "plugin"}
    exec(code, namespace)
    for spec in namespace[HOOKS.search(code)[1]]():
        check(spec)


@pytest.mark.parametrize(("file", "shown"), EXCERPTS, ids=[f"{file}, {code[:30]!r}" for file, code in EXCERPTS])
def test_what_the_page_shows_of_an_example_is_in_it(file, shown):
    """Line by line, in the same order. The examples are installed and used in tests of their own."""
    rest = iter((ROOT / file).read_text(encoding="utf-8").splitlines())
    assert [line for line in shown.splitlines() if line and line not in rest] == []


def test_the_page_shows_every_file_of_the_algorithm():
    example = ROOT / "examples" / "algorithm_plugin"
    paths = [path for folder in (example, example / "sb3_pg_ext_spo") for path in folder.iterdir() if path.is_file()]
    files = {path.relative_to(example).as_posix() for path in paths}
    beside = {"README.md", "pyproject.toml", "test_spo.py", "sb3_pg_ext_spo/__init__.py"}
    shown = {file.removeprefix("examples/algorithm_plugin/") for file, _ in EXCERPTS}
    assert files - beside == shown & files


def test_the_build_files_of_both_examples_are_the_same():
    one, other = (ROOT / "examples" / f"{kind}_plugin" / "pyproject.toml" for kind in ("estimator", "algorithm"))
    assert one.read_text(encoding="utf-8") == other.read_text(encoding="utf-8")


def test_the_algorithm_that_is_varied_keeps_its_contract_and_differs():
    blocks = [block for block in BLOCKS if "ClippedREINFORCE" in block]
    namespace = {"__name__": "plugin"}
    exec("\n".join(blocks), namespace)
    namespace["test_it_has_an_effect"]()
    spec = registry().find(AlgorithmSpec, "reinforce")
    check(replace(spec, name="clipped", cls=namespace["ClippedREINFORCE"]))


def test_no_line_of_the_page_is_too_wide():
    lines = enumerate(PAGE.read_text(encoding="utf-8").splitlines(), start=1)
    assert [number for number, line in lines if len(line) > 120] == []


def test_the_page_shows_a_plugin_of_every_kind():
    assert sorted(name for block in BLOCKS for name in HOOKS.findall(block)) == [
        "sb3_pg_ext_algorithms",
        "sb3_pg_ext_algorithms",
        "sb3_pg_ext_baselines",
        "sb3_pg_ext_estimators",
    ]
