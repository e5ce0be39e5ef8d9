from contextlib import ExitStack
from unittest.mock import patch

import pytest
import rl_zoo3.exp_manager
import rl_zoo3.train
import rl_zoo3.utils
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS
from toys import CONFIG, Toy, ToyWithReplay, convert_toy, sample_toy

from sb3_pg_ext.plugins import AlgorithmSpec, Failure, Provider, Registry
from sb3_pg_ext.plugins.registry import Entry
from sb3_pg_ext.zoo import __main__, bridge


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "toy.yml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def plugins(config):
    """A registry with two algorithms, and a plug-in that failed."""
    provider = Provider("toys", "toy-box", "1.2")
    toys = (
        AlgorithmSpec("toy", Toy, str(config), sample_toy, convert_toy),
        AlgorithmSpec(
            "replay", ToyWithReplay, str(config), "no_module:sampler", "no_module:converter", off_policy=True
        ),
    )
    failure = Failure(Provider("broken", "broken-box", "0.1"), ImportError("no module named antigravity"))
    return Registry(tuple(Entry(toy, provider) for toy in toys), (failure,))


@pytest.fixture(autouse=True)
def _clean_tables(monkeypatch):
    """Undo what the bridge enters into RL Zoo."""
    monkeypatch.setattr(rl_zoo3.train, "ExperimentManager", rl_zoo3.train.ExperimentManager)
    for module in (rl_zoo3, rl_zoo3.utils):
        for name in ("get_model_path", "create_test_env"):
            monkeypatch.setattr(module, name, getattr(module, name, None), raising=False)
    for name in ("EvalCallback", "TrialEvalCallback"):
        monkeypatch.setattr(rl_zoo3.exp_manager, name, getattr(rl_zoo3.exp_manager, name))
    with ExitStack() as tables:
        for table in (ALGOS, HYPERPARAMS_SAMPLER, HYPERPARAMS_CONVERTER, bridge.PluginExperimentManager.specs):
            tables.enter_context(patch.dict(table))
        yield


@pytest.fixture
def zoo(monkeypatch, plugins, tmp_path):
    """Run the command line on the toys, in a folder of its own."""

    def run(*arguments: str) -> None:
        monkeypatch.setattr("sys.argv", ["sb3-pg", *arguments])
        __main__.main()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(__main__, "registry", lambda: plugins)
    return run
