"""β follows the KL of the rollouts, and is saved."""

import itertools

import numpy as np
import pytest

from sb3_pg_ext import AdaptiveKLPPO
from sb3_pg_ext.algorithms.ppo_kl.ppo_kl import adapt

from .models import make_model, pretend_kl

TARGET, RANGE = 0.01, (0.25, 4.0)
HIGH, LOW = 1.5 * TARGET, TARGET / 1.5


@pytest.mark.parametrize(
    ("kl", "factor"),
    [
        (np.nextafter(HIGH, 1), 2),
        (HIGH, 1),
        (np.nextafter(HIGH, 0), 1),
        (TARGET, 1),
        (np.nextafter(LOW, 1), 1),
        (LOW, 1),
        (np.nextafter(LOW, 0), 0.5),
        (0.0, 0.5),
        (float("inf"), 2),
        (float("nan"), 1),
    ],
)
def test_thresholds(kl, factor):
    assert adapt(1.0, kl, TARGET, RANGE) == factor


def test_ends_of_the_range():
    assert adapt(4.0, 1.0, TARGET, RANGE) == 4.0
    assert adapt(3.0, 1.0, TARGET, RANGE) == 4.0
    assert adapt(0.25, 0.0, TARGET, RANGE) == 0.25
    assert adapt(0.3, 0.0, TARGET, RANGE) == 0.25


def script(monkeypatch, *kls):
    """Let the KL after every epoch be what the script says."""
    numbers = iter(kls)
    pretend_kl(monkeypatch, lambda: next(numbers))


def test_once_for_every_rollout_by_the_kl_after_its_last_epoch(monkeypatch):
    # Two epochs a rollout: the first number of each pair must not count.
    script(monkeypatch, 9, 0.02, 9, 0.02, 0, 0.01, 9, 0.02, 9, 0.001, 0, 0.012, 9, 0.001, 9, 0.02)
    model = make_model(target_kl=TARGET, kl_coef_range=RANGE)
    betas = []
    for _ in range(8):
        model.learn(16, reset_num_timesteps=False)
        betas.append(model.current_kl_coef)
    assert betas == [2, 4, 4, 4, 2, 2, 1, 2]
    assert model.kl_coef == 1.0


def test_the_target_may_be_a_schedule(monkeypatch):
    """0.04 in the beginning, 0.03, 0.02, 0.01 and 0 at the updates: a KL of 0.02 is just right at the second."""
    script(monkeypatch, *itertools.repeat(0.02, 8))
    model = make_model(target_kl=lambda remaining: 0.04 * remaining)
    targets, betas = [], []

    def look(local_variables, _):
        targets.append(model.logger.name_to_value.get("train/target_kl"))
        betas.append(model.current_kl_coef)
        return True

    model.learn(64, look, log_interval=None)
    assert targets[16::16] == [0.03, 0.02, 0.01]
    assert model.logger.name_to_value["train/target_kl"] == 0
    assert [*betas[::16], model.current_kl_coef] == [1, 1, 1, 2, 4]


def test_beta_stays_fixed_if_asked_to(monkeypatch):
    script(monkeypatch, *itertools.repeat(9.0, 8))
    model = make_model(adaptive_kl=False, kl_coef=3.0).learn(64)
    assert model.current_kl_coef == 3.0


def test_beta_is_the_weight_of_the_penalty():
    """A large one keeps KL small."""
    kl = [
        make_model(kl_coef=kl_coef, adaptive_kl=False, n_epochs=10, learning_rate=3e-3).learn(16)
        for kl_coef in (0.0, 1.0, 100.0)
    ]
    none, some, much = (model.logger.name_to_value["train/kl"] for model in kl)
    assert none > some > much > 0


def test_beta_survives_saving_and_loading(tmp_path, monkeypatch):
    script(monkeypatch, *itertools.repeat(9.0, 8))
    model = make_model().learn(48)
    assert model.current_kl_coef == 8.0
    model.save(tmp_path / "model")
    loaded = AdaptiveKLPPO.load(tmp_path / "model", env=model.get_env(), device="cpu")
    assert (loaded.current_kl_coef, loaded.kl_coef) == (8.0, 1.0)
    loaded.learn(16, reset_num_timesteps=False)
    assert loaded.current_kl_coef == 16.0
