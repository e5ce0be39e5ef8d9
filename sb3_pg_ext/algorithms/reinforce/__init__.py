"""REINFORCE."""

from sb3_pg_ext.algorithms.reinforce.reinforce import REINFORCE

__all__ = ["REINFORCE"]
