"""Sets of samples beside a reference, measured by the instruments, as a part of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from specreg.report.colors import arm_colors
from specreg.report.contents import Arm, Cell, Record, RunFiles, Samples, Spectrum, Truth
from specreg.report.reading import spectrum_of
from specreg.report.table import FLOOR

METRICS: dict[str, Record] = {
    "log_spectral_distance_db": {
        "label": "spectral distance, windowed",
        "unit": "dB",
        "better": "lower",
        "digits": 2,
        "help": "RMS over frequency bins up to Nyquist of the difference in mean power to the reference",
    },
    "high_band_db": {
        "label": "energy between half Nyquist and Nyquist",
        "unit": "dB",
        "better": "zero",
        "digits": 2,
        "help": "relative to the reference",
    },
    "slope": {
        "label": "slope",
        "unit": "",
        "better": "none",
        "digits": 2,
        "help": "a of the fit power ∝ frequency^a",
    },
}
PREFIX = "measured: "  # runs name their own metrics alike, and take spectra without a window


def measured(
    record: Record, *, said: Mapping[str, Sequence[str]] | None = None, samples: Mapping[str, Samples] | None = None
) -> RunFiles:
    """Return sets of samples beside a reference as files of a page; values carry intervals, since there are no seeds.

    Args:
        record: what `specreg spectrum --json` writes.
        said: sentences about each set, by its name.
        samples: pictures or lines of each set and of the reference, by name: see `reading.read_samples`.

    Raises ValueError for a record without these fields.
    """
    said, samples = said or {}, samples or {}
    try:
        reference, sets = record["reference"], record["sets"]
        names = [str(found["name"]) for found in sets]
        real = str(reference["name"])
        spectra = [_spectrum(found) for found in (reference, *sets)]
        counts = [int(found["samples"]) for found in sets]
        table = [
            {"arm": name, "metric": PREFIX + key, "mean": value["value"], "low": value["low"], "high": value["high"]}
            for key in METRICS
            for name, found in zip(names, sets, strict=True)
            if (value := found.get(key)) and None not in (value["value"], value["low"], value["high"])
        ]
        floor = (record.get("split_half_db") or {}).get("value")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"expected the record of measured spectra, with a reference and sets ({error!r})") from error
    colors = arm_colors({"arms": [{"name": name} for name in names]})
    arms = [Arm(name, name, colors[name]) for name in names]
    comparison = {
        "title": f"{' and '.join(names) if len(names) < 3 else f'{len(names)} sets'} beside {real}",
        "name": "samples",
        "arms": [{"name": name} for name in names],
        "seeds": [],
        "cells": [],
        "metrics": {row["metric"]: METRICS[row["metric"].removeprefix(PREFIX)] for row in table},
        "table": table,
        "truth": {"kind": real, "metrics": {} if floor is None else {FLOOR + PREFIX + next(iter(METRICS)): floor}},
        "said": {name: " ".join(said[name]) for name in names if name in said},
    }
    cells = [
        Cell(arm, 0, results={"samples": count}, spectrum=spectrum, samples=samples.get(arm.name), run=False)
        for arm, count, spectrum in zip(arms, counts, spectra[1:], strict=True)
    ]
    return RunFiles(Path(), comparison, arms, cells, [Truth(real, spectra[0], samples.get(real))])


def _spectrum(found: Record) -> Spectrum:
    """Return the spectrum of a set with its interval; without one, as for few samples, the power alone."""
    ends = {key: found.get(f"power_{key}") for key in ("low", "high")}
    known = {key: end for key, end in ends.items() if end and None not in end}
    both = known if len(known) == 2 else {}
    return spectrum_of({"frequency": found["frequency"], "power": found["power"], **both}, where=str(found["name"]))
