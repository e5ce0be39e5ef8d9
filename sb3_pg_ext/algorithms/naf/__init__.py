"""NAF."""

from sb3_pg_ext.algorithms.naf.naf import NAF

__all__ = ["NAF"]
