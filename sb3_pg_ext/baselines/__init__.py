"""Baselines of REINFORCE: the contract that plug-ins share, and the built-in ones."""

import inspect
from typing import Any

from sb3_pg_ext.baselines.episodes import Baseline, Episodes, LearningBaseline
from sb3_pg_ext.plugins import BaselineSpec, registry

__all__ = ["Baseline", "Episodes", "LearningBaseline", "list_baselines", "make_baseline"]


def list_baselines() -> list[str]:
    """The names of all registered baselines, sorted."""
    return registry().names(BaselineSpec)


def make_baseline(name: str, **kwargs: Any) -> Baseline:
    """Make a baseline.

    :param name: a registered name
    :param kwargs: the baseline's own parameters
    :raises ValueError: if the name is unknown, the baseline does not take the arguments, or it learns and has no state
    """
    factory = registry().find(BaselineSpec, name).factory
    try:
        inspect.signature(factory).bind(**kwargs)
    except TypeError as error:
        parameters = ", ".join(inspect.signature(factory).parameters) or "none"
        raise ValueError(f"baseline_kwargs={kwargs!r}: {error}; the parameters of {name!r}: {parameters}") from None
    baseline: Baseline = factory(**kwargs)
    if hasattr(baseline, "fit") and not isinstance(baseline, LearningBaseline):
        raise ValueError(
            f"baseline={name!r} has fit alone; allowed: fit, state_dict and load_state_dict, or none of them, since "
            "what a baseline learns is saved with the algorithm"
        )
    return baseline
