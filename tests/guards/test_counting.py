"""Non-finite values are recognised and reported with their place."""

import numpy as np
import pytest
import torch as th

from sb3_pg_ext.functional.finite import NonFiniteError, check_finite, check_number, check_step

each_number = pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])


@each_number
@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 2, 2)])
def test_the_first_bad_number_of_a_rollout(number, shape):
    array = np.zeros(shape, np.float32)
    check_finite("reward", array)
    array[4, 0] = array[2, 1] = number
    with pytest.raises(NonFiniteError, match=f"reward {number} at step 2 of the rollout in environment 1"):
        check_finite("reward", array)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_whole_numbers_are_never_bad(dtype):
    check_finite("observation", np.ones((5, 3), dtype))


@each_number
def test_the_first_bad_number_of_a_step(number):
    array = np.full((3, 2), 3e38, np.float32)  # whose squares are beyond float32
    check_step("policy output", array)
    array[2, 1] = number
    with pytest.raises(NonFiniteError, match=f"policy output {number} in environment 2"):
        check_step("policy output", array)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_whole_numbers_of_a_step_are_never_bad(dtype):
    check_step("observation", np.ones((3, 2), dtype))


@each_number
@pytest.mark.parametrize("kind", [float, np.float32, th.tensor])
def test_a_bad_number(kind, number):
    assert check_number("loss", kind(0.5)) == 0.5
    with pytest.raises(NonFiniteError, match=f"loss {number}"):
        check_number("loss", kind(number))
