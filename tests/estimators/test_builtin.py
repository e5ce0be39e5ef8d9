"""The built-in estimators against their definitions in float64, against SB3, and against each other."""

from dataclasses import replace

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import RolloutBuffer

from sb3_pg_ext.estimators import GAE, TD0, UPGO, MonteCarlo, NStep, Rollout, VTrace

SHAPES = [(1, 1), (60, 1), (1, 16), (40, 3), (40, 16)]
ARRAYS = ("rewards", "values", "next_values", "terminated", "truncated", "behaviour_log_probs", "target_log_probs")
LINEAR = [GAE(0.9), MonteCarlo(), NStep(3), TD0(), VTrace(1.5, 1.2, 0.8)]
ALL = [*LINEAR, UPGO(0.9)]


def make_rollout(shape, seed=0, gamma=0.97):
    """Every kind of end where there is room for it: in the middle and on the last step."""
    rng = np.random.default_rng(seed)
    ends = rng.choice(3, size=shape, p=[0.8, 0.1, 0.1])
    ends[-1, : (shape[1] + 1) // 2] = rng.choice(3, size=(shape[1] + 1) // 2)
    values = rng.normal(size=(shape[0] + 1, shape[1])).astype(np.float32)
    final_values = rng.normal(size=shape).astype(np.float32)
    return Rollout(
        rewards=rng.normal(size=shape).astype(np.float32),
        values=values[:-1],
        next_values=np.where(ends > 0, final_values, values[1:]),
        terminated=ends == 1,
        truncated=ends == 2,
        gamma=gamma,
        behaviour_log_probs=rng.normal(size=shape).astype(np.float32),
        target_log_probs=rng.normal(size=shape).astype(np.float32),
    )


def change(rollout, function):
    """The rollout with every array passed through ``function``."""
    return replace(rollout, **{name: function(getattr(rollout, name)) for name in ARRAYS})


def n_step_advantage(rollout, t, env, n):
    """Rewards term by term, then a bootstrap, in float64; and whether the segment goes on after these n steps."""
    total, weight = -float(rollout.values[t, env]), 1.0
    for k in range(t, t + n):
        total += weight * float(rollout.rewards[k, env])
        weight *= rollout.gamma
        ends = bool(rollout.episode_ends[k, env]) or k == len(rollout.rewards) - 1
        if ends:
            break
    if not rollout.terminated[k, env]:
        total += weight * float(rollout.next_values[k, env])
    return total, not ends


def lambda_advantage(rollout, t, env, gae_lambda):
    """The definition of GAE: n-step advantages of all lengths, weighted by (1 − λ)·λ^{n−1}; the rest on the longest."""
    total, weight, n = 0.0, 1.0, 1
    while True:
        advantage, goes_on = n_step_advantage(rollout, t, env, n)
        if not goes_on:
            return total + weight * advantage
        total += weight * (1 - gae_lambda) * advantage
        weight *= gae_lambda
        n += 1


def for_all_steps(rollout, function):
    steps, envs = rollout.rewards.shape
    return np.array([[function(t, env) for env in range(envs)] for t in range(steps)])


def assert_matches(actual, oracle):
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, oracle, rtol=1e-5, atol=1e-5 * np.abs(oracle).max())


def assert_equal(actual, expected):
    np.testing.assert_array_equal(actual.advantages, expected.advantages)
    np.testing.assert_array_equal(actual.returns, expected.returns)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("estimator", "oracle"),
    [
        (GAE(0.9), lambda rollout, t, env: lambda_advantage(rollout, t, env, 0.9)),
        (MonteCarlo(), lambda rollout, t, env: n_step_advantage(rollout, t, env, 10**6)[0]),
        (NStep(3), lambda rollout, t, env: n_step_advantage(rollout, t, env, 3)[0]),
        (NStep(), lambda rollout, t, env: n_step_advantage(rollout, t, env, 5)[0]),
        (TD0(), lambda rollout, t, env: n_step_advantage(rollout, t, env, 1)[0]),
    ],
)
def test_matches_its_definition(estimator, oracle, shape):
    rollout = make_rollout(shape)
    expected = for_all_steps(rollout, lambda t, env: oracle(rollout, t, env))
    estimate = estimator(rollout)
    assert_matches(estimate.advantages, expected)
    assert_matches(estimate.returns, expected + rollout.values)


