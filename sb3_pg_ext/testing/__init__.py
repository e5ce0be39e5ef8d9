"""What plug-in authors run in their own tests."""

from sb3_pg_ext.testing.checking import check

__all__ = ["check"]
