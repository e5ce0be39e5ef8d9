"""Natural policy gradients."""

from sb3_pg_ext.algorithms.npg.npg import NPG

__all__ = ["NPG"]
