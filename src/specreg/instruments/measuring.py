"""Measure a set of samples: its mean power spectrum with the sums that all further statements come from."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from specreg.instruments.coefficients import Detrend, Window, check
from specreg.instruments.features import Features, sample_features
from specreg.instruments.grid import Floats, Grid, Transform, grid
from specreg.instruments.sources import Source, open_source
from specreg.instruments.sources.fields import is_xarray, xarray_module
from specreg.instruments.sums import Sums, interval

CHUNK_VALUES = 1 << 20
"""Values of a chunk, or one sample if it has more: a chunk needs about 100 bytes for each."""

LARGEST = 1e60
"""Magnitude of values up to which the fourth powers of a set can be summed in float64."""

Progress = Callable[[int, int], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """How spectra are taken; sets that are compared share it."""

    window: Window = "hann"
    detrend: Detrend = "mean"
    transform: Transform = "dft"
    replicates: int = 1000

    @classmethod
    def of(cls, window: str, detrend: str, transform: str) -> Settings:
        """Return settings from a user's words. Raises ValueError for an unknown one."""
        check(window, detrend, transform)
        return cls(cast(Window, window), cast(Detrend, detrend), cast(Transform, transform))

    def __post_init__(self) -> None:
        check(self.window, self.detrend, self.transform)
        if self.replicates < 100:
            raise ValueError(f"replicates must be at least 100; got {self.replicates}")


@dataclass(frozen=True)
class Spectrum:
    """The measured spectrum of a set of samples."""

    name: str
    shape: tuple[int, ...]  # [C, *space]
    channels: tuple[str, ...]
    spacing: float | None  # distance of samples along the coarsest axis, in `unit`
    unit: str
    rounding: float  # power in each coefficient of the rounding of stored values
    grid: Grid
    settings: Settings
    sums: Sums

    @property
    def frequency(self) -> Floats:
        """Mean frequency of the coefficients in each bin up to Nyquist, [M], cycles per sample."""
        return self.grid.frequency

    @property
    def power(self) -> Floats:
        """Mean power per coefficient of an orthonormal DFT, mean over channels, [M]."""
        mean: Floats = self.channel_power.mean(0)
        return mean

    @property
    def channel_power(self) -> Floats:
        """The same of each channel, [C, M]."""
        return self._by_bin(self.sums.mean("power"))[:, 1:-1]

    @property
    def replicates(self) -> Floats:
        """`power` of resampled sets, [R, M]; NaN for one that holds no sample."""
        mean: Floats = self._by_bin(self.sums.means("power")).mean(1)[:, 1:-1]
        return mean

    @property
    def zero_power(self) -> float:
        """Mean power of the zero frequency: N · mean² of the N values of a channel."""
        return float(self._by_bin(self.sums.mean("power")).mean(0)[0])

    @property
    def corner_power(self) -> float | None:
        """Mean power per coefficient beyond Nyquist; None for one axis, which has none there."""
        return float(self._by_bin(self.sums.mean("power")).mean(0)[-1]) if self.grid.size[-1] else None

    @property
    def lattice(self) -> Floats:
        """Mean power of each coefficient of the half spectrum, mean over channels."""
        half = (*self.grid.shape[:-1], -1)
        return (self.sums.mean("lattice") / self.shape[0]).reshape(half)

    @property
    def floor(self) -> float:
        """Power per coefficient below which the stored values say nothing: rounding, or the precision of float32."""
        return max(self.rounding, float(self.power.max()) * 2.0**-46, 1e-290)

    def bounds(self) -> tuple[Floats, Floats]:
        """Return the 95% interval of `power`, [M] each; NaN for fewer than five independent samples."""
        found = [
            interval(float(value), replicates, self.sums.groups)
            for value, replicates in zip(self.power, self.replicates.T, strict=True)
        ]
        low, high = np.array([[0.0 if each.low < 0 else each.low, each.high] for each in found]).T
        return low, high

    def to_xarray(self) -> Any:
        """Return the spectrum as an xarray Dataset over `frequency`, which is in cycles per unit of the coordinates.

        Variables: power, power_low and power_high (its 95% interval), channel_power (`channel`, `frequency`), and the
        number of coefficients of each bin. Powers are mean |F|² of an orthonormal DFT, in squared units of the data.
        """
        xarray = xarray_module()
        low, high = self.bounds()
        unit = f"cycles per {self.unit}" if self.spacing else "cycles per sample"
        over = ("frequency",)
        return xarray.Dataset(
            {
                "power": (over, self.power), "power_low": (over, low), "power_high": (over, high),
                "channel_power": (("channel", "frequency"), self.channel_power),
                "coefficients": (over, self.grid.size[1:-1]),
            },
            coords={
                "frequency": (over, self.frequency / (self.spacing or 1.0), {"units": unit}),
                "channel": ("channel", list(self.channels)),
            },
            attrs={"name": self.name, "samples": self.sums.samples, "independent": self.sums.groups},
        )  # fmt: skip

    def _by_bin(self, flat: Floats) -> Floats:
        sizes = np.maximum(self.grid.size, 1)
        return flat.reshape(*flat.shape[:-1], self.shape[0], -1) / sizes


