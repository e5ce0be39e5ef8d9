"""Registers the built-in baselines."""

from collections.abc import Iterable

from sb3_pg_ext.baselines.builtin import LeaveOneOut, Mean, MovingAverage, NoBaseline, Time, Value
from sb3_pg_ext.baselines.linear import Linear
from sb3_pg_ext.baselines.optimal import Optimal, OptimalPerComponent
from sb3_pg_ext.baselines.residual import ActionFactorized, QProp, ValueTime
from sb3_pg_ext.plugins import BaselineSpec, hookimpl


@hookimpl
def sb3_pg_ext_baselines() -> Iterable[BaselineSpec]:
    """The built-in baselines."""
    yield BaselineSpec("none", NoBaseline)
    yield BaselineSpec("mean", Mean, unbiased=False)
    yield BaselineSpec("moving_average", MovingAverage)
    yield BaselineSpec("time", Time, unbiased=False)
    yield BaselineSpec("linear", Linear, unbiased=False)
    yield BaselineSpec("value", Value)
    yield BaselineSpec("value_time", ValueTime)
    yield BaselineSpec("q_prop", QProp)
    yield BaselineSpec("action_factorized", ActionFactorized)
    yield BaselineSpec("leave_one_out", LeaveOneOut)
    # Unbiased with cross_fit=True; a record speaks of every setting.
    yield BaselineSpec("optimal", Optimal, unbiased=False)
    yield BaselineSpec("optimal_per_component", OptimalPerComponent, per_component=True, unbiased=False)
