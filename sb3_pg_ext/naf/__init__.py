"""NAF."""

from sb3_pg_ext.naf.naf import NAF

__all__ = ["NAF"]
