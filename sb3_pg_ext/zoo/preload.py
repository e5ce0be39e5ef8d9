"""Imported by the fork server once, instead of by the process of every run: RL Zoo with all algorithms in it."""

from sb3_pg_ext.plugins import registry
from sb3_pg_ext.zoo import bridge, training  # noqa: F401

bridge.install(registry())
