"""The site: equations are drawn, every public name is documented, every page is reached, and the whole is built."""

import configparser
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import yaml
from gymnasium import spaces

import sb3_pg_ext
from sb3_pg_ext.plugins import AlgorithmSpec, registry

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ROOMS = (
    "sb3_pg_ext",
    *(f"sb3_pg_ext.{room}" for room in ("algorithms.base", "baselines", "callbacks", "checkpoints", "envs")),
    *(f"sb3_pg_ext.{room}" for room in ("estimators", "fast", "plugins", "policies", "rollouts", "testing")),
)
PUBLIC = sorted(
    f"{room}.{name}"
    for room in ROOMS
    for name in importlib.import_module(room).__all__
    if name not in ("__version__", "SUPPORTED_ACTION_SPACES")
)


def load(name):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.fixture(scope="module")
def documented():
    """What the pages of the API reference describe."""
    text = "".join(page.read_text() for page in sorted(DOCS.glob("api/*.md")))
    found = {id(load(name)) for name in re.findall(r"^\.\. auto(?:class|function|data):: (\S+)", text, re.MULTILINE)}
    for name in re.findall(r"^\.\. automodule:: (\S+)", text, re.MULTILINE):
        module = importlib.import_module(name)
        found |= {id(getattr(module, each)) for each in getattr(module, "__all__", vars(module))}
    return found


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_stand_in_the_reference_and_say_what_they_take(name, documented):
    public = load(name)
    assert id(public) in documented
    if not (inspect.isclass(public) or inspect.isfunction(public)):
        return  # the reference describes it, and its docstring is another's
    assert len((public.__doc__ or "").strip()) > 10
    if inspect.isfunction(public):
        told = set(re.findall(r":param (\w+):", public.__doc__))
        assert told >= set(inspect.signature(public).parameters)


@pytest.mark.parametrize(
    "algorithm",
    ["REINFORCE", "NPG", "AdaptiveKLPPO", "ACKTR", "ActorCritic", "DAC", "A3C", "IMPALA", "NAF", "SACV", "GumbelDDPG"],
)
def test_algorithms_document_every_argument(algorithm):
    cls = getattr(sb3_pg_ext, algorithm)
    told = set(re.findall(r":param (\w+):", cls.__doc__))
    assert told >= {name for name in inspect.signature(cls).parameters if not name.startswith("_")}


def test_every_page_is_in_a_table_of_contents():
    contents = "".join(
        block
        for page in (DOCS / "index.md", DOCS / "gallery" / "index.md")
        for block in re.findall(r"```{toctree}\n(.*?)```", page.read_text(), re.DOTALL)
    ).split()
    for page in [*DOCS.glob("*.md"), *DOCS.glob("api/*.md"), *DOCS.glob("gallery/*.md")]:
        name = page.relative_to(DOCS).with_suffix("").as_posix()
        assert name in contents or name.removeprefix("gallery/") in contents or name == "index", name


def test_pictures_have_descriptions():
    for page in [*DOCS.glob("*.md"), *DOCS.glob("gallery/*.md")]:
        for description, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text()):
            assert len(description) > 15, (page, target)
            assert (page.parent / target).is_file(), (page, target)


def test_the_version_is_the_same_everywhere():
    version = re.escape(sb3_pg_ext.__version__)
    changelog, citation = (ROOT / "CHANGELOG.md").read_text(), (ROOT / "CITATION.cff").read_text()
    date = re.search(rf"^## \[{version}\] - (\d{{4}}-\d\d-\d\d)$", changelog, re.MULTILINE)[1]
    assert re.search(rf"^version: {version}$", citation, re.MULTILINE)
    assert f"date-released: {date}\n" in citation


def test_the_workflow_tests_what_the_package_promises():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    promised = re.findall(r"Python :: (3\.\d+)", setup["metadata"]["classifiers"])
    jobs = workflow["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == promised
    assert set(jobs["publish"]["needs"]) == set(jobs) - {"publish"}
    for form in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        assert yaml.safe_load(form.read_text())


@pytest.fixture
def equations(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "_extensions"))
    return importlib.import_module("mathml")


def test_equations_become_mathml(equations):
    math = ET.fromstring(equations.to_mathml("A_t = √(σ² + x_{t+1}) − ½γ^n·V'(s)"))
    assert [each.tag for each in math.iter("msub")] == ["msub"] * 2
    assert "".join(math.find(".//msqrt").itertext()) == "σ2+xt+1"
    assert ["".join(each.itertext()) for each in math.iter("msup")] == ["σ2", "γn", "V′"]
    assert "".join(math.find(".//mfrac").itertext()) == "12"


def test_names_of_several_letters_stay_together(equations):
    math = ET.fromstring(equations.to_mathml("−mean(log π_θ(a|s)·A) + ent_coef·H"))
    assert {"mean", "log", "ent_coef", "π"} <= {each.text for each in math.iter("mi")}


@pytest.mark.parametrize("text", ['model = resume("runs/1")', "python train.py", "inputs ─ backend ─→ V·s", "a = b"])
def test_code_and_diagrams_are_no_equations(equations, text):
    assert not equations.is_equation(text)


def test_every_equation_of_the_package_can_be_read(equations):
    lines = [
        line
        for path in sorted((ROOT / "sb3_pg_ext").rglob("*.py"))
        for line in re.findall(r"^ {8,}(\S.*)$", path.read_text(), re.MULTILINE)
        if " ← " in line or "Σ_" in line
    ]
    assert len(lines) > 20
    for line in lines:
        ET.fromstring(equations.to_mathml(line.replace("\\", "")))


