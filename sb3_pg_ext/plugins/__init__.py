"""Hook specifications, records, loading with error isolation, and the registry; knows no estimator and no SB3."""

from sb3_pg_ext.plugins.factory import make
from sb3_pg_ext.plugins.hooks import hookimpl
from sb3_pg_ext.plugins.loading import load_registry, registry
from sb3_pg_ext.plugins.records import AlgorithmSpec, BaselineSpec, EstimatorSpec, Spec
from sb3_pg_ext.plugins.registry import Entry, Failure, Provider, Registry

__all__ = [
    "AlgorithmSpec",
    "BaselineSpec",
    "Entry",
    "EstimatorSpec",
    "Failure",
    "Provider",
    "Registry",
    "Spec",
    "hookimpl",
    "load_registry",
    "make",
    "registry",
]
