import pytest

from .algorithms import NAMES, Algorithm, find


@pytest.fixture(params=NAMES)
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    """Every registered algorithm."""
    return find(request.param)
