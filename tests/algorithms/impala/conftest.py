import pytest
from leftovers import nothing_left


@pytest.fixture(autouse=True)
def _nothing_stays_behind():
    with nothing_left():
        yield
