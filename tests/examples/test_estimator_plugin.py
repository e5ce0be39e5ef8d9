"""The example of a third party's package: built as a wheel, installed into a fresh environment, and used there."""

import json
import re
from itertools import chain
from pathlib import Path

import pytest

from sb3_pg_ext import list_estimators

EXAMPLE = Path(__file__).parents[2] / "examples" / "estimator_plugin"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(install):
    return install(EXAMPLE, "sb3_pg_ext_huberized.py")


def test_it_is_registered_where_it_is_installed(python):
    listing = json.loads(python("-m", "sb3_pg_ext.zoo", "plugins", "--json"))
    row = {"kind": "estimator", "name": "huberized", "package": "sb3-pg-ext-huberized", "version": "0.1.0"}
    assert row in listing["registered"]
    assert listing["failed"] == []
    assert "huberized" not in list_estimators()


def test_its_own_tests_pass(python):
    assert "5 passed" in python("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_huberized.py")


def test_the_readme_trains_stock_ppo(python):
    (code,) = re.findall(r"```python\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL)
    assert python("-c", f"{code}print(model.rollout_buffer.estimator)").startswith(
        "Huberized(threshold=2.0, gae_lambda"
    )


def test_rl_zoo_trains_stock_ppo_from_its_yaml(python, tmp_path):
    options = {
        "--algo": "ppo",
        "--env": "CartPole-v1",
        "--conf-file": "ppo_huberized.yml",
        "--n-timesteps": "256",
        "--eval-freq": "-1",
        "--log-folder": str(tmp_path),
    }
    output = python("-m", "sb3_pg_ext.zoo", "train", *chain(*options.items()))
    assert "huberized" in output
    assert list(tmp_path.glob("ppo/CartPole-v1_1/CartPole-v1.zip"))
