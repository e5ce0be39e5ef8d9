"""What every advantage estimator has to satisfy."""

from dataclasses import replace
from typing import Any

import numpy as np

from sb3_pg_ext.estimators import AdvantageEstimate, AdvantageEstimator, Rollout, estimate_advantages
from sb3_pg_ext.functional.returns import Bools, Floats
from sb3_pg_ext.plugins import EstimatorSpec
from sb3_pg_ext.testing.arrays import arrays_of, assert_close, assert_unchanged, map_arrays
from sb3_pg_ext.testing.properties import find_failures, hint

SHAPES = ((1, 1), (1, 16), (7, 1), (7, 16))
ENDS = {  # how likely a step terminates its episode, and truncates it
    "no end": (0.0, 0.0),
    "terminations": (0.3, 0.0),
    "truncations": (0.0, 0.3),
    "terminations and truncations": (0.3, 0.3),
}
SCALES = 10.0 ** -np.arange(6)


def find_estimator_failures(spec: EstimatorSpec, **kwargs: Any) -> list[str]:
    """Which properties an estimator lacks, one message each.

    :param spec: the record under which a plug-in provides it
    :param kwargs: parameters of the estimator
    """
    estimator = spec.factory(**kwargs)
    rollouts = make_rollouts()
    if failures := find_failures([does_not_modify_its_input, returns_finite_float32_arrays], estimator, rollouts):
        return failures
    properties = [
        is_deterministic,
        permutes_with_the_environments,
        treats_environments_separately,
        treats_episodes_separately,
        ignores_next_values_of_terminations,
        bootstraps_where_an_episode_is_truncated,
        bootstraps_where_the_rollout_is_cut,
    ]
    if spec.requires.isdisjoint({"truncation", "raw_rewards"}):
        properties.append(needs_neither_truncation_nor_raw_rewards)
    if "target_log_probs" not in spec.requires:
        properties.append(needs_no_log_probs)
    return find_failures(properties, estimator, rollouts)


def make_rollouts() -> dict[str, Rollout]:
    """Random rollouts with every kind of end, by their description."""
    cases = [(*shape, end, 0.9) for shape in SHAPES for end in ENDS]
    cases += [(7, 3, "terminations and truncations", gamma) for gamma in (0.0, 1.0)]
    return {f"T = {t}, N = {n}, {end}, γ = {gamma}": _make_rollout(t, n, end, gamma) for t, n, end, gamma in cases}


