"""What ``predict`` gives."""

import numpy as np
import pytest
from envs import RandomEnv
from stable_baselines3.common.utils import set_random_seed

from .algorithms import Algorithm

OBSERVATIONS = np.random.default_rng(0).uniform(-1, 1, (64, 3)).astype(np.float32)


@pytest.mark.parametrize("deterministic", [False, True])
def test_one_observation_has_one_action_and_several_have_several(algorithm: Algorithm, deterministic):
    model = algorithm()
    action, state = model.predict(OBSERVATIONS[0], deterministic=deterministic)
    actions, _ = model.predict(OBSERVATIONS, deterministic=deterministic)
    assert action.shape == model.action_space.shape
    assert actions.shape == (64, *model.action_space.shape)
    assert state is None


def test_deterministic_actions_are_the_same_every_time(algorithm: Algorithm):
    model = algorithm()
    first, second = (model.predict(OBSERVATIONS, deterministic=True)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert len(np.unique(first)) > 1


def test_stochastic_actions_follow_the_seed(algorithm: Algorithm):
    model = algorithm()

    def sample(seed):
        set_random_seed(seed)
        return model.predict(OBSERVATIONS)[0]

    np.testing.assert_array_equal(sample(1), sample(1))
    if not algorithm.spec.off_policy:  # off-policy algorithms may explore in the environment alone
        assert not np.array_equal(sample(1), sample(2))


def test_needs_no_environment_to_predict(algorithm: Algorithm, tmp_path):
    model = algorithm(RandomEnv())
    model.save(tmp_path / "model")
    loaded = algorithm.cls.load(tmp_path / "model", device=algorithm.device)
    assert loaded.get_env() is None
    expected, actual = (m.predict(OBSERVATIONS, deterministic=True)[0] for m in (model, loaded))
    np.testing.assert_array_equal(expected, actual)
