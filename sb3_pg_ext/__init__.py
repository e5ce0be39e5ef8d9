"""Policy-gradient algorithms and pluggable advantage estimators for Stable-Baselines3."""

from sb3_pg_ext.version import __version__

__all__ = ["__version__"]
