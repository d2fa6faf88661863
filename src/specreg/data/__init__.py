"""Data sets: image folders and archives, boards drawn on the fly, and the builder of archives."""

from __future__ import annotations

from specreg.data.build import DEFAULT_EXCLUDE, DatasetReport, build_dataset
from specreg.data.images import ImageDataset
from specreg.data.synthetic import Checkerboards, board_bands, boards

__all__ = [
    "DEFAULT_EXCLUDE",
    "Checkerboards",
    "DatasetReport",
    "ImageDataset",
    "board_bands",
    "boards",
    "build_dataset",
]
