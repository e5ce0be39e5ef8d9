import pytest

from sb3_pg_ext.plugins.configs import find_config


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in a checkout: a configuration inside of it, and another beside it."""
    folder = tmp_path / "package_with_configs"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "inside.yml").touch()
    (tmp_path / "beside.yml").touch()
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_a_path_is_taken_as_it_is(package):
    assert find_config(str(package / "inside.yml")) == package / "inside.yml"


def test_a_file_of_a_package_lies_inside_or_beside_it(package):
    assert find_config("package_with_configs:inside.yml") == package / "inside.yml"
    assert find_config("package_with_configs:beside.yml") == package.parent / "beside.yml"


@pytest.mark.parametrize("reference", ["missing.yml", "package_with_configs:missing.yml", "no_such_package:inside.yml"])
def test_a_missing_file_is_an_error_that_says_where_it_was_looked_for(package, reference):
    with pytest.raises(ValueError, match=f"config='{reference}'; allowed: a file, or 'package:file'. Looked for "):
        find_config(reference)
