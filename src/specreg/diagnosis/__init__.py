"""What a denoiser withholds or adds by noise level and frequency band, with intervals and in words."""

from __future__ import annotations

from specreg.diagnosis.intervals import Diagnosis, Interval, Region, diagnose
from specreg.diagnosis.words import Units, record, sentences

__all__ = ["Diagnosis", "Interval", "Region", "Units", "diagnose", "record", "sentences"]
