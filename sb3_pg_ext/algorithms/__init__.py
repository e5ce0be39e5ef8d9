"""The algorithms, one folder each, which do not know each other, and their bases."""
