"""Real fields that samples are measured against, and the metrics of fields."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from specreg.data.fields import FieldDataset, Normalization
from specreg.metrics import spectra, turbulence
from specreg.metrics.info import MetricInfo
from specreg.modalities.images.truth import COUNT, IMAGE_METRICS, spectrum_record

SHOWN = 64
"""Fields that are written for the report to show."""

BYTES = 1 << 30
"""Real fields are at most so large."""

FIELD_METRICS = {
    "log_spectral_distance_db": IMAGE_METRICS["log_spectral_distance_db"]._replace(
        help="RMS over radial frequency bins of the difference in mean power to the truth, up to Nyquist"
    ),
    "high_frequency_db": IMAGE_METRICS["high_frequency_db"]._replace(
        help="samples' energy above 0.25 cycles per sample relative to the truth's"
    ),
    "variance_db": MetricInfo("variance", "dB", "zero", 2, "of samples, without their means, relative to the truth's"),
    "values_distance": MetricInfo(
        "distance of the values' distribution", "", "lower", 4,
        "Wasserstein-1 distance of the pooled values to the truth's, in the truth's standard deviations",
    ),
    "kurtosis_difference": MetricInfo(
        "kurtosis, difference", "", "zero", 3, "kurtosis of the pooled values minus the truth's: 0 is best"
    ),
    "effective_resolution": MetricInfo(
        "resolved wavenumbers", "", "higher", 1,
        "largest wavenumber, from 4 on, up to which the energy spectrum is within 1 dB of the truth's", True,
    ),
    "energy_spectrum_db": MetricInfo(
        "energy spectrum", "dB", "lower", 2, "RMS over shells of the difference in E(k) to the truth"
    ),
    "second_structure_db": MetricInfo(
        "second-order structure function", "dB", "lower", 3, "RMS over separations of its difference to the truth's"
    ),
    "third_structure_error": MetricInfo(
        "third-order structure function, error", "", "lower", 3, "norm of its difference to the truth's, relative"
    ),
    "enstrophy_flux_error": MetricInfo(
        "enstrophy flux, error", "", "lower", 3, "norm of the difference of Π(k) to the truth's over the truth's"
    ),
    "seam_db": MetricInfo(
        "steps across the edges", "dB", "zero", 2,
        "mean square step across the edges over that inside, relative to the truth's: whether samples are periodic",
    ),
    "denoising_error_db": IMAGE_METRICS["denoising_error_db"],
    "denoising_high_db": IMAGE_METRICS["denoising_high_db"],
}  # fmt: skip

_QUANTILES = 4001


class Statistics(NamedTuple):
    """What samples and truth are compared by."""

    spectrum: spectra.MeanSpectrum  # of normalized variables
    quantiles: Tensor  # [C, Q], of each variable
    kurtosis: Tensor  # [C]
    energy: turbulence.Spectra | None = None
    structure: turbulence.StructureFunctions | None = None
    flux: turbulence.Fluxes | None = None
    seam: float = 1.0  # see `turbulence.seam`


def statistics(fields: Tensor, normalization: Normalization, *, vorticity: bool) -> Statistics:
    """Return the statistics of fields `[N, C, H, H]` in data units."""
    by_variable = fields.double().transpose(0, 1).flatten(1)
    levels = np.linspace(0, 1, _QUANTILES)
    quantiles = torch.from_numpy(np.quantile(by_variable.numpy(), levels, axis=1).T.copy())
    found = Statistics(
        spectra.mean_spectrum(normalization.normalized(fields)),
        quantiles,
        torch.tensor([turbulence.kurtosis(values) for values in by_variable]),
    )
    if not vorticity:
        return found
    omega = fields[:, 0]
    return found._replace(
        energy=turbulence.spectra(omega),
        structure=turbulence.structure_functions(omega),
        flux=turbulence.fluxes(omega),
        seam=turbulence.seam(omega),
    )


def compared(found: Statistics, truth: Statistics) -> dict[str, float]:
    """Return the metrics of samples against the truth, by name."""
    exact = {"floor": torch.finfo(torch.float64).tiny}
    within, truth_within = _to_nyquist(found.spectrum), _to_nyquist(truth.spectrum)
    spread = truth.quantiles.std(1)
    values = {
        "log_spectral_distance_db": spectra.log_spectral_distance(within, truth_within, **exact),
        "high_frequency_db": spectra.power_ratio(found.spectrum, truth.spectrum, low=0.25, **exact),
        "variance_db": spectra.power_ratio(found.spectrum, truth.spectrum, **exact),
        "values_distance": float(((found.quantiles - truth.quantiles).abs().mean(1) / spread).mean()),
        "kurtosis_difference": float((found.kurtosis - truth.kurtosis).mean()),
    }
    if found.energy and found.structure and found.flux and truth.energy and truth.structure and truth.flux:
        energies = (found.energy.energy, truth.energy.energy)
        values |= {
            "effective_resolution": float(turbulence.effective_resolution(*energies)),
            "energy_spectrum_db": _rms_db(*energies),
            "second_structure_db": _rms_db(found.structure.second, truth.structure.second),
            "third_structure_error": _relative(found.structure.third, truth.structure.third),
            "seam_db": 10 * math.log10(max(found.seam, 1e-30) / max(truth.seam, 1e-30)),
            "enstrophy_flux_error": _relative(found.flux.enstrophy, truth.flux.enstrophy),
        }
    return values


class FieldTruth(NamedTuple):
    """Real fields that samples are measured against."""

    fields: Tensor  # float32 [N, C, H, H], data units
    normalization: Normalization
    statistics: Statistics
    scores: Mapping[str, float] = {}  # what some real fields score against the others, under "floor: " + name
    prompts: None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the fields and of what is measured against them."""
        digest = hashlib.sha256(self.fields.contiguous().numpy().tobytes())
        digest.update(repr(self.normalization).encode())
        digest.update(b"vorticity" if self.statistics.energy else b"")
        return digest.hexdigest()

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Shape of a field, (C, H, H)."""
        return tuple(self.fields.shape[1:])

    def save(self, folder: Path) -> None:
        """Write the first fields as `samples.npy`."""
        save_fields(folder / "samples.npy", self.fields[:SHOWN])

    def record(self) -> dict[str, Any]:
        """Return the truth as results.json has it."""
        return {
            "kind": "real fields",
            "unit": "fields",
            "samples": len(self.fields),
            "spectrum": spectrum_record(self.statistics.spectrum),
            "metrics": dict(self.scores),
        }


def load_truth(data: FieldDataset, *, samples: int, vorticity: bool) -> FieldTruth:
    """Return up to `COUNT` fields of a set, spread over it, and what halves of them score against each other."""
    size = 4 * data.raw(0).numel()
    count = max(2, min(COUNT, len(data), BYTES // size))
    chosen = np.linspace(0, len(data) - 1, count).round().astype(int)
    chosen = np.random.default_rng(0).permutation(chosen)
    fields = torch.stack([data.raw(int(i)) for i in chosen])

    def measured(part: Tensor) -> Statistics:
        return statistics(part, data.normalization, vorticity=vorticity)

    some = min(samples, count // 2)
    floor = compared(measured(fields[:some]), measured(fields[some:]))
    scores = {("" if FIELD_METRICS[name].absolute else "floor: ") + name: value for name, value in floor.items()}
    return FieldTruth(fields, data.normalization, measured(fields), scores)


def _to_nyquist(spectrum: spectra.MeanSpectrum) -> spectra.MeanSpectrum:
    """Return a spectrum without its corners, where fields that are resolved isotropically have next to nothing."""
    inside = spectrum.frequency <= 0.5
    return spectra.MeanSpectrum(*(values[inside] for values in spectrum))


def save_fields(path: Path, fields: Tensor) -> None:
    """Write fields as a float32 array `[N, C, H, H]`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, fields.numpy())


def _rms_db(found: Tensor, truth: Tensor) -> float:
    tiny = torch.finfo(torch.float64).tiny
    ratio = 10 * (found.clamp_min(tiny) / truth.clamp_min(tiny)).log10()
    return float(ratio.square().mean().sqrt())


def _relative(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).norm() / truth.norm())
