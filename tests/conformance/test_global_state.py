"""Training leaves the settings of PyTorch and NumPy as it found them, and other algorithms undisturbed."""

import warnings

import numpy as np
import pytest
import torch as th
import torch._dynamo  # which PyTorch imports when it first needs it, and which then changes filters of warnings
from envs import RandomEnv
from stable_baselines3 import PPO
from threadpoolctl import threadpool_info

from .algorithms import STEPS, Algorithm, assert_identical


class Mishap(Exception):
    pass


def settings():
    def validates():
        try:
            th.distributions.Normal(0.0, -1.0)
        except ValueError:
            return True
        return False

    return {
        "threads of PyTorch": th.get_num_threads(),
        "threads of BLAS and OpenMP": [(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()],
        "default type": th.get_default_dtype(),
        "gradients": th.is_grad_enabled(),
        "inference mode": th.is_inference_mode_enabled(),
        "deterministic algorithms": th.are_deterministic_algorithms_enabled(),
        "validation of distributions": validates(),
        "errors of NumPy": np.geterr(),
        "filters of warnings": list(warnings.filters),
    }


@pytest.fixture(params=[True, False], ids=["validating", "not validating"])
def unusual(request):
    """Settings that no algorithm would choose, with and without validation of distributions."""
    n_threads = th.get_num_threads()
    th.set_num_threads(3)
    th.distributions.Distribution.set_default_validate_args(request.param)
    yield
    th.distributions.Distribution.set_default_validate_args(True)
    th.set_num_threads(n_threads)


@pytest.mark.usefixtures("unusual")
def test_training_changes_no_settings(algorithm: Algorithm):
    model = algorithm()
    before = settings()
    model.learn(STEPS)
    assert settings() == before


@pytest.mark.usefixtures("unusual")
@pytest.mark.parametrize("step", [1, 40])
def test_an_exception_changes_no_settings(algorithm: Algorithm, step):
    def fail(caller, _):
        if caller["self"].num_timesteps == step:
            raise Mishap
        return True

    model = algorithm()
    before = settings()
    with pytest.raises(Mishap):
        model.learn(STEPS, fail)
    assert settings() == before
    model.learn(STEPS)


def test_a_stock_algorithm_in_the_same_script_learns_as_if_alone(algorithm: Algorithm):
    def train_stock():
        model = PPO("MlpPolicy", RandomEnv(), n_steps=32, batch_size=32, n_epochs=2, seed=0, device="cpu")
        return model.learn(STEPS)

    alone = train_stock()
    model = algorithm()
    after_building = train_stock()
    model.learn(STEPS)
    after_training = train_stock()
    assert_identical(alone, after_building)
    assert_identical(alone, after_training)
