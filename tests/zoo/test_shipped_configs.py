"""The shipped configurations are found however the package is installed, and they work."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from stable_baselines3 import PPO

from sb3_pg_ext import EstimatorRolloutBuffer
from sb3_pg_ext.plugins import AlgorithmSpec, registry
from sb3_pg_ext.plugins.configs import find_config

ROOT = Path(__file__).parents[2]
SHIPPED = "sb3_pg_ext:zoo_configs/ppo_estimators.yml"


@pytest.fixture
def checkout(tmp_path):
    """A copy of what a build needs, so that building leaves nothing in the real one."""
    copy = tmp_path / "checkout"
    for folder in ("sb3_pg_ext", "zoo_configs"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / file).exists():
            shutil.copy(ROOT / file, copy)
    return copy


def find_in(python: Path | str, folder: Path | None, cwd: Path) -> Path:
    """What another interpreter finds, with a folder at the front of its path."""
    program = f"from sb3_pg_ext.plugins.configs import find_config; print(find_config({SHIPPED!r}))"
    environment = {**os.environ, "PYTHONPATH": str(folder or "")}
    done = subprocess.run(
        [python, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False, env=environment, cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def test_every_registered_algorithm_has_one():
    for name in registry().names(AlgorithmSpec):
        for file in registry().find(AlgorithmSpec, name).configs:
            assert find_config(file).is_file()


def test_the_example_for_stock_ppo_trains_with_its_estimator(zoo, tmp_path):
    arguments = ["--algo", "ppo", "--env", "CartPole-v1", "-f", "logs"]
    zoo("train", *arguments, "-n", "256", "--eval-freq", "-1", "-conf", str(find_config(SHIPPED)))
    model = PPO.load(tmp_path / "logs/ppo/CartPole-v1_1/CartPole-v1.zip")
    assert isinstance(model.rollout_buffer, EstimatorRolloutBuffer)
    assert model.rollout_buffer_kwargs == {"advantage_estimator": "upgo"}
    zoo("enjoy", *arguments, "-n", "100", "--no-render")


@pytest.mark.parametrize("given", ["zoo_configs/ppo_estimators.yml", SHIPPED])
def test_it_is_found_from_any_folder(zoo, tmp_path, given):
    """With ``zoo_configs/`` in the working directory, that comes first."""
    arguments = ["--algo", "ppo", "--env", "CartPole-v1", "-f", "logs", "-n", "64", "--eval-freq", "-1", "-conf", given]
    zoo("train", *arguments)
    buffer = PPO.load(tmp_path / "logs/ppo/CartPole-v1_1/CartPole-v1.zip").rollout_buffer
    assert isinstance(buffer, EstimatorRolloutBuffer)
    (tmp_path / "zoo_configs").mkdir()
    (tmp_path / "zoo_configs/ppo_estimators.yml").write_text("CartPole-v1: {policy: MlpPolicy, n_timesteps: 64}")
    zoo("train", *arguments)
    buffer = PPO.load(tmp_path / "logs/ppo/CartPole-v1_2/CartPole-v1.zip").rollout_buffer
    assert isinstance(buffer, EstimatorRolloutBuffer) == (given == SHIPPED)


def test_in_a_source_checkout(checkout, tmp_path):
    assert find_in(sys.executable, checkout, tmp_path) == checkout / "zoo_configs/ppo_estimators.yml"


@pytest.mark.slow
def test_in_a_wheel(checkout, tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(checkout)]
    subprocess.run(build, check=True, capture_output=True)
    site = tmp_path / "site"
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        assert {f"sb3_pg_ext/evaluation/report/page.{kind}" for kind in ("html", "css", "js")} <= set(wheel.namelist())
        wheel.extractall(site)
    assert find_in(sys.executable, site, tmp_path) == site / "sb3_pg_ext/zoo_configs/ppo_estimators.yml"


@pytest.mark.slow
def test_in_an_editable_install(checkout, tmp_path):
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = tmp_path / "env/bin/python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    Path(site.stdout.strip(), "dependencies.pth").write_text(
        "\n".join(folder for folder in sys.path if folder.endswith("site-packages"))
    )
    install = [python, "-m", "pip", "install", "--no-deps", "--no-index", "--no-build-isolation", "-e", checkout]
    subprocess.run(install, check=True, capture_output=True)
    assert find_in(python, None, tmp_path) == checkout / "zoo_configs/ppo_estimators.yml"
