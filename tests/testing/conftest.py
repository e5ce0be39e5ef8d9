import re
from collections.abc import Callable

import pytest

from sb3_pg_ext.testing import check


@pytest.fixture
def failing() -> Callable[..., set[str]]:
    """``failing(spec, **kwargs)`` gives the names of the properties that fail."""

    def failing(spec, **kwargs) -> set[str]:
        with pytest.raises(AssertionError, match=f"The {spec.kind} '{spec.name}' does not keep its contract") as raised:
            check(spec, **kwargs)
        return set(re.findall(r"^- ([A-Za-z0-9 ]+): .*, on ", str(raised.value), re.MULTILINE))

    return failing
