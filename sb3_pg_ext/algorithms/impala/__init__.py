"""IMPALA."""

from sb3_pg_ext.algorithms.impala.impala import IMPALA

__all__ = ["IMPALA"]