@pytest.mark.parametrize("shape", SHAPES)
def test_vtrace_matches_its_definition(shape):
    rollout, estimator = make_rollout(shape), VTrace(1.5, 1.2, 0.8)
    targets, advantages = np.zeros(shape), np.zeros(shape)
    for env in range(shape[1]):
        for t in reversed(range(shape[0])):
            value, bootstrap = float(rollout.values[t, env]), float(rollout.next_values[t, env])
            last = t == shape[0] - 1 or rollout.episode_ends[t, env]
            target = bootstrap if last else targets[t + 1, env]
            gamma = rollout.gamma * (not rollout.terminated[t, env])
            ratio = np.exp(float(rollout.target_log_probs[t, env]) - float(rollout.behaviour_log_probs[t, env]))
            reward = float(rollout.rewards[t, env])
            advantages[t, env] = reward + gamma * (0.8 * target + 0.2 * bootstrap) - value
            targets[t, env] = (
                value
                + min(1.5, ratio) * (reward + gamma * bootstrap - value)
                + gamma * 0.8 * min(1.2, ratio) * (target - bootstrap)
            )
    estimate = estimator(rollout)
    assert_matches(estimate.advantages, advantages)
    assert_matches(estimate.returns, targets)


@pytest.mark.parametrize("shape", SHAPES)
def test_upgo_matches_its_definition(shape):
    rollout = make_rollout(shape)
    expected = np.zeros(shape)  # upgoing returns
    for env in range(shape[1]):
        for t in reversed(range(shape[0])):
            following = float(rollout.next_values[t, env])
            last = t == shape[0] - 1 or rollout.episode_ends[t, env]
            if not last and n_step_advantage(rollout, t + 1, env, 1)[0] >= 0:
                following = expected[t + 1, env]
            expected[t, env] = float(rollout.rewards[t, env])
            expected[t, env] += rollout.gamma * following * (not rollout.terminated[t, env])
    estimate = UPGO(0.9)(rollout)
    assert_matches(estimate.advantages, expected - rollout.values)
    np.testing.assert_array_equal(estimate.returns, GAE(0.9)(rollout).returns)


@settings(deadline=None, max_examples=50)
@given(
    shape=st.tuples(st.integers(1, 60), st.sampled_from([1, 2, 16])),
    seed=st.integers(0, 2**16),
    gamma=st.floats(0, 1),
    gae_lambda=st.floats(0, 1),
)
def test_gae_is_bitwise_that_of_sb3(shape, seed, gamma, gae_lambda):
    rollout = make_rollout(shape, seed, gamma)
    buffer = RolloutBuffer(
        shape[0], spaces.Box(-1, 1, (1,)), spaces.Discrete(2), "cpu", gae_lambda, gamma, n_envs=shape[1]
    )
    # As SB3's collect_rollouts does at a time limit, in float32.
    folded = rollout.rewards + (np.float32(gamma) * rollout.next_values) * rollout.truncated
    buffer.rewards[:] = np.where(rollout.truncated, folded, rollout.rewards)
    buffer.values[:] = rollout.values
    buffer.episode_starts[1:] = rollout.episode_ends[:-1]
    buffer.compute_returns_and_advantage(th.as_tensor(rollout.next_values[-1]), rollout.episode_ends[-1])
    estimate = GAE(gae_lambda)(rollout)
    assert estimate.advantages.tobytes() == buffer.advantages.tobytes()
    assert estimate.returns.tobytes() == buffer.returns.tobytes()


@settings(deadline=None, max_examples=50)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 6)),
    seed=st.integers(0, 2**16),
    gamma=st.floats(0, 1),
    gae_lambda=st.floats(0, 1),
)
def test_estimators_that_coincide(shape, seed, gamma, gae_lambda):
    rollout = make_rollout(shape, seed, gamma)
    monte_carlo = MonteCarlo()(rollout)
    assert_equal(GAE(1.0)(rollout), monte_carlo)
    assert_equal(GAE(0.0)(rollout), TD0()(rollout))
    assert_equal(NStep(1)(rollout), TD0()(rollout))
    assert_matches(NStep(shape[0])(rollout).advantages, monte_carlo.advantages)
    assert_equal(NStep(shape[0])(rollout), NStep(10**9)(rollout))
    on_policy = replace(rollout, target_log_probs=rollout.behaviour_log_probs)
    assert_equal(VTrace(lambda_=gae_lambda)(on_policy), GAE(gae_lambda)(rollout))


def test_vtrace_advantages_come_without_the_ratio_of_their_own_step():
    rollout = make_rollout((30, 4))
    weighted = rollout.target_log_probs.copy()
    weighted[::2] += 0.7
    changed = VTrace()(replace(rollout, target_log_probs=weighted)).advantages
    last = (rollout.episode_ends) | (np.arange(30) == 29)[:, None]
    assert not np.array_equal(changed, VTrace()(rollout).advantages)
    np.testing.assert_array_equal(changed[last], rollout.td_errors[last])


@pytest.mark.parametrize("estimator", LINEAR, ids=repr)
def test_linear_in_rewards_and_values(estimator):
    first, second = make_rollout((30, 4), 1), make_rollout((30, 4), 2)
    mixed = replace(
        first,
        **{
            name: np.float32(2) * getattr(first, name) - np.float32(3) * getattr(second, name)
            for name in ("rewards", "values", "next_values")
        },
    )
    same_ends = replace(first, rewards=second.rewards, values=second.values, next_values=second.next_values)
    one, other, both = estimator(first), estimator(same_ends), estimator(mixed)
    assert_matches(both.advantages, 2.0 * one.advantages - 3.0 * other.advantages)
    assert_matches(both.returns, 2.0 * one.returns - 3.0 * other.returns)


