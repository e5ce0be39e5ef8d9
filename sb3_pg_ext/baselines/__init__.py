"""Baselines of REINFORCE: the contract that plug-ins share, and the built-in ones."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sb3_pg_ext.baselines.episodes import (
    ActionFactors,
    Baseline,
    CorrectedBaseline,
    Correction,
    Episodes,
    LearningBaseline,
)
from sb3_pg_ext.plugins import BaselineSpec, make, registry

__all__ = [
    "ActionFactors",
    "Baseline",
    "CorrectedBaseline",
    "Correction",
    "Episodes",
    "LearningBaseline",
    "apply_baseline",
    "build_baseline",
    "corrections",
    "list_baselines",
    "make_baseline",
]


def list_baselines() -> list[str]:
    """The names of all registered baselines, sorted."""
    return registry().names(BaselineSpec)


def make_baseline(name: str, /, **kwargs: Any) -> Baseline:
    """Make a baseline.

    :param name: a registered name
    :param kwargs: the baseline's own parameters
    :raises ValueError: if the name is unknown, the baseline does not take the parameters, or it learns and has no state
    """
    return build_baseline(registry().find(BaselineSpec, name), kwargs)


def build_baseline(spec: BaselineSpec, kwargs: Mapping[str, Any]) -> Baseline:
    """Make the baseline of a record.

    :param spec: the record
    :param kwargs: the baseline's own parameters
    :raises ValueError: if the baseline does not take the parameters, or it learns and has no state
    """
    baseline: Baseline = make(spec, kwargs)
    if hasattr(baseline, "fit") and not isinstance(baseline, LearningBaseline):
        raise ValueError(
            f"baseline={spec.name!r} has fit alone; allowed: fit, state_dict and load_state_dict, or none of them, "
            "since what a baseline learns is saved with the algorithm"
        )
    return baseline


def apply_baseline(baseline: Baseline, episodes: Episodes, per_component: bool | None) -> np.ndarray:
    """Call a baseline and check the shape of what it returns, so that nothing is silently broadcast.

    :param baseline: the baseline, from a plug-in perhaps
    :param episodes: what it is given
    :param per_component: whether it gives a number for every component of the gradient; ``None`` for either
    :return: the baseline at every step, [B], or of every episode for every component, [m, n]
    :raises ValueError: naming the baseline and its module, if it has another shape
    """
    numbers = baseline(episodes)
    if per_component is None:
        per_component = np.ndim(numbers) == 2
    shape = episodes.gradients[0].shape if per_component else episodes.returns.shape
    if np.shape(numbers) != shape:
        module = getattr(baseline, "__module__", type(baseline).__module__)
        raise ValueError(
            f"Baseline {baseline!r} of module {module}: it returned the shape {np.shape(numbers)}; allowed: {shape}, "
            + ("a number for every episode and component" if per_component else "a number for every step")
        )
    return np.asarray(numbers)


def corrections(baseline: Baseline, episodes: Episodes) -> Iterator[Correction]:
    """The terms by which a baseline that sees the action makes up for what it takes away; of others there are none.

    :param baseline: the baseline, from a plug-in perhaps
    :param episodes: what it is given
    :raises ValueError: naming the baseline and its module, if a term has another shape
    """
    if not isinstance(baseline, CorrectedBaseline):
        return
    assert episodes.actions is not None, "REINFORCE gives the actions to every baseline with a correction"
    allowed = episodes.actions.shape, episodes.returns.shape
    for actions, weights in baseline.correction(episodes):
        if (np.shape(actions), np.shape(weights)) != allowed:
            raise ValueError(
                f"Baseline {baseline!r} of module {type(baseline).__module__}: its correction has the shapes "
                f"{np.shape(actions)} and {np.shape(weights)}; allowed: {allowed[0]} and {allowed[1]}, an action and "
                "its weight for every step"
            )
        yield np.asarray(actions), np.asarray(weights)
