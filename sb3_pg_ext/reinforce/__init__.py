"""REINFORCE."""

from sb3_pg_ext.reinforce.reinforce import REINFORCE

__all__ = ["REINFORCE"]