class Anything(gym.Env):
    """An environment with some spaces, of which nothing is asked."""

    def __init__(self, action_space, as_dict):
        box = spaces.Box(-1, 1, (3,))
        self.action_space, self.observation_space = action_space, spaces.Dict(x=box) if as_dict else box


ACTIONS = {
    "Discrete": [spaces.Discrete(3)],
    "MultiDiscrete, MultiBinary": [spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2)],
    "Box actions": [spaces.Box(-1, 1, (2,), np.float32)],
}


@pytest.mark.slow
def test_the_table_of_spaces_is_true():
    page = (DOCS / "which_algorithm.md").read_text()
    section = page.partition("## Can I use it?")[2].partition("\n\n## ")[0]
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.split("\n") if "|" in line
    ]
    for algorithms, *cells in rows[:-1]:
        for algorithm in algorithms.split(", "):
            table = dict(zip(header[1:], cells, strict=True))
            works = []
            for column, kinds in ACTIONS.items():
                for space in kinds:
                    expected = table[column] in ("yes", type(space).__name__)
                    assert can_be_made(algorithm, "MlpPolicy", Anything(space, False)) is expected, (algorithm, space)
                    works += [space] * expected
            assert can_be_made(algorithm, "MultiInputPolicy", Anything(works[0], True)) is (
                table["Dict observations"] == "yes"
            )


def can_be_made(algorithm, policy, env):
    """Whether the constructor takes an environment."""
    try:
        getattr(sb3_pg_ext, algorithm)(policy, env, device="cpu")
    except (AssertionError, ValueError):
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("page", ["index.md", "first_steps.md", "from_sb3.md"])
def test_what_pages_for_beginners_show_works(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for code in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL):
        exec(re.sub(r"learn\([\d_]+\)", "learn(300)", code), {"__name__": "shown"})


@pytest.mark.thorough
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="make docs installs it")
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-d", tmp_path / "trees"]
    done = subprocess.run([*command, DOCS, tmp_path / "html"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    index = (tmp_path / "html" / "searchindex.js").read_text()
    assert "natur" in index
    assert "gradient" in index
    assert "<math" in (tmp_path / "html" / "api" / "algorithms.html").read_text()


PAGES_OF_ALGORITHMS = {
    "reinforce": "reinforce",
    "npg": "npg",
    "ppo_kl": "ppo_kl",
    "acktr": "acktr",
    "actor_critic": "ac dac",
    "a3c": "a3c",
    "impala": "impala",
    "naf": "naf",
    "sac_v": "sac_v",
    "gumbel_ddpg": "gumbel_ddpg",
    "fast": "fast_ppo fast_a2c fast_trpo fast_maskable_ppo",
}


def test_every_algorithm_has_a_page():
    described = {name for names in PAGES_OF_ALGORITHMS.values() for name in names.split()}
    assert described == set(registry().names(AlgorithmSpec))


@pytest.mark.parametrize("page", PAGES_OF_ALGORITHMS)
def test_pages_of_algorithms_have_the_same_sections(page):
    """The order is free, and what an algorithm is about has headings of its own in between."""
    text = (DOCS / f"{page}.md").read_text()
    sections = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n?)*)", text, re.MULTILINE))
    assert f"<!-- table: usable {PAGES_OF_ALGORITHMS[page]} -->\n| can I use |" in sections["Can I use it?"]
    assert re.search(r"\(api/(algorithms|fast)\.md\)", sections["Can I use it?"])
    assert re.search(r"\d", sections["Results"]) or "results.md" in sections["Results"]
    assert re.search(r"^    python benchmarks/\w+\.py", sections["How to replicate"], re.MULTILINE)
    assert sections["When not to use it"].count("\n- ") >= 2
    assert len(re.findall("[∇ΣπγδθμσΔ√]", text)) > 3  # its mathematics
    assert re.search(r"^1\. .*^2\. .*^3\. ", sections["Details"], re.MULTILINE | re.DOTALL)


NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_hold_what_came_out(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert any(output["output_type"] in ("stream", "display_data", "execute_result") for output in outputs)
    assert not any(output["output_type"] == "error" for output in outputs)
    assert "%pip install" in "".join(cells[0]["source"])
    assert path.stat().st_size < 200_000


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem not in ("a3c_and_impala", "from_zoo_to_report")])
def test_notebooks_run_in_short(path, tmp_path, monkeypatch):
    """Those without other processes, with a fraction of their steps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    scope = {"__name__": "notebook"}
    for cell in json.loads(path.read_text())["cells"][1:]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and "%pip" not in source:
            source = re.sub(r"\b\d+_000\b", "600", source)
            exec(re.sub(r"n_(batches|episodes)=\w+", r"n_\1=2", source), scope)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["a3c_and_impala", "from_zoo_to_report"])
def test_notebooks_with_other_processes_run_in_a_kernel(name, tmp_path, monkeypatch):
    """With a fraction of their steps, but enough for something to be logged."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(DOCS / "notebooks" / f"{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = re.sub(r"\b\d+_000\b", "5_000", cell.source).replace("-n 6000", "-n 2000")
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert outputs
    assert not [output for output in outputs if output["output_type"] == "error"]
