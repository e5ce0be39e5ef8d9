"""The code of docs/writing_a_plugin.md keeps the contracts that the page describes."""

import re
from pathlib import Path

import pytest

from sb3_pg_ext.testing import check

PAGE = Path(__file__).parents[2] / "docs" / "writing_a_plugin.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
HOOKS = re.compile(r"def (sb3_pg_ext_\w+)\(")


@pytest.mark.parametrize(
    "code", [block for block in BLOCKS if HOOKS.search(block)], ids=lambda code: HOOKS.search(code)[1]
)
def test_what_the_page_registers_keeps_its_contract(code):
    namespace = {"__name__": "plugin"}
    exec(code, namespace)
    for spec in namespace[HOOKS.search(code)[1]]():
        check(spec)


@pytest.mark.parametrize(("language", "file"), [("ini", "setup.cfg"), ("toml", "pyproject.toml")])
def test_the_page_shows_every_file_of_the_example(language, file):
    """What the page shows is in the example, which is installed and used in tests of its own."""
    (shown,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    example = (PAGE.parents[1] / "examples" / "estimator_plugin" / file).read_text(encoding="utf-8").splitlines()
    assert [line for line in shown.splitlines() if line and line not in example] == []


def test_the_page_shows_a_plugin_of_every_kind():
    assert sorted(name for block in BLOCKS for name in HOOKS.findall(block)) == [
        "sb3_pg_ext_algorithms",
        "sb3_pg_ext_baselines",
        "sb3_pg_ext_estimators",
    ]
