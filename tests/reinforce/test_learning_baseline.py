"""A baseline that learns is fitted after it was used, and what it has learned is saved with the algorithm."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from gymnasium import spaces
from scripted import Script, ScriptedEnv

from sb3_pg_ext import REINFORCE
from sb3_pg_ext.reinforce import reinforce


@dataclass
class Running:
    """The mean of all returns of earlier updates."""

    history: list[float] = field(default_factory=list)

    def __call__(self, episodes):
        mean = np.mean(self.history) if self.history else 0.0
        return np.full_like(episodes.returns, mean)

    def fit(self, episodes):
        self.history.extend(episodes.returns.tolist())

    def state_dict(self):
        return {"history": list(self.history)}

    def load_state_dict(self, state):
        self.history = list(state["history"])


@pytest.fixture(autouse=True)
def running(monkeypatch):
    monkeypatch.setattr(reinforce, "make_baseline", lambda name: Running())


def make_model(**kwargs):
    env = ScriptedEnv(spaces.Discrete(2), Script((1.0,)), Script((3.0,)), Script((8.0,)))
    return REINFORCE("MlpPolicy", env, n_episodes=1, baseline="running", device="cpu", seed=0, **kwargs)


def test_it_never_predicts_a_return_that_it_has_seen():
    model, advantages = make_model(), []
    for _ in range(3):
        model.learn(1, reset_num_timesteps=False)
        advantages.append(model.rollout_buffer.advantages.item())
    assert advantages == [1, 3 - 1, 8 - 2]


def test_it_goes_on_where_it_was_saved(tmp_path):
    make_model().learn(2).save(tmp_path / "model")
    env = ScriptedEnv(spaces.Discrete(2), Script((8.0,)))
    model = REINFORCE.load(tmp_path / "model", env=env, device="cpu").learn(1, reset_num_timesteps=False)
    assert model.rollout_buffer.advantages.item() == 8 - 2


@pytest.mark.filterwarnings("ignore:.*skipped:RuntimeWarning")
def test_it_does_not_learn_from_an_update_that_was_skipped():
    model = make_model(learning_rate=float("inf"))
    model.learn(1)
    assert model._baseline.history == []
