"""The report: comparison folders, run folders and sets of samples in, one self-contained HTML page out.

`page.py`, `base.html`, `parts.html` and `style.css` are what other pages of this package share with it.
"""

from specreg.report.build import build_report
from specreg.report.shown import Shown, show
from specreg.report.table import summary_rows, verdicts

__all__ = ["Shown", "build_report", "show", "summary_rows", "verdicts"]