def measure(
    data: Source | Tensor | np.ndarray | str | Path | Any,
    settings: Settings | None = None,
    *,
    name: str | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Spectrum:
    """Return the spectrum of a set of samples.

    Args:
        data: a path that `open_source` reads, an xarray Dataset or DataArray, samples `[N, C, *space]` of one to three
            axes, or a source.
        settings: window, detrending, transform and number of bootstrap replicates.
        name: the name of the set in tables; by default that of the source.
        seed: of the bootstrap; sets that are compared and whose samples do not correspond need different ones.
        workers: threads that read and transform; by default one for each processor. Results do not depend on it.
        progress: called with the number of samples done and that of all.
    """
    settings = settings or Settings()
    source = as_source(data)
    lattice = grid(tuple(source.shape[1:]), source.spacing, settings.transform)
    sums = Sums(settings.replicates, seed)
    groups = source.groups()
    for start, stop, features in _chunks(source, lattice, settings, workers or os.cpu_count() or 1):
        sums.add(*features, groups[start:stop])
        if progress:
            progress(stop, len(source))
    return Spectrum(
        name or source.name,
        tuple(source.shape),
        tuple(source.channels),
        max(source.spacing) if source.spacing else None,
        source.unit,
        source.rounding,
        lattice,
        settings,
        sums,
    )


def as_source(data: Source | Tensor | np.ndarray | str | Path | Any) -> Source:
    """Return samples in memory or at a path as a source."""
    if isinstance(data, (str, Path)):
        return open_source(str(data))
    if is_xarray(data):
        return open_source(data)
    if isinstance(data, (Tensor, np.ndarray)):
        return InMemory(torch.as_tensor(data))
    if not callable(getattr(data, "read", None)):
        raise TypeError(
            f"expected a path, an xarray Dataset or DataArray, samples [N, C, *space], or a source; "
            f"got {type(data).__name__}"
        )
    source: Source = data
    return source


class InMemory:
    """Samples `[N, C, *space]` in memory, each an independent unit."""

    def __init__(self, x: Tensor) -> None:
        if x.ndim < 3 or x.ndim > 5 or not len(x) or not x.is_floating_point():
            raise ValueError(f"samples must be floats [N, C, *space] of 1 to 3 axes; got {x.dtype} {list(x.shape)}")
        if not torch.isfinite(x).all():
            raise ValueError("samples must be finite; got NaN or infinite values")
        self.x = x.detach().cpu()
        self.name = "samples"
        self.shape = tuple(x.shape[1:])
        self.spacing: tuple[float, ...] | None = None
        self.unit = "sample"
        self.rounding = 0.0
        self.channels = tuple(f"channel {c}" for c in range(x.shape[1]))

    def __len__(self) -> int:
        return len(self.x)

    def keys(self) -> Sequence[str]:
        """Return the index of each sample as its name."""
        return [str(i) for i in range(len(self.x))]

    def groups(self) -> Sequence[int]:
        """Return the index of each sample."""
        return range(len(self.x))

    def read(self, start: int, stop: int) -> Tensor:
        """Return samples from `start` up to `stop`."""
        return self.x[start:stop]


def _chunks(source: Source, lattice: Grid, settings: Settings, workers: int) -> Iterator[tuple[int, int, Features]]:
    """Yield the features of consecutive chunks in order; their borders do not depend on the number of workers."""

    def work(start: int, stop: int) -> tuple[int, int, Features]:
        return start, stop, sample_features(read(source, start, stop), lattice, settings.window, settings.detrend)

    yield from in_order(work, spans(source), workers)


def read(source: Source, start: int, stop: int) -> Tensor:
    """Return samples from `start` up to `stop`. Raises ValueError for values whose powers overflow."""
    x = source.read(start, stop)
    largest = max(abs(float(value)) for value in torch.aminmax(x))
    if largest > LARGEST:
        raise ValueError(
            f"{source.name}: expected magnitudes up to {LARGEST:.0e}, whose powers can be summed; got {largest:.3g} in "
            f"samples {start} to {stop - 1}; use another unit"
        )
    return x


def spans(source: Source) -> list[tuple[int, int]]:
    """Return the borders of the chunks of a source."""
    size = max(1, min(256, CHUNK_VALUES // int(np.prod(source.shape))))
    return [(start, min(start + size, len(source))) for start in range(0, len(source), size)]


def in_order(work: Callable[[int, int], T], parts: list[tuple[int, int]], workers: int) -> Iterator[T]:
    """Yield `work(start, stop)` of each part in order, computed by several threads, each with one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(workers) as pool:
            waiting: deque[Future[T]] = deque()
            for part in parts:
                waiting.append(pool.submit(work, *part))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(threads)
