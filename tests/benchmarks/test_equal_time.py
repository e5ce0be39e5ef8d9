"""A3C beside A2C at equal time."""

import pytest
from equal_time import SIDES, make, measure, returns_after
from stable_baselines3 import A2C

from sb3_pg_ext import A3C, fast

CLASSES = {"a3c": A3C, "a2c": A2C, "fast_a2c": fast.A2C}


@pytest.mark.parametrize("side", SIDES)
def test_sides_are_made_as_they_are_configured(side, tmp_path):
    model = make(side, "Acrobot-v1", tmp_path)
    assert type(model) is CLASSES[side]
    assert model.env.norm_obs
    model.env.close()


def test_what_a_faster_or_slower_one_has_come_to():
    runs = [{"evaluations": [[100, 1.0], [200, 5.0]]}, {"evaluations": [[100, 3.0], [200, 7.0]]}]
    assert returns_after(60, runs).startswith("2.0 ±")
    assert returns_after(100, runs).startswith("2.0 ±")
    assert returns_after(101, runs).startswith("6.0 ±")
    assert returns_after(1000, runs).startswith("6.0 ±")


@pytest.mark.slow
def test_speeds(tmp_path):
    speed, start_up = measure(make("fast_a2c", "CartPole-v1", tmp_path), 1000)
    assert speed > 0 < start_up
