"""What is logged: under SB3's own names, and finite."""

import math
from numbers import Number

from .algorithms import STEPS, Algorithm, record

COMMON = {
    "rollout/ep_rew_mean",
    "rollout/ep_len_mean",
    "time/fps",
    "time/time_elapsed",
    "time/total_timesteps",
    "train/learning_rate",
    "train/n_updates",
}
OF_THIS_PACKAGE = {"rollout/n_dropped", "train/n_skipped", "rollout/reward_mean", "time/update_seconds"}
OF_OWN_POLICY_GRADIENTS = {
    "train/advantage_mean",
    "train/advantage_std",
    "train/entropy_loss",
    "train/explained_variance",
    "train/grad_norm",
    "train/kl",
    "train/std",
    "train/step_norm",
    "train/value_loss",
}


def test_logs_what_sb3_logs_and_what_this_package_adds(algorithm: Algorithm):
    model = algorithm()
    records = record(model)
    model.learn(4 * STEPS, log_interval=1)
    expected = COMMON | OF_THIS_PACKAGE | {"time/episodes" if algorithm.spec.off_policy else "time/iterations"}
    if algorithm.has_own_constructor and not algorithm.spec.off_policy:
        expected |= OF_OWN_POLICY_GRADIENTS
    assert expected <= records.latest.keys()


def test_everything_logged_is_a_finite_number(algorithm: Algorithm):
    model = algorithm()
    records = record(model)
    model.learn(4 * STEPS, log_interval=1)
    for key, value in (item for logged in records.dumps for item in logged.items()):
        assert isinstance(value, Number), key
        assert math.isfinite(value), key
