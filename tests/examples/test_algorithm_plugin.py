"""The example of a third party's algorithm: built as a wheel, installed into a fresh environment, and used there."""

import json
import re
from itertools import chain
from pathlib import Path

import pytest
import yaml

from sb3_pg_ext.plugins import AlgorithmSpec, registry

EXAMPLE = Path(__file__).parents[2] / "examples" / "algorithm_plugin"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(install):
    return install(EXAMPLE, "sb3_pg_ext_spo")


@pytest.fixture
def zoo(python):
    """``zoo(script, *flags, **options)`` runs a script of RL Zoo with the algorithm, on CartPole."""

    def run(script, *flags, **options):
        options = {"algo": "spo", "env": "CartPole-v1", **options}
        pairs = ((f"--{name.replace('_', '-')}", str(value)) for name, value in options.items())
        return python("-m", "sb3_pg_ext.zoo", script, *flags, *chain(*pairs))

    return run


def test_it_is_registered_where_it_is_installed(python):
    listing = json.loads(python("-m", "sb3_pg_ext.zoo", "plugins", "--json"))
    row = {"kind": "algorithm", "name": "spo", "package": "sb3-pg-ext-spo", "version": "0.1.0"}
    assert row in listing["registered"]
    assert listing["failed"] == []
    assert "spo" not in registry().names(AlgorithmSpec)


@pytest.mark.thorough
def test_its_own_tests_pass(python):
    assert "17 passed" in python("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_spo.py")


def test_the_command_line_checks_it(python):
    assert "spo passes all checks" in python("-m", "sb3_pg_ext.zoo", "check", "spo")


def test_the_readme_trains_it(python):
    (code,) = re.findall(r"```python\n(.*?)```", (EXAMPLE / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert python("-c", f"{code}print(type(model).__name__, model.num_timesteps)").endswith("SPO 10240\n")


@pytest.mark.thorough
def test_rl_zoo_trains_it_from_the_yaml_that_the_wheel_brings(zoo, tmp_path):
    zoo("train", n_timesteps=512, eval_freq=-1, log_folder=tmp_path)
    (saved,) = tmp_path.glob("spo/CartPole-v1_1/CartPole-v1/config.yml")
    config = dict(yaml.load(saved.read_text(), Loader=yaml.UnsafeLoader))
    shipped = yaml.safe_load((EXAMPLE / "sb3_pg_ext_spo" / "spo.yml").read_text())["CartPole-v1"]
    assert config == shipped
    zoo("enjoy", "--no-render", n_timesteps=50, folder=tmp_path)


@pytest.mark.thorough
def test_rl_zoo_searches_its_hyper_parameters_and_trains_the_trial(zoo, tmp_path):
    study = {"seed": 1, "storage": tmp_path / "study.log", "study_name": "spo", "log_folder": tmp_path}
    zoo("train", "-optimize", "--no-optim-plots", n_trials=1, n_timesteps=256, sampler="random", pruner="none", **study)
    output = zoo("train", n_timesteps=256, eval_freq=-1, trial_id=0, **study)
    assert "Hyperparameters with those of trial 0" in output
    assert list(tmp_path.glob("spo/CartPole-v1_*/CartPole-v1.zip"))
