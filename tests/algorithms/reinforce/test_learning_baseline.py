"""A baseline that learns is fitted after it was used, and what it has learned is saved with the algorithm."""

import pytest
from gymnasium import spaces
from scripted import Script, ScriptedEnv

from sb3_pg_ext import REINFORCE


def make_model(**kwargs):
    env = ScriptedEnv(spaces.Discrete(2), Script((1.0,)), Script((3.0,)), Script((8.0,)))
    return REINFORCE(
        "MlpPolicy",
        env,
        n_episodes=1,
        baseline="moving_average",
        baseline_kwargs={"decay": 0.5},
        device="cpu",
        seed=0,
        **kwargs,
    )


def test_it_never_predicts_a_return_that_it_has_seen():
    model, advantages = make_model(), []
    for _ in range(3):
        model.learn(1, reset_num_timesteps=False)
        advantages.append(model.rollout_buffer.advantages.item())
    assert advantages == pytest.approx([1, 3 - 1, 8 - (2 * 3 + 1) / 3])


def test_it_goes_on_where_it_was_saved(tmp_path):
    make_model().learn(2).save(tmp_path / "model")
    env = ScriptedEnv(spaces.Discrete(2), Script((8.0,)))
    model = REINFORCE.load(tmp_path / "model", env=env, device="cpu").learn(1, reset_num_timesteps=False)
    assert model.rollout_buffer.advantages.item() == pytest.approx(8 - (2 * 3 + 1) / 3)


@pytest.mark.filterwarnings("ignore:.*skipped:RuntimeWarning")
def test_it_does_not_learn_from_an_update_that_was_skipped():
    model = make_model(learning_rate=lambda left: 1e-3 if left == 1 else float("inf")).learn(1)
    assert model._baseline == make_model()._baseline
