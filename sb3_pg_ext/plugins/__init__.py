"""Hook specifications, records, loading with error isolation, and the registry; knows no estimator and no SB3."""
