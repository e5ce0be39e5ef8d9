"""The package has to be installed: the estimator is found by its name."""

import numpy as np
import pytest
from sb3_pg_ext_huberized import Huberized

from sb3_pg_ext import Rollout, make_estimator
from sb3_pg_ext.testing import check


@pytest.mark.parametrize("threshold", [0.1, 1.0, 100.0])
def test_it_keeps_the_contract(threshold: float) -> None:
    """Shapes, ends, bootstraps and much more, on data of every kind."""
    check("huberized", threshold=threshold)


def test_large_differences_are_clipped() -> None:
    """Golden numbers: δ = 0.5, −8, 8 becomes 0.5, −2, 2, which γ = 1/2 adds up to 0, −1, 2."""
    zeros, ends = np.zeros((3, 1), np.float32), np.zeros((3, 1), bool)
    rollout = Rollout(np.array([[0.5], [-8.0], [8.0]], np.float32), zeros, zeros, ends, ends, gamma=0.5)
    estimate = make_estimator("huberized", threshold=2.0, gae_lambda=1.0)(rollout)
    np.testing.assert_allclose(estimate.advantages, [[0.0], [-1.0], [2.0]])


def test_a_threshold_of_zero_is_refused() -> None:
    """Bad input fails at construction, with an error that says what is allowed."""
    with pytest.raises(ValueError, match="threshold=0; allowed: a number greater than 0"):
        Huberized(threshold=0)
