"""Natural policy gradients."""

from sb3_pg_ext.npg.npg import NPG

__all__ = ["NPG"]
