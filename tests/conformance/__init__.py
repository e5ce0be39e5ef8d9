"""One battery over every registered algorithm: what this package promises, whichever algorithm it is.

An algorithm gets here by being registered. What is particular to it stands in the table ``algorithms.TRAITS``. That
everything registered passes ``sb3_pg_ext.testing.check``, which also third parties use, is tested in ``tests/testing``.
"""
