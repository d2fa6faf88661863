"""Calibration of a denoiser with intervals: bootstrap over the samples of `denoising_powers`.

In a cell (noise level × band) the gain g = Σ Re(X̂·conj X)/Σ |X̂|² is the factor on x0_hat of least squared error. A
network that returns c times the posterior mean has g = 1/c: it holds back 1 − 1/g = 1 − c of what it knows, or, where
that is negative, adds as much.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from specreg.denoising import DenoisingMap, DenoisingPowers
from specreg.transforms import radial

TOLERANCE = 0.02
"""Departure of 1/gain from 1 below which a cell counts as calibrated."""

KNOWN = 0.01
"""A cell is judged where what the network predicts, or could predict, has this share of the data's energy."""

WELL_KNOWN = 0.1
"""The same for cells on which a bound is given: where less is known, a few samples bound nothing."""


class Interval(NamedTuple):
    """Values with the ends of their 95% intervals, tensors of one shape."""

    value: Tensor
    low: Tensor
    high: Tensor


class Region(NamedTuple):
    """Neighbouring cells that depart from 1 on the same side."""

    cells: Tensor  # bool [L, K]
    withheld: Interval  # scalars: share of what the network knows that it holds back, bands alike; negative: adds
    removable: Interval  # scalars: share of the cells' error that a gain by band removes, on samples it did not see
    energy: float  # of x0_hat relative to that of the data, mean over cells


class Diagnosis(NamedTuple):
    """What `diagnose` returns; float64 on the CPU."""

    map: DenoisingMap
    samples: int
    gain: Interval  # [L, K], of each cell alone
    joint: Interval  # [L, K], the same values with intervals that hold in all judged cells at once
    judged: Tensor  # bool [L, K], see `KNOWN`
    removable: Interval  # [L, K], see `Region`
    removable_mean: Interval  # scalars, share of the error of a noise level, mean over levels
    crossing: (
        Interval  # [L], frequency in cycles per sample at which the data's power meets the noise's; see `diagnose`
    )
    pull: Tensor | None  # [L, K], share of the term's squared gradient at a noise level; a row sums to 1
    regions: list[Region]  # the largest removable error first
    within: float  # largest departure of 1/gain from 1 that intervals leave open, `WELL_KNOWN` cells outside `regions`
    tolerance: float


def diagnose(
    powers: DenoisingPowers, x0: Tensor, *, draws: int = 1000, seed: int = 0, tolerance: float = TOLERANCE
) -> Diagnosis:
    """Return the calibration of a denoiser, from the powers of `x0` `[N, C, *space]`, with 95% intervals.

    The samples are resampled `draws` times from `seed`; they must be independent of each other, which crops of one
    source are not. A cell departs where its joint interval lies beyond 1 ± `tolerance`: wrong in any cell with
    probability 5%. Joint intervals are the studentized bootstrap's of the maximum over the cells.

    `crossing` is the highest frequency up to Nyquist at which α²·S(f) falls to σ², S being the data's radially averaged
    power; NaN at levels at which the data are above the noise, or below it, throughout.

    Raises ValueError for fewer than 8 samples, or a network whose output is not finite.
    """
    count = powers.signal.shape[0]
    if count < 8:
        raise ValueError(f"expected at least 8 samples for intervals; got {count}")
    bad = ~powers.error.isfinite().flatten(1).all(1)
    if bool(bad.any()):
        times = ", ".join(f"{t:g}" for t in powers.timesteps[bad].tolist()[:3])
        raise ValueError(f"expected a finite x0_hat; the network returns NaN or infinity at time {times}")
    found = powers.mean()
    counts = _resampled(count, draws, seed)
    means = _Means(powers, counts)
    gain = found.gain
    known = found.cross.square() / (found.energy * found.signal)
    judged = (torch.maximum(known, found.energy / found.signal) >= KNOWN) & gain.isfinite()
    joint = _joint(gain, means.cross / means.energy, judged)
    low, high = 1 / (1 - tolerance), 1 / (1 + tolerance)
    marked = ((joint.low > low).int() - (joint.high < high).int()) * judged
    gains = means.cross / means.energy
    removed, errors = _out_of_sample(powers, counts)
    regions = [_region(cells, found, means, removed, errors) for cells in _components(marked)]
    regions.sort(key=lambda region: -float((found.size * found.error * region.cells).sum() * region.removable.value))
    rest = (known >= WELL_KNOWN) & judged
    rest = rest & ~torch.stack([region.cells for region in regions]).any(0) if regions else rest
    open_to = torch.maximum(1 / joint.low.clamp_min(1e-9) - 1, 1 - 1 / joint.high)[rest]
    return Diagnosis(
        found,
        count,
        _percentiles(gain, gains),
        joint,
        judged,
        _percentiles(*_first(removed / errors)),
        _percentiles(*_first(((removed * found.size).sum(-1) / (errors * found.size).sum(-1)).mean(-1))),
        _crossing(x0, found.log_snr, counts),
        None if powers.term is None else _shares(powers.size * powers.term.mean(1)),
        regions,
        float(open_to.max()) if open_to.numel() else math.nan,
        tolerance,
    )


