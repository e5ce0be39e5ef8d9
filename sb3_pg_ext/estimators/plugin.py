"""The package's own estimators, registered the way any plug-in registers its own."""

from collections.abc import Iterator

from sb3_pg_ext.estimators.builtin import GAE, TD0, UPGO, MonteCarlo, NStep, VTrace
from sb3_pg_ext.plugins import EstimatorSpec, hookimpl


@hookimpl
def sb3_pg_ext_estimators() -> Iterator[EstimatorSpec]:
    """Yield the built-in estimators."""
    yield EstimatorSpec("gae", GAE)
    yield EstimatorSpec("monte_carlo", MonteCarlo)
    yield EstimatorSpec("n_step", NStep)
    yield EstimatorSpec("td0", TD0)
    yield EstimatorSpec("vtrace", VTrace, requires=frozenset({"target_log_probs"}))
    yield EstimatorSpec("upgo", UPGO)
