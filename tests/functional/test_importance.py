"""Statistics of importance ratios."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb3_pg_ext.functional.importance import effective_sample_size, fraction_outside


def test_effective_sample_size():
    assert effective_sample_size(np.array([1.0, 1.0, 1.0, 5.0])) == pytest.approx(64 / 28 / 4)
    assert effective_sample_size(np.array([0.0, 0.0, 3.0, 0.0])) == pytest.approx(1 / 4)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1), st.floats(1e-3, 1e200))
def test_it_does_not_depend_on_scale_and_lies_between_one_and_all(ratios, factor):
    ratios = np.array(ratios)
    size = effective_sample_size(ratios)
    assert 1 / len(ratios) - 1e-12 <= size <= 1 + 1e-12
    assert effective_sample_size(factor * ratios) == pytest.approx(size)


def test_fraction_outside():
    assert fraction_outside(np.array([0.5, 0.95, 1.0, 1.05, 2.0]), 0.1) == pytest.approx(2 / 5)
