"""One page about many training runs."""

from sb3_pg_ext.evaluation.report.page import Report, write_report

__all__ = ["Report", "write_report"]
