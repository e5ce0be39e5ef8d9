"""From a record and the parameters that a user writes to what a plug-in makes of them."""

import inspect
from collections.abc import Mapping
from typing import Any

from sb3_pg_ext.plugins.records import BaselineSpec, EstimatorSpec


def make(spec: EstimatorSpec | BaselineSpec, kwargs: Mapping[str, Any]) -> Any:
    """Call the factory of an estimator or a baseline.

    :param spec: its record
    :param kwargs: its parameters
    :return: what the factory returns, a callable
    :raises ValueError: if the parameters are wrong, or no callable comes of them
    """
    subject = f"{spec.kind.capitalize()} {spec.name!r}"
    try:
        inspect.signature(spec.factory).bind(**kwargs)
        made = spec.factory(**kwargs)
    except TypeError as error:
        known = ", ".join(map(str, inspect.signature(spec.factory).parameters.values())) or "none"
        given = f"{spec.argument}={dict(kwargs)!r}"
        raise ValueError(f"{subject}: {error}; its parameters: {known}; given: {given}") from error
    if not callable(made):
        raise ValueError(f"{subject}: its factory made {made!r}; allowed: a callable")
    return made
