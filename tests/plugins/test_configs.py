import inspect
import sys

import pytest

from sb3_pg_ext import fast
from sb3_pg_ext.plugins import AlgorithmSpec, registry
from sb3_pg_ext.plugins.configs import ZOO_KEYS, find_config, known_hyperparameters


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in a checkout: a configuration inside of it, and another beside it."""
    folder = tmp_path / "package_with_configs"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "inside.yml").touch()
    (tmp_path / "beside.yml").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for module in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[module]  # or the next test would find the folder of this one


def test_a_path_is_taken_as_it_is(package):
    assert find_config(str(package / "inside.yml")) == package / "inside.yml"


def test_a_file_of_a_package_lies_inside_or_beside_it(package):
    assert find_config("package_with_configs:inside.yml") == package / "inside.yml"
    assert find_config("package_with_configs:beside.yml") == package.parent / "beside.yml"


@pytest.mark.parametrize("reference", ["missing.yml", "package_with_configs:missing.yml", "no_such_package:inside.yml"])
def test_a_missing_file_is_an_error_that_says_where_it_was_looked_for(package, reference):
    with pytest.raises(ValueError, match=f"config='{reference}'; allowed: a file, or 'package:file'. Looked for "):
        find_config(reference)


def test_a_path_may_be_an_object(package):
    assert find_config(package / "inside.yml") == package / "inside.yml"


def test_a_package_may_be_part_of_another(package):
    part = package / "part"
    part.mkdir()
    (part / "__init__.py").touch()
    (part / "deep.yml").touch()
    assert find_config("package_with_configs.part:deep.yml") == part / "deep.yml"


@pytest.mark.parametrize("reference", ["package_with_configs.nothing:inside.yml", "no_such_package.part:inside.yml"])
def test_a_missing_part_of_a_package_is_an_error_like_any_other(package, reference):
    with pytest.raises(ValueError, match=f"config='{reference}'; allowed: a file, or 'package:file'"):
        find_config(reference)


@pytest.mark.parametrize("module", ["lonely_module", "package_with_configs.lonely_module"])
def test_a_module_has_no_files_and_the_error_says_so(package, module):
    for folder in (package, package.parent):
        (folder / "lonely_module.py").touch()
    with pytest.raises(ValueError, match=f"{module} is a module and no package, so that it has no files"):
        find_config(f"{module}:inside.yml")


@pytest.mark.parametrize("name", registry().names(AlgorithmSpec))
def test_known_are_the_arguments_of_the_constructor(name):
    cls = registry().find(AlgorithmSpec, name).cls
    taken = {argument for argument in inspect.signature(cls).parameters if not argument.startswith("_")}
    assert known_hyperparameters(cls) - ZOO_KEYS == taken - ZOO_KEYS


def test_a_subclass_that_passes_arguments_on_takes_those_too():
    class Mine(fast.MaskablePPO):
        def __init__(self, *args, own=1, **kwargs):
            super().__init__(*args, **kwargs)

    assert known_hyperparameters(Mine) == known_hyperparameters(fast.MaskablePPO) | {"own"}
