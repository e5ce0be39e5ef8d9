"""Off-policy algorithms of this package in RL Zoo."""

import pytest
import yaml
from envs import RandomEnv
from rl_zoo3.utils import ALGOS

from sb3_pg_ext import NAF
from sb3_pg_ext.plugins import AlgorithmSpec, registry
from sb3_pg_ext.plugins.configs import find_config
from sb3_pg_ext.zoo import bridge


def test_playing_allots_no_replay_buffer(tmp_path):
    NAF("MlpPolicy", RandomEnv(), policy_kwargs={"net_arch": [4]}, device="cpu").save(tmp_path / "model")
    bridge.install(registry(), play=True)
    model = ALGOS["naf"].load(tmp_path / "model", device="cpu")
    assert isinstance(model, NAF)
    assert model.replay_buffer.buffer_size == 1
    assert ALGOS["naf"] is not NAF


def test_training_gets_the_class_itself():
    bridge.install(registry())
    assert ALGOS["naf"] is NAF


@pytest.mark.parametrize(
    "task", ["InvertedPendulum", "InvertedDoublePendulum", "Reacher", "Swimmer", "Hopper", "HalfCheetah"]
)
def test_both_versions_of_mujoco_share_an_entry(task):
    entries = yaml.safe_load(find_config(registry().find(AlgorithmSpec, "naf").config).read_text())
    assert entries[f"{task}-v4"] == entries[f"{task}-v5"]
