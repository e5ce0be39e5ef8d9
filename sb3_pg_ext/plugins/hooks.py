"""The hooks that a plug-in may implement. Each yields records of one kind."""

from collections.abc import Iterable

import pluggy

from sb3_pg_ext.plugins.records import AlgorithmSpec, BaselineSpec, EstimatorSpec, Spec

PROJECT = "sb3_pg_ext"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plug-in as the implementation of the hook that has its name; a decorator."""

# The specifications below are never called: pluggy compares implementations with their names and signatures.


@hookspec
def sb3_pg_ext_estimators() -> Iterable[EstimatorSpec]:
    """Yield advantage estimators."""
    return ()


@hookspec
def sb3_pg_ext_baselines() -> Iterable[BaselineSpec]:
    """Yield baselines of REINFORCE."""
    return ()


@hookspec
def sb3_pg_ext_algorithms() -> Iterable[AlgorithmSpec]:
    """Yield algorithms that RL Zoo can train."""
    return ()


RECORD_OF_HOOK: dict[str, type[Spec]] = {
    "sb3_pg_ext_estimators": EstimatorSpec,
    "sb3_pg_ext_baselines": BaselineSpec,
    "sb3_pg_ext_algorithms": AlgorithmSpec,
}
