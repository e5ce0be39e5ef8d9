"""Every example of the gallery runs in short, has its picture and page, and plays in proper environments."""

import importlib
import inspect
import re
import warnings
from pathlib import Path

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "gallery"
EXAMPLES = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))

each_example = pytest.mark.parametrize("name", EXAMPLES)


@pytest.fixture
def gallery(monkeypatch):
    """Imports an example."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.mark.slow
@each_example
def test_examples_run_in_short(gallery, name, tmp_path):
    picture = tmp_path / "picture.png"
    gallery(name).main(["--short", "--output", str(picture)])
    assert picture.read_bytes().startswith(b"\x89PNG")


@each_example
def test_environments_are_proper_ones(gallery, name):
    for env_class in vars(gallery(name)).values():
        if inspect.isclass(env_class) and env_class.__module__ == name and issubclass(env_class, gym.Env):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that spaces are wide, and that there is no spec
                check_env(env_class(), skip_render_check=True)


@each_example
def test_pictures_are_shown_and_small(name):
    assert (ROOT / "docs" / "gallery" / "images" / f"{name}.png").stat().st_size < 100_000
    page = (ROOT / "docs" / "gallery" / f"{name}.md").read_text()
    assert re.search(rf"!\[[^\]]+\]\(images/{name}\.png\)", page)
    assert f"examples/gallery/{name}.py" in page
