"""Scores of a run's samples, or of files, against real data: with intervals, and with real data against real data."""

from __future__ import annotations

from specreg.scoring.images import Extractors, ImageSource, find_extractors, reference_rows, rows_of
from specreg.scoring.score import Options, score

__all__ = ["Extractors", "ImageSource", "Options", "find_extractors", "reference_rows", "rows_of", "score"]
