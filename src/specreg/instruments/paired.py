"""Samples that correspond, such as reconstructions and forecasts: coherence and agreement of phases by frequency."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from specreg.instruments.coefficients import coefficients
from specreg.instruments.grid import Floats, Grid, grid
from specreg.instruments.measuring import Progress, Settings, as_source, in_order, read, spans
from specreg.instruments.sources import Source
from specreg.instruments.sums import Sums, Value, interval


class Agreement(NamedTuple):
    """How the samples of two sets agree in one bin."""

    frequency: float  # cycles per sample
    coherence: Value  # |Σ X·conj Y|² / (Σ|X|² Σ|Y|²), 0 … 1: the share of power that a linear filter explains
    phase: Value  # mean cosine of the phase difference, −1 … 1, weak and strong coefficients alike


def agreement(
    data: Source | Tensor | np.ndarray | str,
    reference: Source | Tensor | np.ndarray | str,
    settings: Settings | None = None,
    *,
    seed: int = 0,
    workers: int = 1,
    progress: Progress | None = None,
) -> list[Agreement]:
    """Return coherence and phase agreement by bin of samples that correspond by name, all channels together.

    Arguments are those of `measure`. Raises ValueError where the names or shapes of the samples differ.
    """
    settings = settings or Settings()
    source, target = as_source(data), as_source(reference)
    _check(source, target)
    lattice = grid(tuple(source.shape[1:]), source.spacing, settings.transform)

    def work(start: int, stop: int) -> tuple[int, int, Tensor]:
        pair = [
            coefficients(read(part, start, stop), lattice, settings.window, settings.detrend)
            for part in (source, target)
        ]
        return start, stop, _cross(pair[0], pair[1], lattice)

    sums, groups = Sums(settings.replicates, seed), target.groups()
    for start, stop, parts in in_order(work, spans(source), workers):
        sums.add({"power": parts.numpy()}, {}, groups[start:stop])
        if progress:
            progress(stop, len(source))
    counted = np.maximum(lattice.size, 1) * source.shape[0]
    value, replicates = (_ratios(mean, counted) for mean in (sums.mean("power"), sums.means("power")))
    return [
        Agreement(
            float(frequency),
            *(interval(float(v[k]), r[:, k], sums.groups) for v, r in zip(value, replicates, strict=True)),
        )
        for k, frequency in enumerate(lattice.frequency)
    ]


def _check(source: Source, target: Source) -> None:
    names = f"{source.name!r} and {target.name!r}"
    if source.shape != target.shape:
        raise ValueError(f"paired sets need samples of one shape; {names} have {source.shape} and {target.shape}")
    ours, theirs = list(source.keys()), list(target.keys())
    if ours == theirs:
        return
    odd = next((key for key in (*ours, *theirs) if (key in set(ours)) != (key in set(theirs))), None)
    what = f"{len(ours)} and {len(theirs)} samples" if odd is None else f"{odd!r} is in one only"
    raise ValueError(f"paired sets need samples of the same names in the same order; of {names}, {what}")


def _cross(x: Tensor, y: Tensor, lattice: Grid) -> Tensor:
    """Return sums by bin `[n, 5 · (M + 2)]`: Re and Im of X·conj Y, |X|², |Y|², the cosine of the phase difference."""
    cross = x * y.conj()
    strength = cross.abs()
    cosine = torch.where(strength > 0, cross.real / strength.clamp_min(1e-300), torch.zeros_like(strength))
    imaginary = cross.imag if cross.is_complex() else torch.zeros_like(cosine)
    values = [cross.real, imaginary, x.abs().square(), y.abs().square(), cosine]
    stacked = (torch.stack(values, 1) * lattice.share).sum(2)  # over channels: [n, 5, K]
    binned = stacked.new_zeros(len(x) * 5, lattice.bins + 2).index_add_(1, lattice.number, stacked.flatten(0, 1))
    return binned.view(len(x), -1)


def _ratios(flat: Floats, counted: Floats) -> tuple[Floats, Floats]:
    parts = flat.reshape(*flat.shape[:-1], 5, -1)
    real, imaginary, x, y, cosine = (parts[..., k, 1:-1] for k in range(5))
    coherence: Floats = (real**2 + imaginary**2) / np.maximum(x * y, 1e-300)
    return coherence, cosine / counted[1:-1]