def _make_rollout(n_steps: int, n_envs: int, ends: str, gamma: float) -> Rollout:
    """Standard normal rewards and values; the middle step of the first environment has every end that is possible."""
    rng = np.random.default_rng(0)
    shape = (n_steps, n_envs)

    def normal() -> Floats:
        return rng.standard_normal(shape, dtype=np.float32)

    def choose(probability: float) -> Bools:
        chosen = rng.random(shape) < probability
        chosen[n_steps // 2, 0] = probability > 0
        return chosen

    terminated, truncated = map(choose, ENDS[ends])
    values, next_values, behaviour_log_probs = normal(), normal(), -np.abs(normal())
    goes_on = ~(terminated | truncated)[:-1]
    next_values[:-1][goes_on] = values[1:][goes_on]
    target_log_probs = behaviour_log_probs + normal() / 2
    return Rollout(normal(), values, next_values, terminated, truncated, gamma, behaviour_log_probs, target_log_probs)


def returns_finite_float32_arrays(estimator: AdvantageEstimator, rollout: Rollout) -> None:
    """Advantages and returns have the shape [T, N]."""
    estimate_advantages(estimator, rollout)


def does_not_modify_its_input(estimator: AdvantageEstimator, rollout: Rollout) -> None:
    """The host reads the same arrays afterwards."""
    given = map_arrays(np.copy, rollout)
    estimator(given)
    assert_unchanged(rollout, given)


def is_deterministic(estimator: AdvantageEstimator, rollout: Rollout) -> None:
    """Equal rollouts have equal estimates, whatever comes between; an estimate does not change later."""
    first = estimator(rollout)
    kept = AdvantageEstimate(first.advantages.copy(), first.returns.copy())
    estimator(_mirror(rollout))
    assert _are_equal(first, kept), "a later call has changed an earlier estimate"
    assert _are_equal(estimator(rollout), kept), "a second call gives another estimate"


def permutes_with_the_environments(estimator: AdvantageEstimator, rollout: Rollout) -> None:
    """Environments in reverse order have their estimates in reverse order."""
    reverse = np.s_[:, ::-1]
    _assert_same(estimator(map_arrays(lambda x: x[reverse], rollout)), _select(estimator(rollout), reverse))


def treats_environments_separately(estimator: AdvantageEstimator, rollout: Rollout) -> None:
    """An environment on its own has the estimate that it has beside others."""
    alone = np.s_[:, -1:]
    _assert_same(estimator(map_arrays(lambda x: x[alone], rollout)), _select(estimator(rollout), alone))


def treats_episodes_separately(estimator: AdvantageEstimator, rollout: Rollout) -> None:
    """Two rollouts one after the other have the estimates of each, if an episode ends between them."""
    second = _mirror(rollout)
    for terminated, truncated in ((True, False), (False, True), (True, True)):
        first = _end_last_step(rollout, terminated, truncated)
        joined: dict[str, Any] = {
            name: np.concatenate([array, getattr(second, name)]) for name, array in arrays_of(first).items()
        }
        estimate, n_steps = estimator(replace(first, **joined)), len(rollout.rewards)
        with hint(f"terminated = {terminated}, truncated = {truncated} between two rollouts"):
            _assert_same(_select(estimate, np.s_[:n_steps]), estimator(first))
            _assert_same(_select(estimate, np.s_[n_steps:]), estimator(second))


def ignores_next_values_of_terminations(estimator: AdvantageEstimator, rollout: Rollout) -> None:
    """Nothing comes after a termination, so V(s_{t+1}) is unused there."""
    other = np.where(rollout.terminated, rollout.next_values + 100, rollout.next_values)
    _assert_same(estimator(replace(rollout, next_values=other)), estimator(rollout))


def bootstraps_where_an_episode_is_truncated(estimator: AdvantageEstimator, rollout: Rollout) -> None:
    """Truncation is not termination: V(s_{t+1}) stands for what would have come."""
    _assert_bootstraps(estimator, _end_last_step(rollout, terminated=False, truncated=True))


def bootstraps_where_the_rollout_is_cut(estimator: AdvantageEstimator, rollout: Rollout) -> None:
    """The episode goes on after the last step: V(s_T) stands for what comes."""
    _assert_bootstraps(estimator, _end_last_step(rollout, terminated=False, truncated=False))


def needs_neither_truncation_nor_raw_rewards(estimator: AdvantageEstimator, rollout: Rollout) -> None:
    """Within stock SB3 every end is a termination, and the reward of a truncated step has γV(s_{t+1}) folded in."""
    bootstrapped = rollout.truncated & ~rollout.terminated
    folded = replace(
        rollout,
        rewards=rollout.rewards + np.float32(rollout.gamma) * rollout.next_values * bootstrapped,
        terminated=rollout.episode_ends,
        truncated=np.zeros_like(rollout.truncated),
    )
    with hint("as stock SB3 presents it; does the estimator require 'truncation' or 'raw_rewards'?"):
        _assert_same(estimator(folded), estimator(rollout))


def needs_no_log_probs(estimator: AdvantageEstimator, rollout: Rollout) -> None:
    """A host may have no log-probabilities to give."""
    without = replace(rollout, behaviour_log_probs=None, target_log_probs=None)
    with hint("without log-probabilities; does the estimator require 'target_log_probs'?"):
        _assert_same(estimator(without), estimator(rollout))


def _are_equal(one: AdvantageEstimate, other: AdvantageEstimate) -> bool:
    return np.array_equal(one.advantages, other.advantages) and np.array_equal(one.returns, other.returns)


def _assert_same(actual: AdvantageEstimate, expected: AdvantageEstimate) -> None:
    assert_close(actual.advantages, expected.advantages, "advantages at step {} of environment {} are".format)
    assert_close(actual.returns, expected.returns, "returns at step {} of environment {} are".format)


def _assert_bootstraps(estimator: AdvantageEstimator, rollout: Rollout) -> None:
    """The last V(s_{t+1}) makes a difference; on some scale, since an estimator may clip what is large."""
    for scale in SCALES.astype(np.float32):
        small = replace(
            rollout,
            rewards=scale * rollout.rewards,
            values=scale * rollout.values,
            next_values=scale * rollout.next_values,
        )
        raised = small.next_values.copy()
        raised[-1] += scale
        if not np.array_equal(estimator(small).advantages, estimator(replace(small, next_values=raised)).advantages):
            return
    assert rollout.gamma == 0, "V(s_{t+1}) of the last step makes no difference to the advantages"


def _end_last_step(rollout: Rollout, terminated: bool, truncated: bool) -> Rollout:
    ends = {"terminated": rollout.terminated.copy(), "truncated": rollout.truncated.copy()}
    ends["terminated"][-1], ends["truncated"][-1] = terminated, truncated
    return replace(rollout, **ends)


def _mirror(rollout: Rollout) -> Rollout:
    """Another rollout of the same shape and with the same ends."""
    return replace(rollout, rewards=-rollout.rewards, values=-rollout.values, next_values=-rollout.next_values)


def _select(estimate: AdvantageEstimate, index: Any) -> AdvantageEstimate:
    return AdvantageEstimate(estimate.advantages[index], estimate.returns[index])
