"""Every property has an estimator that lacks it; the built-in ones have them all."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from sb3_pg_ext.estimators import GAE, AdvantageEstimate
from sb3_pg_ext.plugins import EstimatorSpec
from sb3_pg_ext.testing import check


def plus(rollout, numbers):
    """GAE, with something added to its advantages."""
    estimate = GAE()(rollout)
    return replace(estimate, advantages=(estimate.advantages + numbers).astype(np.float32))


def double_precision(rollout):
    estimate = GAE()(rollout)
    return replace(estimate, advantages=estimate.advantages.astype(np.float64))


def a_pair(rollout):
    estimate = GAE()(rollout)
    return estimate.advantages, estimate.returns


def flat_for_one_step(rollout):
    estimate = GAE()(rollout)
    return AdvantageEstimate(estimate.advantages.squeeze(), estimate.returns)


def not_finite(rollout):
    return plus(rollout, np.where(rollout.truncated, np.nan, 0.0))


def shifts_rewards(rollout):
    rollout.rewards[0] += 1
    return GAE()(rollout)


def random(rollout):
    return plus(rollout, np.random.standard_normal(rollout.rewards.shape))


@dataclass(eq=False)
class Hoarder:
    """Returns one and the same array whenever the shape allows."""

    kept: AdvantageEstimate | None = None

    def __call__(self, rollout):
        estimate = GAE()(rollout)
        if self.kept is None or self.kept.advantages.shape != estimate.advantages.shape:
            self.kept = estimate
        self.kept.advantages[:], self.kept.returns[:] = estimate.advantages, estimate.returns
        return self.kept


def favours_even_environments(rollout):
    return plus(rollout, np.arange(rollout.rewards.shape[1]) % 2 == 0)


def centres_each_step(rollout):
    return plus(rollout, -rollout.rewards.mean(axis=1, keepdims=True))


def goes_on_after_truncation(rollout):
    return GAE()(replace(rollout, truncated=rollout.truncated & False))


def knows_what_follows_termination(rollout):
    return plus(rollout, np.where(rollout.terminated, rollout.next_values, 0.0))


def ends_where_truncated(rollout):
    return GAE()(replace(rollout, next_values=np.where(rollout.truncated, np.float32(0), rollout.next_values)))


def ends_where_cut(rollout):
    next_values = rollout.next_values.copy()
    next_values[-1] *= rollout.episode_ends[-1]
    return GAE()(replace(rollout, next_values=next_values))


def rewards_truncation(rollout):
    return plus(rollout, rollout.truncated & ~rollout.terminated)


def weighs_by_ratio(rollout):
    if rollout.target_log_probs is None:
        return GAE()(rollout)
    return plus(rollout, np.exp(rollout.target_log_probs - rollout.behaviour_log_probs))


def fails_on_one_environment(rollout):
    if rollout.rewards.shape[1] == 1:
        raise IndexError("the second environment is missing")
    return GAE()(rollout)


FAULTS = {
    double_precision: "returns finite float32 arrays",
    a_pair: "returns finite float32 arrays",
    flat_for_one_step: "returns finite float32 arrays",
    not_finite: "returns finite float32 arrays",
    fails_on_one_environment: "returns finite float32 arrays",
    shifts_rewards: "does not modify its input",
    random: "is deterministic",
    Hoarder(): "is deterministic",
    favours_even_environments: "permutes with the environments",
    centres_each_step: "treats environments separately",
    goes_on_after_truncation: "treats episodes separately",
    knows_what_follows_termination: "ignores next values of terminations",
    ends_where_truncated: "bootstraps where an episode is truncated",
    ends_where_cut: "bootstraps where the rollout is cut",
    rewards_truncation: "needs neither truncation nor raw rewards",
    weighs_by_ratio: "needs no log probs",
}


@pytest.mark.parametrize(
    ("estimator", "fault"), FAULTS.items(), ids=lambda x: x if isinstance(x, str) else getattr(x, "__name__", "hoarder")
)
def test_a_fault_is_named(failing, estimator, fault):
    assert fault in failing(EstimatorSpec("broken", lambda: estimator))


@pytest.mark.parametrize("requirement", ["truncation", "raw_rewards"])
def test_who_declares_truncation_may_read_them(requirement):
    check(EstimatorSpec("broken", lambda: rewards_truncation, frozenset({requirement})))


def test_who_declares_log_probabilities_may_read_them():
    check(EstimatorSpec("broken", lambda: weighs_by_ratio, frozenset({"target_log_probs"})))


def test_a_message_names_property_place_and_data():
    with pytest.raises(AssertionError) as raised:
        check(EstimatorSpec("broken", lambda: goes_on_after_truncation))
    lines = str(raised.value).splitlines()
    assert lines[0] == "The estimator 'broken' does not keep its contract:"
    assert lines[1].startswith("- treats episodes separately: advantages at step 0 of environment 0 are ")
    assert lines[1].endswith(
        " (terminated = False, truncated = True between two rollouts), on T = 1, N = 1, no end, γ = 0.9"
    )


def test_clipping_large_differences_is_no_fault():
    def clipped(rollout):
        deltas = np.clip(rollout.td_errors, -0.01, 0.01)
        return AdvantageEstimate(deltas, deltas + rollout.values)

    check(EstimatorSpec("clipped", lambda: clipped))


def test_who_reads_log_probabilities_without_declaring_them_gets_a_hint():
    def weighs(rollout):
        return plus(rollout, np.exp(rollout.target_log_probs.copy() - rollout.behaviour_log_probs))

    with pytest.raises(AssertionError, match=r"needs no log probs: AttributeError: .*'target_log_probs'\?\), on"):
        check(EstimatorSpec("broken", lambda: weighs))
