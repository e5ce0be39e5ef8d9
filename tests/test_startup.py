"""What is imported when, and that the names of the package are there all the same."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sb3_pg_ext

LIGHT = (
    "import sb3_pg_ext",
    "from sb3_pg_ext import EstimatorSpec, hookimpl",
    "from sb3_pg_ext.functional import heads, returns",
    "from sb3_pg_ext.zoo.__main__ import _make_parser as parser; parser()",
)


@pytest.mark.parametrize("statement", LIGHT)
def test_what_needs_no_algorithm_waits_for_none(statement):
    heavy = "{'torch', 'stable_baselines3', 'gymnasium', 'rl_zoo3', 'matplotlib', 'pandas', 'scipy'}"
    code = f"{statement}\nimport sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_names_are_where_type_checkers_find_them():
    tree = ast.parse(Path(sb3_pg_ext.__file__).read_text())
    told = {
        node.module.removeprefix("sb3_pg_ext."): {alias.name for alias in node.names}
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and node.module.startswith("sb3_pg_ext.")
        and node.module != "sb3_pg_ext.version"
    }
    assert told == {room: set(names) for room, names in sb3_pg_ext._ROOMS.items()}
    assert {name for names in told.values() for name in names} | {"__version__"} == set(sb3_pg_ext.__all__)


def test_every_name_is_there():
    for name in sb3_pg_ext.__all__:
        assert getattr(sb3_pg_ext, name) is not None
        assert name in dir(sb3_pg_ext)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        sb3_pg_ext.nothing  # noqa: B018
