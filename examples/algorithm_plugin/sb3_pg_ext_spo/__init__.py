"""Simple Policy Optimization, an algorithm for sb3_pg_ext."""

from sb3_pg_ext_spo.spo import SPO

__all__ = ["SPO"]
