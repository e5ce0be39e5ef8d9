"""From the name that a user writes to what a plug-in makes of it."""

import inspect
from collections.abc import Mapping
from typing import Any

from sb3_pg_ext.plugins.loading import registry
from sb3_pg_ext.plugins.records import BaselineSpec, EstimatorSpec


def make(kind: type[EstimatorSpec] | type[BaselineSpec], name: str, kwargs: Mapping[str, Any]) -> Any:
    """Call the factory of a registered estimator or baseline.

    :param kind: the class of its record
    :param name: its name
    :param kwargs: its parameters
    :return: what the factory returns, a callable
    :raises ValueError: if the name is unknown, the parameters are wrong, or no callable comes of them
    """
    spec, subject = registry().find(kind, name), f"{kind.kind.capitalize()} {name!r}"
    try:
        inspect.signature(spec.factory).bind(**kwargs)
        made = spec.factory(**kwargs)
    except TypeError as error:
        known = ", ".join(map(str, inspect.signature(spec.factory).parameters.values())) or "none"
        given = f"{kind.argument}={dict(kwargs)!r}"
        raise ValueError(f"{subject}: {error}; its parameters: {known}; given: {given}") from error
    if not callable(made):
        raise ValueError(f"{subject}: its factory made {made!r}; allowed: a callable")
    return made
