"""A3C."""

from sb3_pg_ext.algorithms.a3c.a3c import A3C

__all__ = ["A3C"]
