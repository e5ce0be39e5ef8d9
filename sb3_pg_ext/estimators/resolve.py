"""From the name that a user writes to an estimator that runs: what every host of estimators shares."""

import inspect
from collections.abc import Mapping
from typing import Any

from sb3_pg_ext.estimators.contract import AdvantageEstimator
from sb3_pg_ext.plugins import EstimatorSpec, make, registry


def list_estimators() -> list[str]:
    """Names of all registered estimators, plug-ins' included, sorted."""
    return registry().names(EstimatorSpec)


def make_estimator(name: str, /, **kwargs: Any) -> AdvantageEstimator:
    """Build a registered estimator.

    :param name: its name, one of :func:`list_estimators`
    :param kwargs: its parameters
    :return: the estimator, a callable ``Rollout -> AdvantageEstimate``
    :raises ValueError: if the name is unknown, or the estimator does not have such parameters or values
    """
    estimator: AdvantageEstimator = make(registry().find(EstimatorSpec, name), kwargs)
    return estimator


def resolve_estimator(
    estimator: str | AdvantageEstimator,
    kwargs: Mapping[str, Any] | None,
    *,
    gae_lambda: float,
    provides: frozenset[str],
) -> AdvantageEstimator:
    """Turn what a host was given as ``advantage_estimator`` and ``advantage_estimator_kwargs`` into an estimator.

    λ has one source. An estimator with a parameter ``gae_lambda`` gets the host's; in the kwargs it is an error, and an
    instance must agree with the host. An estimator without this parameter ignores λ.

    :param estimator: a registered name, or an instance
    :param kwargs: parameters of the named estimator
    :param gae_lambda: the host's λ
    :param provides: what the host gives beyond rewards, values and episode boundaries; see ``EstimatorSpec.requires``
    :return: an estimator, ready to be called
    :raises ValueError: if the arguments contradict each other, or the estimator requires more than the host gives
    """
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise ValueError(f"advantage_estimator_kwargs={kwargs!r}; allowed: a dictionary or None")
    if not isinstance(estimator, str):
        _check_instance(estimator, kwargs, gae_lambda)
        known = registry().find_by_factory(EstimatorSpec, type(estimator))
        if known is not None:
            _check_requirements(known, provides)
        return estimator
    spec = registry().find(EstimatorSpec, estimator)
    _check_requirements(spec, provides)
    kwargs = dict(kwargs or {})
    if "gae_lambda" in inspect.signature(spec.factory).parameters:
        if "gae_lambda" in kwargs:
            raise ValueError(
                f"advantage_estimator_kwargs has gae_lambda={kwargs['gae_lambda']!r}; allowed: to give λ as the "
                f"algorithm's own argument gae_lambda, here {gae_lambda!r}"
            )
        kwargs["gae_lambda"] = gae_lambda
    resolved: AdvantageEstimator = make(spec, kwargs)
    return resolved


def _check_instance(estimator: Any, kwargs: Mapping[str, Any] | None, gae_lambda: float) -> None:
    if isinstance(estimator, type) or not callable(estimator):
        raise ValueError(
            f"advantage_estimator={estimator!r}; allowed: a name, one of {', '.join(list_estimators())}, or an instance"
        )
    if kwargs:
        raise ValueError(
            f"advantage_estimator_kwargs={kwargs!r} together with advantage_estimator={estimator!r}; "
            "allowed: kwargs for a name, none for an instance"
        )
    own_lambda = getattr(estimator, "gae_lambda", gae_lambda)
    if own_lambda != gae_lambda:
        raise ValueError(
            f"advantage_estimator={estimator!r} contradicts the algorithm's gae_lambda={gae_lambda!r}; "
            "allowed: the same λ in both"
        )


def _check_requirements(spec: EstimatorSpec, provides: frozenset[str]) -> None:
    missing = sorted(spec.requires - provides)
    if missing:
        raise ValueError(
            f"advantage_estimator={spec.name!r} requires {', '.join(missing)}, which this host cannot give. The "
            "algorithms of sb3_pg_ext that take an advantage_estimator themselves can; the rollouts of "
            "Stable-Baselines3 and sb3-contrib cannot"
        )