def _resampled(count: int, draws: int, seed: int) -> Tensor:
    """Return how often each draw has each sample, float64 `[draws, N]`."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(count, (draws, count), generator=generator)
    return torch.zeros(draws, count, dtype=torch.float64).scatter_add_(1, chosen, torch.ones(chosen.shape).double())


class _Means:
    """Means of the powers in each draw, `[draws, L, K]`."""

    def __init__(self, powers: DenoisingPowers, counts: Tensor):
        self.cross, self.energy = (_averaged(counts, values) for values in (powers.cross, powers.energy))


def _averaged(counts: Tensor, values: Tensor) -> Tensor:
    """Return the means of `values` `[L, N, K]` over the samples of each draw, `[draws, L, K]`."""
    return torch.einsum("dn,lnk->dlk", counts / counts.sum(1, keepdim=True).clamp_min(1), values)


def _percentiles(value: Tensor, drawn: Tensor) -> Interval:
    """Return the values with the 2.5% and 97.5% quantiles of `drawn` `[draws, …]`."""
    low, high = torch.quantile(drawn, torch.tensor([0.025, 0.975], dtype=drawn.dtype), dim=0)
    return Interval(value, low, high)


def _first(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first of `values` `[1 + draws, …]`, that of the samples themselves, and the others."""
    return values[0], values[1:]


def _joint(gain: Tensor, drawn: Tensor, judged: Tensor) -> Interval:
    """Return intervals of the gain that hold in all judged cells at once."""
    error = drawn.std(0)
    far = torch.where(judged & (error > 0), (drawn - gain).abs() / error, 0.0).flatten(1).amax(1)
    reach = torch.quantile(far, 0.95) * error
    return Interval(gain, gain - reach, gain + reach)


def _out_of_sample(powers: DenoisingPowers, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the error that a gain removes and the error, `[1 + draws, L, K]`; the first row is of the samples as such.

    The gain of the samples of even place is applied to those of odd place and the other way round: measured on the
    samples it is applied to, it would always remove something.
    """
    weights = torch.cat([torch.ones(1, counts.shape[1], dtype=torch.float64), counts])
    even = (torch.arange(counts.shape[1]) % 2 == 0).double()
    halves = [
        [torch.einsum("dn,lnk->dlk", weights * half, values) for values in (powers.cross, powers.energy)]
        for half in (even, 1 - even)
    ]
    removed = torch.zeros_like(halves[0][0])
    for (cross, energy), (other_cross, other_energy) in (halves, halves[::-1]):
        factor = torch.where(other_energy > 0, other_cross / other_energy, 1.0)
        # error of x0_hat less that of factor·x0_hat: (X̂ − X)² − (f·X̂ − X)²
        removed += energy * (1 - factor.square()) - 2 * cross * (1 - factor)
    return removed, torch.einsum("dn,lnk->dlk", weights, powers.error)


def _components(marked: Tensor) -> list[Tensor]:
    """Return the connected cells of equal sign in `marked` `[L, K]` as masks."""
    from scipy import ndimage

    found = []
    for sign in (1, -1):
        labels, number = ndimage.label((marked == sign).numpy())
        found += [torch.from_numpy(labels == k + 1) for k in range(number)]
    return found


def _region(cells: Tensor, found: DenoisingMap, means: _Means, removed: Tensor, errors: Tensor) -> Region:
    # Relative to the data's power in the band, or the lowest band would speak for all.
    alike, weight = cells / found.signal, found.size * cells
    shown = (found.energy * alike).sum() / (found.cross * alike).sum()
    drawn = (means.energy * alike).sum((1, 2)) / (means.cross * alike).sum((1, 2))
    shares = (removed * weight).sum((1, 2)) / (errors * weight).sum((1, 2))
    return Region(
        cells,
        _percentiles(1 - shown, 1 - drawn),
        _percentiles(*_first(shares)),
        float((found.energy * alike).sum() / cells.sum()),
    )


def _shares(values: Tensor) -> Tensor:
    return values / values.sum(1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)


def _crossing(x0: Tensor, log_snr: Tensor, counts: Tensor) -> Interval:
    """Return where the data's power meets the noise's at each level, cycles per sample, `[L]`."""
    parts = [radial.power_spectrum(part.cpu().double()) for part in torch.split(x0, 64)]
    frequency, power = parts[0].frequency, torch.cat([part.power for part in parts])
    inside = (frequency > 0) & (frequency <= 0.5)
    weights = torch.cat([torch.full((1, len(x0)), 1 / len(x0), dtype=torch.float64), counts / len(x0)])
    log_power = (weights @ power[:, inside]).clamp_min(1e-30).log()
    found = torch.stack([_falls_to(log_power, -float(level), frequency[inside].log()) for level in log_snr], 1)
    value, drawn = _first(found)
    low, high = (torch.nanquantile(drawn, q, dim=0) for q in (0.025, 0.975))
    return Interval(value, low, high)


def _falls_to(log_power: Tensor, threshold: float, log_frequency: Tensor) -> Tensor:
    """Return the frequency at which each spectrum `[draws, bins]` falls to the threshold for good; NaN for none."""
    above = log_power > threshold
    last = above.int().cumsum(1).argmax(1)  # the last bin above, 0 where there is none
    following = (last + 1).clamp_max(log_power.shape[1] - 1)
    upper, lower = (log_power.gather(1, i[:, None])[:, 0] for i in (last, following))
    share = (upper - threshold) / (upper - lower)
    crossing = torch.lerp(log_frequency[last], log_frequency[following], share).exp()
    return torch.where(above.any(1) & ~above[:, -1], crossing, math.nan)
