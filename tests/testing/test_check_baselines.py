"""Every property has a baseline that lacks it; the built-in ones have them all."""

from dataclasses import dataclass, field
from itertools import count

import numpy as np
import pytest

from sb3_pg_ext.baselines.residual import QProp
from sb3_pg_ext.plugins import BaselineSpec
from sb3_pg_ext.testing import check

calls = count()


def zeros(episodes):
    return np.zeros_like(episodes.returns)


def one_per_episode(episodes):
    return np.zeros(len(episodes.lengths), np.float32)


def double_precision(episodes):
    return np.zeros(len(episodes.returns))


def a_list(episodes):
    return [0.0] * len(episodes.returns)


def not_finite(episodes):
    return zeros(episodes) + np.log(episodes.t, where=episodes.t > 0, out=np.full(len(episodes.t), -np.inf, np.float32))


def sorts_returns(episodes):
    episodes.returns.sort()
    return zeros(episodes)


def counts_calls(episodes):
    return zeros(episodes) + np.float32(next(calls))


def favours_the_first_episode(episodes):
    return (episodes.episode_id == 0).astype(np.float32)


def mean(episodes):
    return np.full_like(episodes.returns, episodes.returns.mean())


def critic(episodes):
    return zeros(episodes) if episodes.values is None else episodes.values


def total_length(episodes):
    return episodes.lengths[episodes.episode_id].astype(np.float32)


def own_score(episodes):
    return np.ascontiguousarray(episodes.scores[:, 0])


def next_observation(episodes):
    following = np.append(episodes.observations[1:, 0], np.float32(0))
    return np.where(np.append(np.diff(episodes.episode_id), 1), np.float32(0), following)


FAULTS = {
    one_per_episode: "returns one finite float32 number per step",
    double_precision: "returns one finite float32 number per step",
    a_list: "returns one finite float32 number per step",
    not_finite: "returns one finite float32 number per step",
    sorts_returns: "does not modify its input",
    counts_calls: "is deterministic",
    favours_the_first_episode: "does not depend on the order of episodes",
    mean: "does not see what the action leads to",
    total_length: "does not see what the action leads to",
    own_score: "does not see what the action leads to",
    next_observation: "does not see what the action leads to",
    critic: "needs no values",
}


@pytest.mark.parametrize(("baseline", "fault"), FAULTS.items(), ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_a_fault_is_named(failing, baseline, fault):
    assert fault in failing(BaselineSpec("broken", lambda: baseline))


def test_who_declares_a_bias_may_have_it():
    check(BaselineSpec("mean", lambda: mean, unbiased=False))


def test_who_declares_values_may_read_them():
    class Critic:
        needs_values = True

        def __call__(self, episodes):
            return episodes.values

    check(BaselineSpec("critic", Critic))


@dataclass
class MovingAverage:
    """The mean of all returns seen so far."""

    seen: list[float] = field(default_factory=list)

    def __call__(self, episodes):
        return np.full_like(episodes.returns, np.mean(self.seen or [0.0]))

    def fit(self, episodes):
        self.seen.extend(episodes.returns)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def test_a_baseline_may_learn_from_earlier_batches():
    check(BaselineSpec("moving_average", MovingAverage))


def test_fitting_is_checked_as_well(failing):
    class Scales(MovingAverage):
        def fit(self, episodes):
            episodes.returns *= 2

    assert "does not modify its input" in failing(BaselineSpec("broken", Scales))


def test_who_learns_has_a_state(failing):
    class Forgets:
        def __call__(self, episodes):
            return zeros(episodes)

        def fit(self, episodes):
            """Learns, and keeps it to itself."""

    assert "goes on from its state" in failing(BaselineSpec("broken", Forgets))


def test_the_state_holds_what_was_learned(failing):
    class Loses(MovingAverage):
        def load_state_dict(self, state):
            self.seen = state["seen"][:1]

    assert "goes on from its state" in failing(BaselineSpec("broken", Loses))


def test_a_message_names_property_step_and_data():
    with pytest.raises(AssertionError) as raised:
        check(BaselineSpec("broken", lambda: mean))
    assert str(raised.value).splitlines()[1] == (
        "- does not see what the action leads to: the baseline of step 0 is 0.446998 instead of 0.289807 "
        "(if episode 0 goes on otherwise from step 0 on; should the record say unbiased=False?), "
        "on episodes of 1, 7 and 3 steps, rewards to go"
    )


def test_who_reads_values_without_declaring_them_gets_a_hint():
    with pytest.raises(AssertionError) as raised:
        check(BaselineSpec("broken", lambda: lambda episodes: episodes.values.copy()))
    assert str(raised.value).splitlines()[1] == (
        "- needs no values: AttributeError: 'NoneType' object has no attribute 'copy' "
        "(without values; is needs_values = True missing?), on episodes of 1, 7 and 3 steps, rewards to go"
    )


def test_a_correction_that_is_missing_or_wrong_is_noticed(failing):
    class Uncorrected(QProp):
        correction = None

    class Doubled(QProp):
        def correction(self, episodes):
            for actions, terms in super().correction(episodes):
                yield actions, 2 * terms

    fault = "gives back what it takes for the action"
    for broken in (Uncorrected, Doubled):
        assert fault in failing(BaselineSpec("broken", broken), conservative=False)
    check(BaselineSpec("q_prop", QProp), conservative=False)


def test_who_sees_the_action_and_corrects_nothing_has_a_bias(failing):
    class Cheats:
        needs_actions = True

        def __call__(self, episodes):
            return episodes.actions[:, 0].astype(np.float32)

    assert "gives back what it takes for the action" in failing(BaselineSpec("broken", Cheats))
    check(BaselineSpec("biased", Cheats, unbiased=False))
