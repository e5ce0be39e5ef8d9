"""Files that are spoilt in random ways end in a clear error, or in a model."""

import io
from contextlib import suppress

import pytest
import yaml
from envs import RandomEnv
from fuzzing import mutate, outcome_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stable_baselines3 import PPO

from sb3_pg_ext import inspect_model, safe_load, safe_save

POLICY = {"n_steps": 16, "batch_size": 16, "n_epochs": 1, "policy_kwargs": {"net_arch": [8]}, "device": "cpu"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A model's file as SB3 writes it, and one without pickles."""
    folder = tmp_path_factory.mktemp("whole")
    model = PPO("MlpPolicy", RandomEnv(), seed=0, **POLICY)
    model.save(folder / "model.zip")
    safe_save(model, folder / "safe.zip")
    return [(folder / f"{name}.zip").read_bytes() for name in ("model", "safe")]


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.randoms(use_true_random=False))
def test_mutated_files_end_in_a_clear_error_or_a_model(draw, whole):
    mutated = mutate(draw.choice(whole), draw, whole[0])
    with suppress(ValueError):
        assert isinstance(safe_load(io.BytesIO(mutated), "PPO"), PPO)
    assert inspect_model(io.BytesIO(mutated)).verdict


@pytest.mark.parametrize(
    ("problem", "outcome"),
    [
        (ValueError("refused"), "clear error"),
        (yaml.YAMLError(), "clear error"),
        (SystemExit("gone"), "SystemExit: gone"),
        (None, "read"),
    ],
)
def test_outcomes(problem, outcome):
    def read(content):
        assert content == b"content"
        if problem:
            raise problem

    assert outcome_of(read, b"content") == outcome


def test_ctrl_c_is_no_outcome():
    def read(content):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        outcome_of(read, b"")
