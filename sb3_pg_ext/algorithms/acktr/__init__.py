"""ACKTR, actor-critic with Kronecker-factored natural gradients."""

from sb3_pg_ext.algorithms.acktr.acktr import ACKTR

__all__ = ["ACKTR"]
