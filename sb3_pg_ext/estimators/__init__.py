"""Advantage estimators: the contract, the built-in ones, and what hosts need to run them."""

from sb3_pg_ext.estimators.builtin import GAE, TD0, UPGO, MonteCarlo, NStep, VTrace
from sb3_pg_ext.estimators.contract import AdvantageEstimate, AdvantageEstimator, Rollout, estimate_advantages
from sb3_pg_ext.estimators.resolve import list_estimators, make_estimator, resolve_estimator

__all__ = [
    "GAE",
    "TD0",
    "UPGO",
    "AdvantageEstimate",
    "AdvantageEstimator",
    "MonteCarlo",
    "NStep",
    "Rollout",
    "VTrace",
    "estimate_advantages",
    "list_estimators",
    "make_estimator",
    "resolve_estimator",
]
