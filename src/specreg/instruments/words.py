"""What the numbers say, in sentences: only what their intervals support."""

from __future__ import annotations

import math

from specreg.instruments.artefacts import Artefact
from specreg.instruments.differences import Band, Difference
from specreg.instruments.grid import NYQUIST
from specreg.instruments.result import Result, SetResult
from specreg.instruments.sums import Value


def sentences(found: SetResult, result: Result) -> list[str]:
    """Return what a set's spectrum says beside the reference's, most important first."""
    if found.difference is None:
        return reference_sentences(result)
    name = found.spectrum.name
    said = [energy(name, found.difference.high_band_db, "above half Nyquist")]
    said += bands(found.difference, found)
    said.append(distance(found.difference))
    if resolution := _resolution(found):
        said.append(resolution)
    said += [artefact(name, peak) for peak in found.artefacts[:3]]
    if found.agreement:
        said.append(_coherence(found))
    return said


def reference_sentences(result: Result) -> list[str]:
    """Return how well the reference itself is known."""
    spectrum = result.reference.spectrum
    samples, groups = spectrum.sums.samples, spectrum.sums.groups
    said = [f"{samples:,} samples" + (f" of {groups:,} independent units." if groups < samples else ".")]
    if not result.error:
        said.append("Too few independent samples to say how sure its spectrum is.")
        return said
    error = result.error[-1].decibels
    said.append(f"Its mean spectrum is known to {error:.2f} dB (root mean square over frequencies).")
    wanted = math.ceil(spectrum.sums.samples * (error / 0.25) ** 2)
    if error > 0.25:
        said.append(f"For 0.25 dB about {wanted:,} such samples would be needed.")
    return said


def energy(name: str, ratio: Value, where: str) -> str:
    """Return a sentence on the energy in a band relative to the reference's."""
    low, value, high = (100 * (10 ** (part / 10) - 1) for part in (ratio.low, ratio.value, ratio.high))
    if not (math.isfinite(low) and math.isfinite(high)):
        word = "less" if value < 0 else "more"
        return (
            f"{name} has {abs(value):.0f}% {word} energy {where} than the reference; too few samples for an interval."
        )
    if low <= 0 <= high:
        return f"{name} has as much energy {where} as the reference, within {_percent(low)} … {_percent(high)}."
    if value < 0:
        return f"{name} lacks {-value:.0f}% ({-high:.0f} … {-low:.0f}%) of the energy {where}."
    if value > 300:
        times = [10 ** (part / 10) for part in ratio]
        return f"{name} has {times[0]:.1f} ({times[1]:.1f} … {times[2]:.1f}) times the reference's energy {where}."
    return f"{name} has {value:.0f}% ({low:.0f} … {high:.0f}%) more energy {where} than the reference."


def _percent(value: float) -> str:
    return f"{round(value) + 0:+d}%".replace("-", "−")


def bands(found: Difference, of: SetResult) -> list[str]:
    """Return a sentence on the bands that differ significantly, runs of one sign together."""
    if any(band.significant is None for band in found.bands):
        return []
    differing = [band for band in found.bands if band.significant]
    if not differing:
        return [f"No single one of {len(found.bands)} bands differs significantly."]
    runs: list[list[Band]] = []
    for band in differing:
        last = runs[-1][-1] if runs else None
        if last and last.high == band.low and (last.ratio_db.value > 0) == (band.ratio_db.value > 0):
            runs[-1].append(band)
        else:
            runs.append([band])
    parts = []
    for run in runs:
        extreme = max(run, key=lambda band: abs(band.ratio_db.value)).ratio_db.value
        word = "too much" if extreme > 0 else "too little"
        most = f"up to {extreme:+.1f} dB" if len(run) > 1 else f"{extreme:+.1f} dB"
        parts.append(f"{word} at {run[0].low:.3g}–{run[-1].high:.3g} ({most.replace('-', '−')})")
    return [f"Significant in {len(differing)} of {len(found.bands)} bands (cycles per sample): {'; '.join(parts)}."]


def distance(found: Difference) -> str:
    """Return a sentence on the log-spectral distance."""
    value = found.log_spectral_distance_db
    if not math.isfinite(value.low):
        return f"Log-spectral distance {value.value:.2f} dB, not corrected for the number of samples."
    if value.low == 0:
        return f"Log-spectral distance at most {value.high:.2f} dB."
    return f"Log-spectral distance {value.value:.2f} dB ({value.low:.2f} … {value.high:.2f})."


def _resolution(found: SetResult) -> str | None:
    assert found.difference is not None
    value, share = found.difference.effective_resolution, found.difference.share
    if value is None:
        return None
    spacing, unit = found.spectrum.spacing or 1.0, found.spectrum.unit
    lengths = [spacing / part if part > 0 else math.inf for part in value]
    unit = unit if found.spectrum.spacing or unit != "pixel" else "pixels"
    said = f"Its power falls below {share:.0%} of the reference's at {value.value:.3g} cycles per sample"
    if math.isfinite(value.low):
        said += f" ({value.low:.3g} … {value.high:.3g})"
    return f"{said}: it resolves waves of {lengths[0]:.3g} {unit} and longer (Nyquist: {spacing / NYQUIST:.3g})."


def artefact(name: str, peak: Artefact) -> str:
    """Return a sentence on a peak."""
    place = ", ".join(f"{f:+.3g}".replace("-", "−") for f in peak.frequency)
    return (
        f"{name} has a grid of period {peak.period}: a peak at ({place}) cycles per sample, "
        f"{peak.ratio_db:.1f} dB above its neighbourhood, z = {peak.z:.1f}."
    )


def _coherence(found: SetResult) -> str:
    good = [bin_ for bin_ in found.agreement if bin_.coherence.value >= 0.5]
    if len(good) == len(found.agreement):
        return "Coherence with the paired samples is at least 0.5 at all frequencies."
    first = next(bin_ for bin_ in found.agreement if bin_.coherence.value < 0.5)
    return f"Coherence with the paired samples falls below 0.5 at {first.frequency:.3g} cycles per sample."
