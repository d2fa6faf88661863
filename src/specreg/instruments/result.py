"""Sets of samples beside a reference: everything measured of them, as objects and as JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from specreg.instruments.artefacts import Artefact, artefacts
from specreg.instruments.differences import Difference, difference
from specreg.instruments.measuring import Spectrum
from specreg.instruments.paired import Agreement
from specreg.instruments.properties import (
    QUANTILES,
    Direction,
    Error,
    Slope,
    WaveletLevel,
    directions,
    power_quantiles,
    slope,
    wavelet_levels,
)
from specreg.instruments.sources import Source
from specreg.instruments.sums import Value

Data = Source | Tensor | np.ndarray | str | Path | Any
SCHEMA = 1


@dataclass(frozen=True)
class SetResult:
    """What was measured of one set."""

    spectrum: Spectrum
    slope: Slope | None  # None where there are too few bins
    directions: list[Direction]
    wavelet: list[WaveletLevel]
    quantiles_db: list[list[float]]
    artefacts: list[Artefact]
    difference: Difference | None = None  # None of the reference
    slope_difference: Value | None = None
    agreement: list[Agreement] = field(default_factory=list)  # of paired sets

    def values(self) -> dict[str, Value]:
        """Return the numbers that a condition may name, those that were measured."""
        found: dict[str, Value | None] = {
            "slope": Value(*self.slope[:3]) if self.slope else None,
            "slope_difference": self.slope_difference,
            "artefact_z": _exactly(max((peak.z for peak in self.artefacts), default=0.0)),
            "artefacts": _exactly(len(self.artefacts)),
            "anisotropy_db": self.anisotropy_db,
        }
        if self.difference:
            found |= {
                name: getattr(self.difference, name)
                for name in ("log_spectral_distance_db", "high_band_db", "corners_db", "zero_db")
            }
            found["effective_resolution"] = self.difference.effective_resolution or _exactly(math.inf)
        if self.agreement:
            found["least_coherence"] = min((bin_.coherence for bin_ in self.agreement), key=lambda value: value.value)
        return {name: value for name, value in found.items() if value is not None}

    @property
    def anisotropy_db(self) -> Value | None:
        """The strongest direction relative to the weakest, dB."""
        if not self.directions:
            return None
        low, high = (pick(self.directions, key=lambda d: d.ratio_db.value).ratio_db for pick in (min, max))
        return Value(high.value - low.value, high.low - low.high, high.high - low.low)

    def record(self) -> dict[str, Any]:
        """Return the set as `--json` writes it; docs/spectrum.md has the schema."""
        spectrum = self.spectrum
        found: dict[str, Any] = {
            "name": spectrum.name,
            "samples": spectrum.sums.samples,
            "independent": spectrum.sums.groups,
            "shape": list(spectrum.shape),
            "frequency": spectrum.frequency.tolist(),
            "coefficients": spectrum.grid.size[1:-1].tolist(),
            "power": spectrum.power.tolist(),
            "power_low": [],
            "power_high": [],
            "channels": [
                {"name": name, "power": power.tolist()}
                for name, power in zip(spectrum.channels, spectrum.channel_power, strict=True)
            ],
            "zero_power": spectrum.zero_power,
            "corner_power": spectrum.corner_power,
            "spacing": spectrum.spacing,
            "unit": spectrum.unit,
            "slope": self.slope and {**_value(Value(*self.slope[:3])), "fitted": list(self.slope.fitted)},
            "directions": [{"degrees": d.degrees, "ratio_db": _value(d.ratio_db)} for d in self.directions],
            "anisotropy_db": _value(self.anisotropy_db),
            "wavelet": [
                {"level": level.level, **{name: _value(getattr(level, name)) for name in level._fields[1:]}}
                for level in self.wavelet
            ],
            "power_quantiles_db": {"shares": list(QUANTILES), "bands": self.quantiles_db},
            "artefacts": [
                {"frequency": list(peak.frequency), "period": peak.period, "z": peak.z, "ratio_db": peak.ratio_db}
                for peak in self.artefacts
            ],
        }
        low, high = spectrum.bounds()
        found["power_low"], found["power_high"] = ([_number(float(value)) for value in ends] for ends in (low, high))
        if self.difference:
            found |= _difference_record(self.difference)
            found["slope_difference"] = _value(self.slope_difference)
        if self.agreement:
            found["agreement"] = [
                {"frequency": a.frequency, "coherence": _value(a.coherence), "phase": _value(a.phase)}
                for a in self.agreement
            ]
        return found


def _difference_record(found: Difference) -> dict[str, Any]:
    return {
        "log_spectral_distance_db": {**_value(found.log_spectral_distance_db), "uncorrected": found.uncorrected_db},
        "octaves": [
            {"low": o.low, "high": o.high, "log_spectral_distance_db": _value(o.log_spectral_distance_db)}
            for o in found.octaves
        ],
        "bands": [
            {"low": b.low, "high": b.high, "ratio_db": _value(b.ratio_db), "significant": b.significant}
            for b in found.bands
        ],
        "high_band_db": _value(found.high_band_db),
        "corners_db": _value(found.corners_db),
        "zero_db": _value(found.zero_db),
        "effective_resolution": found.effective_resolution
        and {**_value(found.effective_resolution), "share": found.share},
    }


@dataclass(frozen=True)
class Result:
    """A reference and the sets measured beside it."""

    reference: SetResult
    sets: list[SetResult]
    floor: Value | None  # log-spectral distance between halves of the reference, dB
    error: list[Error]  # of the reference's mean spectrum against the number of samples

    def record(self) -> dict[str, Any]:
        """Return all of it as `--json` writes it; numbers that are not finite are null."""
        settings = self.reference.spectrum.settings
        return {
            "schema": SCHEMA,
            "settings": {
                "window": settings.window,
                "detrend": settings.detrend,
                "transform": settings.transform,
                "replicates": settings.replicates,
            },
            "reference": self.reference.record(),
            "split_half_db": _value(self.floor),
            "error_db": [{"samples": e.samples, "error_db": e.decibels} for e in self.error],
            "sets": [found.record() for found in self.sets],
        }


def describe(
    spectrum: Spectrum,
    reference: SetResult | None = None,
    *,
    fitted: tuple[float, float] | None = None,
    share: float = 0.5,
) -> SetResult:
    """Return everything that a measured spectrum says, by itself and beside a reference."""
    try:
        own = slope(spectrum, fitted)
    except ValueError:
        if fitted:
            raise
        own = None
    other = reference.spectrum if reference else None
    against = difference(spectrum, other, share=share) if other else None
    steeper = None
    if own and reference and reference.slope:
        half = [
            math.hypot(own.value - own.low, reference.slope.high - reference.slope.value),
            math.hypot(own.high - own.value, reference.slope.value - reference.slope.low),
        ]
        change = own.value - reference.slope.value
        steeper = Value(change, change - half[0], change + half[1])
    return SetResult(
        spectrum,
        own,
        directions(spectrum),
        wavelet_levels(spectrum),
        power_quantiles(spectrum),
        artefacts(spectrum, other),
        against,
        steeper,
    )


def _exactly(value: float) -> Value:
    return Value(float(value), float(value), float(value))


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _value(value: Value | None) -> dict[str, float | None] | Any:
    return None if value is None else {name: _number(part) for name, part in value._asdict().items()}
