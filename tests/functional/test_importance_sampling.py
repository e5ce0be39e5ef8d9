"""Estimates of one policy from another's episodes: exactly, over all batches of a process with 26 episodes."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch as th
from enumeration import EPISODES, HORIZON, POLICY, all_batches, returns_of, true_gradient

from sb3_pg_ext.functional import importance
from sb3_pg_ext.functional.surrogates import ratio_loss

GAMMA = 0.9
BEHAVIOUR = np.array(POLICY, float)
LOGITS = np.log(BEHAVIOUR) + np.array([[0.6, -0.3], [0.2, 0.5]])
TARGET = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
Q = np.array([[0.3, -1.0], [2.5, 3.0]])
"""A model, however wrong."""

Estimate = Callable[..., importance.OffPolicyEstimate]


def table(rows):
    result = np.zeros((len(rows), HORIZON))
    for line, row in zip(result, rows, strict=True):
        line[: len(row)] = row
    return result


def of_steps(episodes, numbers):
    """numbers[s_t, a_t], [m, T]."""
    return table([[numbers[s][a] for s, a in zip(e.states, e.actions, strict=True)] for e in episodes])


def arguments(episodes, target=TARGET):
    return table([e.rewards for e in episodes]), of_steps(episodes, np.log(target) - np.log(BEHAVIOUR))


def model(episodes, target=TARGET):
    return of_steps(episodes, Q), table([(target * Q).sum(axis=1)[list(e.states)] for e in episodes])


def trajectory(episodes, normalized, target=TARGET):
    return importance.trajectory(*arguments(episodes, target), GAMMA, normalized)


def per_decision(episodes, normalized, target=TARGET):
    return importance.per_decision(*arguments(episodes, target), GAMMA, normalized)


def doubly_robust(episodes, normalized, target=TARGET):
    return importance.doubly_robust(*arguments(episodes, target), *model(episodes, target), GAMMA, normalized)


ESTIMATES: dict[str, Estimate] = {"trajectory": trajectory, "per decision": per_decision, "robust": doubly_robust}
each = pytest.mark.parametrize("estimate", ESTIMATES.values(), ids=ESTIMATES)


def true_value(policy):
    """J(π), as a sum over all episodes."""
    return sum(
        float(e.probability)
        * np.exp(of_steps([e], np.log(policy) - np.log(BEHAVIOUR)).sum())
        * returns_of(e.rewards, GAMMA, True)[0]
        for e in EPISODES
    )


def gradient_of(estimate, episodes, target=TARGET):
    """Σ gradient·∇log π + Σ value_gradient·∇v, [2, 2], with respect to the logits of π."""
    total = np.zeros((2, 2))
    for i, e in enumerate(episodes):
        for t, (s, a) in enumerate(zip(e.states, e.actions, strict=True)):
            total[s] += estimate.gradient[i, t] * (np.eye(2)[a] - target[s])
            if estimate.value_gradient is not None:
                total[s] += estimate.value_gradient[i, t] * target[s] * (Q[s] - target[s] @ Q[s])
    return total


def expectation(m, function):
    return sum(probability * function([EPISODES[i] for i in batch]) for probability, batch in all_batches(m))


@each
@pytest.mark.parametrize("m", [1, 2])
def test_without_normalisation_there_is_no_bias(estimate, m):
    assert expectation(m, lambda episodes: estimate(episodes, False).value) == pytest.approx(true_value(TARGET))
    gradient = expectation(m, lambda episodes: gradient_of(estimate(episodes, False), episodes))
    np.testing.assert_allclose(gradient.flatten(), true_gradient(GAMMA, TARGET), atol=1e-12)


def test_without_the_part_that_goes_by_v_the_gradient_is_biased():
    def half(episodes):
        return gradient_of(doubly_robust(episodes, False)._replace(value_gradient=None), episodes)

    error = expectation(1, half).flatten() - true_gradient(GAMMA, TARGET)
    assert np.linalg.norm(error) > 0.1 * np.linalg.norm(true_gradient(GAMMA, TARGET))


def test_normalised_estimates_of_a_single_episode_are_its_own_return():
    """Without a model: so their bias is that of μ, and shrinks as 1/m."""
    for estimate in (trajectory, per_decision):
        biases = [expectation(m, lambda e: estimate(e, True).value) - true_value(TARGET) for m in (1, 2, 3)]  # noqa: B023
        assert biases[0] == pytest.approx(true_value(BEHAVIOUR) - true_value(TARGET))
        assert abs(biases[0]) > 0.1
        np.testing.assert_allclose(np.array(biases[1:]) / biases[0], [1 / 2, 1 / 3], rtol=0.25)


@each
def test_normalised_estimates_converge(estimate):
    """Of a batch in which every episode is as frequent as it is probable, they are exact, and so is their gradient."""
    episodes = [e for e in EPISODES for _ in range(int(256 * e.probability))]
    found = estimate(episodes, True)
    assert found.value == pytest.approx(true_value(TARGET))
    np.testing.assert_allclose(gradient_of(found, episodes).flatten(), true_gradient(GAMMA, TARGET), atol=1e-12)


@each
@pytest.mark.parametrize("normalized", [False, True])
def test_the_gradient_is_the_derivative_of_the_estimate(estimate, normalized):
    """By central differences in the logits of π."""
    episodes, step = EPISODES[4:9], 1e-5
    found = gradient_of(estimate(episodes, normalized), episodes)
    for s, a in product(range(2), repeat=2):
        values = []
        for sign in (1, -1):
            moved = LOGITS.copy()
            moved[s, a] += sign * step
            policy = np.exp(moved) / np.exp(moved).sum(axis=1, keepdims=True)
            values.append(estimate(episodes, normalized, policy).value)
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(found[s, a], abs=1e-8)


@each
@pytest.mark.parametrize("normalized", [False, True])
def test_on_policy_all_of_them_are_the_mean_return_and_its_gradient_that_of_the_policy(estimate, normalized):
    episodes = EPISODES[2:12]
    found = estimate(episodes, normalized, BEHAVIOUR)
    if estimate is not doubly_robust:
        mean = np.mean([returns_of(e.rewards, GAMMA, True)[0] for e in episodes])
        assert found.value == pytest.approx(mean)
    assert np.mean(found.contributions) == pytest.approx(found.value)


@each
def test_contributions_tell_the_standard_error(estimate):
    """Of m episodes with the true frequencies; for normalised weights by the delta method, which is exact there."""
    episodes = [e for e in EPISODES for _ in range(int(256 * e.probability))]
    found = estimate(episodes, False)
    variance = expectation(1, lambda batch: estimate(batch, False).value ** 2) - true_value(TARGET) ** 2
    assert found.contributions.var() == pytest.approx(variance)
    assert found.standard_error == pytest.approx(np.sqrt(variance / 255))
    of_many = [estimate(batch, True) for batch in samples(200, 40)]
    spread = np.std([each.value for each in of_many])
    assert np.mean([each.standard_error for each in of_many]) == pytest.approx(spread, rel=0.2)


def samples(n_batches, m):
    rng = np.random.default_rng(0)
    probabilities = [float(e.probability) for e in EPISODES]
    for _ in range(n_batches):
        yield [EPISODES[i] for i in rng.choice(len(EPISODES), m, p=probabilities)]


def test_a_true_model_and_normalisation_leave_less_variance():
    def spread(estimate, normalized):
        return np.var([estimate(batch, normalized).value for batch in samples(300, 10)])

    assert spread(per_decision, False) < 0.9 * spread(trajectory, False)
    assert spread(doubly_robust, True) < 0.7 * spread(per_decision, False)


def test_the_variance_formula():
    """Var_μ[R π/μ] of whole episodes, by the definition of a variance, and by its plug-in from samples of π."""
    log_q = np.log([float(e.probability) for e in EPISODES])
    log_ratios = arguments(EPISODES)[1].sum(axis=1)
    returns = np.array([returns_of(e.rewards, GAMMA, True)[0] for e in EPISODES])
    weighted, q = np.exp(log_ratios) * returns, np.exp(log_q)
    expected = q @ (weighted - q @ weighted) ** 2
    assert importance.ratio_variance(returns, log_q + log_ratios, log_q) == pytest.approx(expected)
    drawn = np.random.default_rng(0).choice(len(EPISODES), 20_000, p=np.exp(log_q + log_ratios))
    assert importance.estimate_ratio_variance(returns[drawn], log_ratios[drawn]) == pytest.approx(expected, rel=0.05)


def test_sampling_in_proportion_to_the_integrand_has_no_variance():
    p, f = np.array([0.2, 0.5, 0.3]), np.array([1.0, 2.0, 4.0])
    q = p * f / (p @ f)
    assert importance.ratio_variance(f, np.log(p), np.log(q)) == pytest.approx(0, abs=1e-12)
    assert importance.ratio_variance(f, np.log(p), np.array([-np.inf, *np.log([0.5, 0.5])])) == np.inf


def test_long_episodes_of_far_policies():
    """Ratios of e^±2000, which no floating-point number holds; only their product with a reward need be one."""
    rewards, log_ratios = np.zeros((2, 2000)), np.stack([np.full(2000, -1.0), np.full(2000, -1.5)])
    rewards[:, -1] = 1.0
    assert importance.per_decision(rewards, log_ratios, 1.0, normalized=True).value == pytest.approx(1)
    rewards, log_ratios = np.array([[0.0, 0.0], [1e-300, 0.0]]), np.array([[900.0, 0.0], [700.0, 0.0]])
    assert importance.trajectory(rewards, log_ratios, 1.0).value == pytest.approx(np.exp(700) * 1e-300 / 2)


def test_the_gradient_of_the_surrogate_at_the_old_policy_is_the_policy_gradient():
    """J = E_{s~ρ^μ, a~μ}[π/μ·A_μ], with the true advantages of μ: r = 1 there, and its gradient is A·∇log π."""
    to_go: dict[tuple[int, int, int], list[tuple[float, float]]] = {}
    for e in EPISODES:
        for t, (s, a) in enumerate(zip(e.states, e.actions, strict=True)):
            to_go.setdefault((t, s, a), []).append((float(e.probability), returns_of(e.rewards, GAMMA, False)[t]))
    q = {key: np.average([g for _, g in pairs], weights=[p for p, _ in pairs]) for key, pairs in to_go.items()}
    total = np.zeros((2, 2))
    for e in EPISODES:
        for t, (s, a) in enumerate(zip(e.states, e.actions, strict=True)):
            advantage = q[t, s, a] - BEHAVIOUR[s] @ [q[t, s, b] for b in range(2)]
            old = np.log(BEHAVIOUR[s, a])
            loss = ratio_loss(np.array([old]), np.array([old]), np.array([GAMMA**t * advantage]))
            total[s] -= float(e.probability) * loss.gradient[0] * (np.eye(2)[a] - BEHAVIOUR[s])
    np.testing.assert_allclose(total.flatten(), true_gradient(GAMMA), atol=1e-7)


def test_torch_agrees():
    """The same formulas through autograd, in double precision."""
    episodes = EPISODES[3:8]
    rewards, log_ratios = map(th.as_tensor, arguments(episodes))
    q, v = map(th.as_tensor, model(episodes))
    log_ratios, v = log_ratios.requires_grad_(), v.requires_grad_()
    discounts = GAMMA ** th.arange(HORIZON, dtype=th.float64)
    weights = th.softmax(log_ratios.cumsum(1), dim=0)
    before = th.cat([th.full((5, 1), 0.2, dtype=th.float64), weights[:, :-1]], dim=1)
    value = (discounts * (weights * (rewards - q) + before * v)).sum()
    value.backward()
    found = doubly_robust(episodes, True)
    assert found.value == pytest.approx(value.item())
    np.testing.assert_allclose(found.gradient, log_ratios.grad, atol=1e-12)
    np.testing.assert_allclose(found.value_gradient, v.grad, atol=1e-12)


TABLE = np.zeros((2, 3))
BAD = {
    "γ": ((TABLE, TABLE), 2, r"gamma=2; allowed: \[0, 1\]"),
    "a row": ((TABLE[0], TABLE[0]), 1, r"rewards has the shape \(3,\); allowed: \[m, T\]"),
    "a list": (([[1.0]], np.zeros((1, 1))), 1, r"rewards is a list; allowed: a NumPy array \[m, T\]"),
    "no episodes": ((TABLE[:0], TABLE[:0]), 1, r"rewards has the shape \(0, 3\); allowed: \[m, T\], not empty"),
    "no steps": ((TABLE[:, :0], TABLE[:, :0]), 1, r"rewards has the shape \(2, 0\); allowed: \[m, T\], not empty"),
    "broadcast": ((TABLE, TABLE[:1]), 1, r"log_ratios has the shape \(1, 3\); allowed: \(2, 3\), as rewards"),
}


@pytest.mark.parametrize(("arrays", "gamma", "message"), BAD.values(), ids=BAD)
def test_bad_tables_say_what_is_allowed(arrays, gamma, message):
    for estimate in (importance.trajectory, importance.per_decision):
        with pytest.raises(ValueError, match=message):
            estimate(*arrays, gamma)
    with pytest.raises(ValueError, match=message):
        importance.doubly_robust(*arrays, TABLE, TABLE, gamma)


def test_bad_models_and_steps_say_what_is_allowed():
    with pytest.raises(ValueError, match=r"v has the shape \(2, 1\); allowed: \(2, 3\), as rewards"):
        importance.doubly_robust(TABLE, TABLE, TABLE, TABLE[:, :1], GAMMA)
    steps = np.zeros(3)
    for arrays, gamma, message in (
        ((steps, steps, steps), -1, r"gamma=-1; allowed: \[0, 1\]"),
        ((TABLE, TABLE, TABLE), GAMMA, r"rewards has the shape \(2, 3\); allowed: \[B\]"),
        ((steps, steps[:2], steps), GAMMA, r"log_ratios has the shape \(2,\); allowed: \(3,\), as rewards"),
    ):
        with pytest.raises(ValueError, match=message):
            importance.weighted_steps(*arrays, gamma, per_decision=True)


def test_of_one_episode_there_is_no_standard_error():
    assert np.isnan(trajectory(EPISODES[:1], False).standard_error)


def weighted_gradient(episodes, per_decision, max_ratio, target=TARGET):
    """(1/m) Σ_i Σ_t γᵗ w_t ∇log π(a_t|s_t)(G_t − b(s_t)), [2, 2], with b = Q(s, 0), whatever that is."""
    rewards, t = np.concatenate([e.rewards for e in episodes]), np.concatenate([range(len(e.states)) for e in episodes])
    states, actions = (np.concatenate([getattr(e, name) for e in episodes]) for name in ("states", "actions"))
    log_ratios = np.log(target[states, actions]) - np.log(BEHAVIOUR[states, actions])
    returns, weights = importance.weighted_steps(rewards, log_ratios, t, GAMMA, per_decision, max_ratio)
    total = np.zeros((2, 2))
    for s, a, w, g, k in zip(states, actions, weights, returns, t, strict=True):
        total[s] += GAMMA**k * w * (g - Q[s, 0]) * (np.eye(2)[a] - target[s]) / len(episodes)
    return total


def bias(per_decision, max_ratio, target=TARGET):
    """‖E ĝ − ∇J‖ / ‖∇J‖."""
    truth = true_gradient(GAMMA, target)
    found = expectation(1, lambda episodes: weighted_gradient(episodes, per_decision, max_ratio, target)).flatten()
    return np.linalg.norm(found - truth) / np.linalg.norm(truth)


def test_of_weighted_steps_ratios_per_decision_have_no_bias_unless_they_are_cut():
    assert bias(True, np.inf) < 1e-9
    assert bias(True, 1.5) == pytest.approx(0.3036, abs=1e-4)
    assert bias(True, 1.0) == pytest.approx(0.6147, abs=1e-4)


def test_ratios_per_step_have_a_bias_that_vanishes_with_the_distance_of_the_policies():
    biases = [bias(False, np.inf, BEHAVIOUR + x * (TARGET - BEHAVIOUR)) for x in (1.0, 0.5, 0.25, 0.0)]
    assert biases == pytest.approx([0.0447, 0.0241, 0.0129, 0.0], abs=1e-4)


def test_several_episodes_are_kept_apart():
    episodes = EPISODES[3:6]
    apart = np.mean([weighted_gradient([e], True, 1.2) for e in episodes], axis=0)
    np.testing.assert_allclose(weighted_gradient(episodes, True, 1.2), apart)
