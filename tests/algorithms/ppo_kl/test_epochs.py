"""What happens from epoch to epoch, and what is logged of it."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from envs import OBSERVATION_SPACES, RandomEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_pg_ext.estimators import GAE
from sb3_pg_ext.policies import SmallCNN

from .models import make_model


def logged(model):
    return model.logger.name_to_value


def test_training_stops_early():
    model = make_model(n_epochs=5, early_stop_kl=1e-12).learn(16)
    assert "kl/epoch_1" in logged(model)
    assert "kl/epoch_2" not in logged(model)
    assert logged(model)["train/kl"] == logged(model)["kl/epoch_1"]
    model = make_model(n_epochs=5, early_stop_kl=1e6).learn(16)
    assert "kl/epoch_5" in logged(model)


@pytest.mark.parametrize(("early_stop_kl", "epochs"), [(None, [3]), (1e6, [1, 2, 3])])
def test_kl_of_a_dear_policy_is_measured_where_it_is_needed(early_stop_kl, epochs):
    env = DummyVecEnv([lambda: RandomEnv(observation_space=OBSERVATION_SPACES["image"])])
    policy_kwargs = {"features_extractor_class": SmallCNN, "features_extractor_kwargs": {"features_dim": 4}}
    model = make_model(env, n_epochs=3, early_stop_kl=early_stop_kl, policy_kwargs=policy_kwargs).learn(16)
    assert [key for key in logged(model) if key.startswith("kl/")] == [f"kl/epoch_{epoch}" for epoch in epochs]
    assert logged(model)["train/kl"] == logged(model)["kl/epoch_3"] > 0


@dataclass(frozen=True)
class Counting:
    """GAE that counts its calls, and keeps what it was given."""

    gae_lambda: float = 0.95
    seen: list = field(default_factory=list)

    def __call__(self, rollout):
        self.seen.append(rollout)
        return GAE(self.gae_lambda)(rollout)


@pytest.mark.parametrize(("recompute", "calls"), [(False, 1), (True, 3)])
def test_advantages_are_recomputed_if_asked_for(recompute, calls):
    estimator = Counting()
    make_model(n_epochs=3, recompute_advantages=recompute, advantage_estimator=estimator).learn(16)
    assert len(estimator.seen) == calls
    assert all((a.values != b.values).any() for a, b in zip(estimator.seen, estimator.seen[1:], strict=False))


def test_recomputed_advantages_change_what_is_learned():
    one, other = (make_model(n_epochs=3, recompute_advantages=flag, learning_rate=1e-2) for flag in (False, True))
    for model in (one, other):
        model.learn(16)
    assert (one.policy.action_net.weight != other.policy.action_net.weight).any()


def test_every_minibatch_is_used_once_an_epoch(monkeypatch):
    model = make_model(batch_size=5)
    sizes = []

    def differentiate(engine, objective, steps):
        sizes.append(len(steps))
        return original(engine, objective, steps)

    cls = type(model._make_backend())
    original = cls.differentiate
    monkeypatch.setattr(cls, "differentiate", differentiate)
    model.learn(16)
    assert sizes == [4] * 2 * 4


def test_schedules():
    model = make_model(clip_range=lambda remaining: 0.1 + remaining, clip_range_vf=lambda remaining: 2 + remaining)
    model.learn(64)  # nothing remains at its last update
    assert logged(model)["train/clip_range"] == 0.1
    assert logged(model)["train/clip_range_vf"] == 2


def test_what_is_logged_fits_together():
    model = make_model(ent_coef=0.1, kl_coef=2.0, n_epochs=1, batch_size=16, learning_rate=1e-2).learn(16)
    log = logged(model)
    parts = log["train/policy_gradient_loss"] + 0.5 * log["train/value_loss"] + 0.1 * log["train/entropy_loss"]
    assert log["train/loss"] == pytest.approx(parts + 2 * log["train/kl_loss"], rel=1e-5)
    assert log["train/kl_coef"] == 2.0
    assert log["train/target_kl"] == 0.01
    assert log["train/n_updates"] == 1
    assert log["train/ratio_min"] < 1 < log["train/ratio_max"]
    assert log["train/ratio_mean"] == pytest.approx(1, abs=0.3)
    relative_variance = (log["train/ratio_std"] / log["train/ratio_mean"]) ** 2
    assert log["train/effective_sample_size"] == pytest.approx(1 / (1 + relative_variance))
    fractions = [log[f"train/clip_fraction_{clip_range}"] for clip_range in (0.1, 0.2, 0.3)]
    assert 1 >= fractions[0] >= fractions[1] >= fractions[2] >= 0


def test_values_of_the_rollout_are_in_the_buffer():
    model = make_model(n_envs=2).learn(32)
    buffer = model.rollout_buffer
    assert buffer.values.shape == buffer.advantages.shape == (16, 2)
    np.testing.assert_allclose(buffer.returns, buffer.advantages + buffer.values, rtol=1e-5, atol=1e-6)