@pytest.mark.parametrize("kind", ["terminated", "truncated"])
@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_joined_episodes_are_separate_episodes(estimator, kind):
    first, second = make_rollout((13, 3), 1), make_rollout((8, 3), 2)
    last = np.zeros((13, 3), bool)
    last[-1] = True
    first = replace(first, **{kind: getattr(first, kind) | last})
    joined = replace(first, **{name: np.vstack([getattr(first, name), getattr(second, name)]) for name in ARRAYS})
    estimate, before, after = estimator(joined), estimator(first), estimator(second)
    np.testing.assert_allclose(
        estimate.advantages, np.vstack([before.advantages, after.advantages]), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(estimate.returns, np.vstack([before.returns, after.returns]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_permuting_environments_permutes_the_result(estimator):
    rollout, order = make_rollout((30, 6)), np.array([3, 0, 5, 1, 4, 2])
    permuted, estimate = estimator(change(rollout, lambda array: array[:, order])), estimator(rollout)
    np.testing.assert_array_equal(permuted.advantages, estimate.advantages[:, order])
    np.testing.assert_array_equal(permuted.returns, estimate.returns[:, order])


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_the_number_of_environments_side_by_side_does_not_matter(estimator):
    rollout = make_rollout((30, 16))
    estimate = estimator(rollout)
    for env in range(16):
        alone = estimator(change(rollout, lambda array, env=env: array[:, env : env + 1]))
        np.testing.assert_array_equal(alone.advantages, estimate.advantages[:, env : env + 1])
        np.testing.assert_array_equal(alone.returns, estimate.returns[:, env : env + 1])


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_termination_cuts_and_truncation_bootstraps(estimator):
    rollout = make_rollout((30, 4))
    terminal = np.where(rollout.terminated, np.float32(100), rollout.next_values)
    assert_equal(estimator(replace(rollout, next_values=terminal)), estimator(rollout))
    cut = rollout.truncated & ~rollout.terminated
    estimate = estimator(replace(rollout, next_values=rollout.next_values + cut.astype(np.float32)))
    changes = estimate.advantages - estimator(rollout).advantages
    np.testing.assert_allclose(changes[cut], rollout.gamma, rtol=1e-5)


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_the_rollout_is_left_as_it_is(estimator):
    rollout = make_rollout((30, 4))
    before = change(rollout, np.copy)
    estimator(rollout)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(rollout, name), getattr(before, name))


def test_defaults():
    assert GAE().gae_lambda == UPGO().gae_lambda == 0.95
    assert NStep().n == 5
    assert (VTrace().rho_bar, VTrace().c_bar, VTrace().lambda_) == (1, 1, 1)


@pytest.mark.parametrize("missing", ["behaviour_log_probs", "target_log_probs"])
def test_vtrace_refuses_a_rollout_without_log_probabilities(missing):
    with pytest.raises(ValueError, match="vtrace requires behaviour_log_probs and target_log_probs"):
        VTrace()(replace(make_rollout((3, 1)), **{missing: None}))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GAE(1.01), r"gae_lambda=1.01; allowed: a number in \[0, 1\]"),
        (lambda: GAE(float("nan")), "gae_lambda=nan"),
        (lambda: UPGO(-0.1), "gae_lambda=-0.1"),
        (lambda: UPGO("high"), "gae_lambda='high'"),
        (lambda: NStep(0), "n=0; allowed: an integer, at least 1"),
        (lambda: NStep(2.0), "n=2.0"),
        (lambda: NStep(True), "n=True; allowed: an integer, at least 1"),
        (lambda: GAE(True), r"gae_lambda=True; allowed: a number in \[0, 1\]"),
        (lambda: GAE(np.True_), f"gae_lambda={np.True_!r}"),
        (lambda: UPGO(False), "gae_lambda=False"),
        (lambda: VTrace(rho_bar=True), "rho_bar=True; allowed: a number, at least 0"),
        (lambda: VTrace(lambda_=True), "lambda_=True"),
        (lambda: VTrace(rho_bar=0.5), "rho_bar=0.5 is less than c_bar=1.0; allowed: rho_bar ≥ c_bar"),
        (lambda: VTrace(c_bar=-1.0), "c_bar=-1.0; allowed: a number, at least 0"),
        (lambda: VTrace(rho_bar=float("nan")), "rho_bar=nan"),
        (lambda: VTrace(lambda_=2), "lambda_=2"),
    ],
)
def test_parameters_outside_their_range(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_ratios_may_be_without_a_cap():
    assert VTrace(rho_bar=float("inf"), c_bar=np.inf).rho_bar == np.inf
