"""`check`: whether an estimator, a baseline or an algorithm keeps its contract."""

from collections.abc import Callable
from typing import Any

from sb3_pg_ext.plugins import AlgorithmSpec, BaselineSpec, EstimatorSpec, Spec, registry
from sb3_pg_ext.testing.algorithms import find_algorithm_failures
from sb3_pg_ext.testing.baselines import find_baseline_failures
from sb3_pg_ext.testing.estimators import find_estimator_failures

FAILURE_FINDERS: dict[type[Spec], Callable[..., list[str]]] = {
    EstimatorSpec: find_estimator_failures,
    BaselineSpec: find_baseline_failures,
    AlgorithmSpec: find_algorithm_failures,
}


def check(name_or_spec: str | Spec, **kwargs: Any) -> None:
    """Check that an estimator, a baseline or an algorithm keeps its contract.

    Estimators and baselines take milliseconds, algorithms seconds: these train on a tiny environment. What concerns RL
    Zoo (configuration, sampler, converter) is checked where RL Zoo is installed. ::

        check("huberized", threshold=0.5)
        check(EstimatorSpec("huberized", Huberized))

    :param name_or_spec: a registered name, or a record; a name of several kinds stands for all of them
    :param kwargs: parameters of the estimator or baseline, constructor arguments of the algorithm
    :raises AssertionError: if it does not keep its contract; says which property fails on which data
    :raises ValueError: if the name is unknown, or the parameters are wrong
    """
    specs = [name_or_spec] if isinstance(name_or_spec, Spec) else find_specs(name_or_spec)
    reports = [
        f"The {spec.kind} {spec.name!r} does not keep its contract:\n- " + "\n- ".join(failures)
        for spec in specs
        for kind, find_failures in FAILURE_FINDERS.items()
        if isinstance(spec, kind) and (failures := find_failures(spec, **kwargs))
    ]
    if reports:
        raise AssertionError("\n".join(reports))


def find_specs(name: str) -> list[Spec]:
    """The records of a name, one for each kind that has it.

    :param name: a registered name
    :raises ValueError: if the name is unknown
    """
    kinds = [kind for kind in FAILURE_FINDERS if name in registry().names(kind)]
    return [registry().find(kind, name) for kind in kinds or [Spec]]
