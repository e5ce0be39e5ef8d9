"""Wheel and source distribution in environments that have nothing else, with each extra, as users install them."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.thorough, pytest.mark.timeout(1200)]

TRAIN = "from sb3_pg_ext import {name}; {name}('MlpPolicy', '{env}', device='cpu', seed=0).learn(600)"
ENGINE = (
    "from sb3_pg_ext import fast; m = fast.PPO('MlpPolicy', 'CartPole-v1', device='cpu'); print(m.describe_engine())"
)
ENVPOOL = "from sb3_pg_ext import fast, envs; fast.A2C('MlpPolicy', envs.make_vec_env('CartPole-v1', 4, 0, 'envpool'))"
ON_RAY = (
    "from sb3_pg_ext import IMPALA; import ray; print(IMPALA('MlpPolicy', 'CartPole-v1', n_actors=1, backend='ray'))"
)
SMOKE = {
    "": [["-c", TRAIN.format(name="NPG", env="CartPole-v1")]],
    "zoo": [
        ["-m", "sb3_pg_ext.zoo", "plugins"],
        ["-m", "sb3_pg_ext.zoo", "train", "--algo", "reinforce", "--env", "CartPole-v1", "-n", "2000"],
        ["-m", "sb3_pg_ext.zoo", "evaluate", "--algo", "reinforce", "--env", "CartPole-v1", "--episodes", "2"],
    ],
    "mujoco": [["-c", TRAIN.format(name="NPG", env="InvertedPendulum-v5")]],
    "box2d": [["-c", TRAIN.format(name="ACKTR", env="LunarLander-v3")]],
    "envpool": [["-c", ENVPOOL]],
    "ray": [["-c", ON_RAY]],
    "compiled": [["-c", ENGINE]],
}
"""By extra, what has to work."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel that is built from the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "-o", folder, ROOT], check=True)
    (built,) = folder.glob("*.whl")
    assert len(list(folder.glob("*.tar.gz"))) == 1
    return built


def test_the_wheel_holds_the_whole_package(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "sb3_pg_ext").rglob("*.py")}
    expected |= {f"sb3_pg_ext/{path.relative_to(ROOT).as_posix()}" for path in ROOT.glob("zoo_configs/*.yml")}
    assert expected | {"sb3_pg_ext/py.typed"} <= names
    assert not any(name.startswith(("tests", "benchmarks", "examples", "docs")) for name in names)


@pytest.mark.parametrize("extra", SMOKE)
def test_it_works_where_nothing_else_is_installed(extra, wheel, tmp_path):
    home = tmp_path / "empty"
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    python = home / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    install = [python, "-m", "pip", "install", "-q", "--no-compile", "-c", ROOT / "constraints.txt"]
    subprocess.run([*install, "torch"], check=True, env=environment)  # the build that this machine has
    subprocess.run([*install, f"{wheel}[{extra}]" if extra else wheel], check=True, env=environment)
    subprocess.run([python, "-m", "pip", "check"], check=True, env=environment)
    for words in SMOKE[extra]:
        done = subprocess.run([python, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    if extra == "compiled":
        assert "compiled" in done.stdout
