"""Data sets: image folders and archives, folders of sound, generated checkerboards, and a builder of archives."""

from __future__ import annotations

from specreg.data.audio import AudioClip, AudioDataset
from specreg.data.build import DEFAULT_EXCLUDE, DatasetReport, build_dataset
from specreg.data.dead_leaves import DeadLeaves
from specreg.data.images import ImageDataset
from specreg.data.mel import MelSettings, log_mel
from specreg.data.synthetic import Checkerboards, board_bands, boards

__all__ = [
    "DEFAULT_EXCLUDE",
    "AudioClip",
    "AudioDataset",
    "Checkerboards",
    "DatasetReport",
    "DeadLeaves",
    "ImageDataset",
    "MelSettings",
    "board_bands",
    "boards",
    "build_dataset",
    "log_mel",
]
