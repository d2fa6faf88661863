"""A diagnosis in sentences and as plain values; a sentence says what its interval supports and no more."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from specreg.diagnosis.intervals import Diagnosis, Interval, Region

SCHEMA = 1
"""Version of `record`."""

SHOWN = 3
"""Regions that get a sentence of their own."""

LOOSE = 0.1
"""Departure that intervals must exclude before a network is called calibrated."""

_DB = 10 / math.log(10)


class Units(NamedTuple):
    """How frequencies are named: `scale` times cycles per sample is in `name`."""

    name: str = "cycles per pixel"
    scale: float = 1.0


def sentences(
    found: Diagnosis,
    *,
    units: Units = Units(),  # noqa: B008
    loss: str | None = None,
    trained_with: str | None = None,
) -> list[str]:
    """Return what a diagnosis says: calibration first, then the crossing of data and noise, then the term's pull.

    `loss` names the spectral loss of the pull, `trained_with` that of the term that the network was trained with.
    """
    said = [_region(found, region, units, trained_with) for region in found.regions[:SHOWN]]
    if (rest := len(found.regions) - SHOWN) > 0:
        said.append(f"{rest} smaller regions depart too; the table marks them.")
    said.append(_elsewhere(found))
    if silent := int((found.map.energy <= 1e-9 * found.map.signal).sum()):
        said.append(f"In {silent} cells the network predicts nothing, so what it knows there cannot be told.")
    total = found.removable_mean
    if float(total.low) > 0:
        said.append(
            f"A gain for each cell, which needs no training, removes {_percent(total)} of the error (mean over noise "
            "levels, on images it was not measured on)."
        )
    else:
        said.append(
            "A gain for each cell removes no error that the interval tells from none "
            f"({_percent(total)}; mean over noise levels)."
        )
    said += [each for each in (_meeting(found, units), _pulling(found, units, loss)) if each]
    return said


def record(
    found: Diagnosis,
    *,
    units: Units = Units(),  # noqa: B008
    loss: str | None = None,
    trained_with: str | None = None,
) -> dict[str, Any]:
    """Return a diagnosis as plain values: the schema that docs/instruments.md lists; what is not finite is null."""
    cells, bands = found.map, len(found.map.size)
    basic = cells.record()
    return {
        "schema": SCHEMA,
        "samples": found.samples,
        "frequency_unit": units.name,
        "edges": [units.scale * 0.5 * k / bands for k in range(bands + 1)],
        "timesteps": basic["timesteps"],
        "snr_db": (_DB * cells.log_snr).tolist(),
        "signal_power": basic["signal_power"],
        "error_db": basic["error_db"],
        "gain": _interval(found.gain),
        "gain_joint": _interval(found.joint),
        "withheld": _plain(1 - 1 / found.gain.value),
        "judged": found.judged.tolist(),
        "removable": _interval(found.removable),
        "removable_mean": _interval(found.removable_mean),
        "crossing": _interval(Interval(*(units.scale * each for each in found.crossing))),
        "pull": None if found.pull is None else {"loss": loss, "share": _plain(found.pull)},
        "regions": [
            {
                **dict(zip(("snr_db", "frequency"), _extent(found, region.cells, units), strict=True)),
                "cells": region.cells.nonzero().tolist(),
                "withheld": _interval(region.withheld),
                "removable": _interval(region.removable),
            }
            for region in found.regions
        ],
        "tolerance": found.tolerance,
        "calibrated_within": found.within if math.isfinite(found.within) else None,
        "words": sentences(found, units=units, loss=loss, trained_with=trained_with),
    }


def _interval(values: Interval) -> dict[str, Any]:
    return {name: _plain(each) for name, each in values._asdict().items()}


def _plain(values: Tensor) -> Any:
    """Return nested lists with None for what is not finite."""
    if values.ndim == 0:
        return float(values) if math.isfinite(values) else None
    return [_plain(each) for each in values]


def _percent(share: Interval) -> str:
    value, low, high = (100 * float(each) for each in share)
    digits = 0 if abs(value) >= 9.5 else 1
    return f"{value:.{digits}f}% ({low:.{digits}f} to {high:.{digits}f}%)"


def _extent(found: Diagnosis, cells: Tensor, units: Units) -> tuple[list[float | None], list[float | None]]:
    """Return the ends of some cells in dB of α²/σ² and in frequency; None where they reach the end of the grid."""
    order = found.map.log_snr.argsort()
    snr = _DB * found.map.log_snr[order]
    rows, columns = cells.any(1)[order].nonzero().flatten(), cells.any(0).nonzero().flatten()
    first, last = int(rows[0]), int(rows[-1])
    low = float((snr[first - 1] + snr[first]) / 2) if first > 0 else None
    high = float((snr[last] + snr[last + 1]) / 2) if last + 1 < len(snr) else None
    width, bands = 0.5 * units.scale / len(found.map.size), len(found.map.size)
    left, right = int(columns[0]), int(columns[-1]) + 1
    return [low, high], [left * width if left else None, right * width if right < bands else None]


def _where(found: Diagnosis, cells: Tensor, units: Units) -> str:
    (low, high), (left, right) = _extent(found, cells, units)
    if low is None and high is None:
        levels = "At all noise levels"
    elif high is None:
        levels = f"Above {low:+.0f} dB SNR"
    elif low is None:
        levels = f"Below {high:+.0f} dB SNR"
    else:
        levels = f"Between {low:+.0f} and {high:+.0f} dB SNR"
    if left is None and right is None:
        return f"{levels}, at all frequencies"
    if right is None:
        return f"{levels}, above {left:.2g} {units.name}"
    if left is None:
        return f"{levels}, below {right:.2g} {units.name}"
    return f"{levels}, from {left:.2g} to {right:.2g} {units.name}"


def _region(found: Diagnosis, region: Region, units: Units, trained_with: str | None) -> str:
    rows, columns = region.cells.any(1), region.cells.any(0)
    box, inside = int(rows.sum() * columns.sum()), int(region.cells.sum())
    part = f" (in {inside} of these {box} cells)" if inside < box else ""
    where = f"{_where(found, region.cells, units)}{part}"
    withheld = region.withheld
    if float(withheld.value) > 0:
        said = f"{where}, the network holds back {_percent(withheld)} of what it knows"
        if trained_with:
            return f"{said}; it was trained with {trained_with}, which can be why: compare a run without it."
        return f"{said}: a spectral term can act here."
    added = Interval(-withheld.value, -withheld.high, -withheld.low)
    raised = "a term that raises energy would add more" if region.energy < 1 else "it has more energy than the data"
    return f"{where}, the network adds {_percent(added)} to what it knows: {raised}; a gain below 1 takes it away."


def _elsewhere(found: Diagnosis) -> str:
    bound = 100 * found.within
    if not bool(found.judged.any()):
        return "The network knows nothing of the data: its predictions have under 1% of their energy everywhere."
    if not math.isfinite(bound):
        return "No cell is calibrated."
    more = f"{found.samples} samples leave room for {bound:.0f}%: take more"
    if found.regions and found.within > LOOSE:
        return f"Elsewhere no departure is seen; {more}."
    if found.regions:
        return f"Elsewhere calibrated within {bound:.1f}%, where it knows a tenth of the data's energy or more."
    if found.within > LOOSE:
        return f"No departure from calibration is seen, but {more} (--count)."
    return (
        f"Calibrated within {bound:.1f}% everywhere (95%, all cells at once in which a tenth of the data's energy is "
        "known): a spectral term can only sharpen beyond what the data support."
    )


def _meeting(found: Diagnosis, units: Units) -> str | None:
    """Return where the data meet the noise, at the level at which that is nearest to half of Nyquist."""
    value = found.crossing.value
    if not bool(value.isfinite().any()):
        return None
    row = int((value.nan_to_num(torch.inf) - 0.25).abs().argmin())
    at, low, high = (units.scale * float(each[row]) for each in found.crossing)
    return (
        f"At {_DB * float(found.map.log_snr[row]):+.0f} dB SNR the data's power falls to the noise's at {at:.2g} "
        f"{units.name} ({low:.2g} to {high:.2g}); beyond that the best estimate is mostly smooth."
    )


def _pulling(found: Diagnosis, units: Units, loss: str | None) -> str | None:
    if found.pull is None:
        return None
    upper = torch.arange(len(found.map.size)) >= len(found.map.size) / 2
    share = (found.pull * upper).sum(1)
    low, high = (f"{100 * float(end):.0f}" for end in (share.min(), share.max()))
    amount = f"{low} to {high}%, by noise level," if low != high else f"{low}%"
    return f"The term ({loss}) puts {amount} of its squared gradient above {0.25 * units.scale:.2g} {units.name}."
