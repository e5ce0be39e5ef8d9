"""Conjugate gradients against a direct solver in double precision; backtracking against what it is asked for."""

from itertools import pairwise

import numpy as np
import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st

from sb3_pg_ext.functional.tensors.solvers import backtrack, conjugate_gradients


def matrix(eigenvalues, seed=0):
    """A symmetric matrix with these eigenvalues, and a vector with a part along each of its eigenvectors."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(len(eigenvalues), len(eigenvalues))))
    a = rotation @ np.diag(eigenvalues) @ rotation.T
    return th.tensor(a), th.tensor(rotation @ rng.uniform(0.5, 1, len(eigenvalues)))


def solve(a, b, max_steps=50, **kwargs):
    return conjugate_gradients(lambda v: a @ v, b, max_steps, **kwargs)


@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_against_a_direct_solver(damping):
    a, b = matrix([0.5, 1, 2, 3, 10, 20])
    solution = solve(a, b, damping=damping, tolerance=1e-12)
    th.testing.assert_close(
        solution.x, th.linalg.solve(a + damping * th.eye(6, dtype=b.dtype), b), rtol=1e-10, atol=1e-12
    )
    th.testing.assert_close(solution.image, a @ solution.x, rtol=1e-12, atol=1e-12)
    assert solution.residual < 1e-12
    assert not solution.broke_down


@given(seed=st.integers(0, 2**32 - 1), distinct=st.integers(1, 5), repeated=st.integers(1, 4))
def test_it_takes_as_many_steps_as_there_are_distinct_eigenvalues(seed, distinct, repeated):
    a, b = matrix([1.0 + 2 * i for i in range(distinct)] * repeated, seed)
    solution = solve(a, b, tolerance=1e-9)
    assert solution.n_steps == distinct
    assert solution.residual < 1e-9


def test_a_step_more_is_never_worse():
    """In the norm of the matrix, in which the method is optimal."""
    a, b = matrix(np.geomspace(0.01, 10, 12))
    exact = th.linalg.solve(a, b)
    errors = [(x - exact) @ a @ (x - exact) for x in (solve(a, b, n, tolerance=0.0).x for n in range(12))]
    assert all(later < earlier for earlier, later in pairwise(errors))


@pytest.mark.parametrize("max_steps", [1, 3])
def test_the_residual_is_that_of_the_solution(max_steps):
    a, b = matrix(np.geomspace(0.01, 10, 12))
    solution = solve(a, b, max_steps, damping=0.01)
    left = b - a @ solution.x - 0.01 * solution.x
    assert solution.n_steps == max_steps
    assert solution.residual == pytest.approx(float(left.norm() / b.norm()), rel=1e-12)
    assert solution.residual > 0.1


def test_the_right_hand_side_is_left_alone():
    a, b = matrix([1.0, 2.0, 3.0])
    before = b.clone()
    solve(a, b)
    conjugate_gradients(lambda v: v, b, 5, damping=0.5)
    assert th.equal(b, before)


def test_nothing_to_solve():
    solution = solve(th.eye(3), th.zeros(3))
    assert solution.x.tolist() == [0, 0, 0]
    assert (solution.residual, solution.n_steps, solution.broke_down) == (0, 0, False)


def test_a_null_space_is_no_obstacle_to_what_lies_outside_of_it():
    a, _ = matrix([0.0, 0.0, 1.0, 2.0])
    b = a @ th.tensor([1.0, -1.0, 2.0, 0.5], dtype=th.float64)
    solution = solve(a, b, tolerance=1e-10)
    th.testing.assert_close(a @ solution.x, b, rtol=1e-9, atol=1e-9)
    assert not solution.broke_down
    assert solution.n_steps == 2


@pytest.mark.parametrize("eigenvalue", [-1.0, 0.0])
def test_it_stops_where_there_is_no_positive_curvature(eigenvalue):
    a = th.diag(th.tensor([1.0, eigenvalue], dtype=th.float64))
    along = solve(a, th.tensor([0.0, 1.0], dtype=th.float64))
    assert along.broke_down
    assert (along.n_steps, along.residual) == (0, 1)
    assert along.x.tolist() == [0, 0]
    across = solve(a, th.tensor([1.0, 0.5], dtype=th.float64))
    assert across.broke_down
    assert across.n_steps == 1
    assert th.isfinite(across.x).all()
    assert across.residual > 0


def test_damping_cures_negative_curvature():
    a, b = matrix([-0.1, 1.0, 2.0])
    solution = solve(a, b, damping=0.2, tolerance=1e-10)
    assert not solution.broke_down
    assert solution.residual < 1e-9


def test_bad_numbers_show_in_the_residual():
    a = th.full((2, 2), float("nan"))
    assert np.isnan(solve(a, th.ones(2)).residual)
    assert np.isnan(solve(th.eye(2), th.tensor([1.0, float("nan")])).residual)


def test_backtracking():
    tried = []
    found = backtrack(lambda scale: tried.append(scale) or scale < 0.5, 0.7, 10)
    assert tried == pytest.approx([1, 0.7, 0.49])
    assert found == (tried[-1], 3)


def test_backtracking_gives_up():
    assert backtrack(lambda scale: False, 0.5, 4) == (0, 4)


def test_backtracking_takes_the_full_step_where_it_can():
    assert backtrack(lambda scale: True, 0.5, 4) == (1, 1)
