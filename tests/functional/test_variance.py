"""The parts of a variance, against enumeration."""

from itertools import product

import numpy as np
import pytest

from sb3_pg_ext.functional.variance import variance_parts

P_STATE, P_ACTION, P_CONTINUATION = (0.25, 0.75), ((0.5, 0.5), (0.2, 0.8)), (0.3, 0.7)
X = np.random.default_rng(0).normal(size=(2, 2, 2, 3))
"""x by state, action and continuation, [2, 2, 2, n]."""


def exact_parts():
    p_action, p_continuation = np.array(P_ACTION), np.array(P_CONTINUATION)
    of_actions = np.einsum("sacn,c->san", X, p_continuation)
    of_states = np.einsum("san,sa->sn", of_actions, p_action)
    mean = np.array(P_STATE) @ of_states
    visits = np.array(P_STATE)[:, None] * p_action
    trajectory = np.einsum("sa,sacn,c->", visits, np.square(X - of_actions[:, :, None]), p_continuation)
    action = np.einsum("sa,san->", visits, np.square(of_actions - of_states[:, None]))
    return trajectory, action, P_STATE @ np.square(of_states - mean).sum(axis=1)


def outcomes_of_a_state():
    """What two actions in a state, with two continuations each, may come to: the probability, and x, [2, 2, n]."""
    for state in range(2):
        for actions in product(range(2), repeat=2):
            for c in product(range(2), repeat=4):
                p = P_STATE[state] * np.prod([P_ACTION[state][a] for a in actions])
                p *= np.prod([P_CONTINUATION[i] for i in c])
                yield p, np.array([X[state, actions[0], list(c[:2])], X[state, actions[1], list(c[2:])]])


def test_the_estimates_have_no_bias():
    """Over everything that two states may come to."""
    outcomes = list(outcomes_of_a_state())
    expected = np.zeros(3)
    for (p, x), (q, y) in product(outcomes, repeat=2):
        expected += p * q * np.array(variance_parts([np.stack([x, y])], np.ones(2)))
    np.testing.assert_allclose(expected, exact_parts(), rtol=1e-9)


@pytest.mark.parametrize("shape", [(5, 2, 2, 3), (6, 3, 1, 2), (4, 2, 4, 1)])
def test_the_parts_add_up(shape):
    """To the second moment of x minus the size of its mean, whatever the blocks."""
    x = np.random.default_rng(1).normal(size=shape)
    weights = np.arange(1.0, len(x) + 1)
    parts = variance_parts([x[:2], x[2:]], weights)
    of_states = x.mean(axis=(1, 2))
    pairs = [(i, j) for i in range(len(x)) for j in range(len(x)) if i != j]
    products = [weights[i] * weights[j] * of_states[i] @ of_states[j] for i, j in pairs]
    size_of_mean = sum(products) / sum(weights[i] * weights[j] for i, j in pairs)
    second_moment = np.average(np.square(x).sum(axis=3).mean(axis=(1, 2)), weights=weights)
    assert parts.total == pytest.approx(second_moment - size_of_mean)
    assert parts.removable == pytest.approx(parts.action / parts.total)
    assert (parts.trajectory == 0) == (shape[2] == 1)


def test_nothing_varies():
    assert variance_parts([np.ones((3, 2, 2, 1))], np.ones(3)) == (0, 0, 0)
    assert variance_parts([np.ones((3, 2, 2, 1))], np.ones(3)).removable == 0
