"""The report: a comparison folder or a run folder in, one self-contained HTML page and its figures out."""

from specreg.report.build import build_report
from specreg.report.table import summary_rows, verdicts

__all__ = ["build_report", "summary_rows", "verdicts"]
