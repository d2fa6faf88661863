"""Wavelet transforms whose every operation autograd records: decimated (DWT) and stationary (SWT).

The loss with the name of a wavelet has a faster one of its own (`wavelet_stages`). Here are those of losses that
compare coefficients in another way. With h the taps of an analysis filter, along one axis

    DWT   y[k] = Σ_j h[j] x[2k + j - left]        extended beyond its ends as `mode` says
    SWT   y[k] = Σ_j h[j] x[k + d·(j + 1 - L/2)]  circular, the filter of level s dilated by d = 2^(s-1)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from specreg._compile import constant_tensors, traced_as_constant
from specreg.transforms.wavelet import band_keys
from specreg.transforms.wavelet_steps import Mode, Taps, edges, filter_bank, margins


def decimated(x: Tensor, wavelet: str, *, levels: int, mode: Mode, ndim: int) -> dict[str, Tensor]:
    """Return the bands of the DWT of `x` `[..., *space]` over its last `ndim` axes, finest first, approximation last.

    Names are those of the losses: "1dd" is band dd of level 1. Equal to `wavelet.wavedecn` and so to PyWavelets.
    """
    length, taps = _filters(wavelet)

    def halved(x: Tensor, axis: int, _: int) -> list[Tensor]:
        left, right, count = margins(x.shape[axis], length, mode)
        return _correlated(_extended(x, axis, left, right, mode), axis, taps, count, step=2)

    return _levels(x, halved, levels, ndim)


def stationary(x: Tensor, wavelet: str, *, levels: int, ndim: int) -> dict[str, Tensor]:
    """Return the bands of the undecimated transform of `x` `[..., *space]`, each of the shape of `x`.

    Coefficients have the scale of the decimated transform's, as `pywt.swtn` with `norm=False` has: of each level, the
    decimated transform of every circular shift takes one coefficient in 2^(level·ndim). Any size is allowed.

    Each band is a circular convolution, computed as a product with its response: one FFT, and one back for each band,
    however long the filters are.
    """
    space, axes = tuple(len(range(n)) for n in x.shape[-ndim:]), tuple(range(-ndim, 0))
    responses = _responses(wavelet, levels, space, x.dtype, x.device)
    spectrum = torch.fft.rfftn(x, dim=axes)
    names = [f"{level}{name}" for level in range(1, levels + 1) for name in band_keys(ndim)]
    return {
        name: torch.fft.irfftn(spectrum * response, s=space, dim=axes)
        for name, response in zip([*names, f"{levels}{'a' * ndim}"], responses.unbind(), strict=True)
    }


@constant_tensors(64)
def _responses(wavelet: str, levels: int, space: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the DFT of each band of a unit impulse, complex `[bands, *half spectrum]`."""
    impulse = torch.zeros(space, dtype=torch.float64)
    impulse.view(-1)[0] = 1
    bands = _by_taps(impulse, wavelet, levels=levels, ndim=len(space))
    found: Tensor = torch.fft.rfftn(torch.stack(list(bands.values())), dim=tuple(range(-len(space), 0)))
    return found.to(torch.complex128 if dtype == torch.float64 else torch.complex64).to(device)


def _by_taps(x: Tensor, wavelet: str, *, levels: int, ndim: int) -> dict[str, Tensor]:
    """Return the bands by the sums that the module states."""
    length, taps = _filters(wavelet)

    def same(x: Tensor, axis: int, level: int) -> list[Tensor]:
        dilation, n = 2 ** (level - 1), x.shape[axis]
        left, right = dilation * (length // 2 - 1), dilation * (length // 2)
        return _correlated(_extended(x, axis, left, right, "periodic"), axis, taps, n, dilation=dilation)

    return _levels(x, same, levels, ndim)


@traced_as_constant
def _filters(wavelet: str) -> tuple[int, Taps]:
    bank = filter_bank(wavelet)
    return bank.length, bank.analysis


def _levels(x: Tensor, split: Callable[[Tensor, int, int], list[Tensor]], levels: int, ndim: int) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for level in range(1, levels + 1):
        parts = [x]
        for axis in range(-ndim, 0):
            parts = [band for part in parts for band in split(part, axis, level)]
        x, *details = parts
        found.update({f"{level}{name}": band for name, band in zip(band_keys(ndim), details, strict=True)})
    return {**found, f"{levels}{'a' * ndim}": x}


def _extended(x: Tensor, axis: int, left: int, right: int, mode: Mode) -> Tensor:
    n = x.shape[axis]
    if mode == "zero":
        after = -axis - 1
        return torch.nn.functional.pad(x, (0, 0) * after + (left, right))
    before, after_end = edges(n, left, right, mode, x.device)
    return torch.cat((x.index_select(axis, before), x, x.index_select(axis, after_end)), axis)


def _correlated(x: Tensor, axis: int, filters: Taps, count: int, *, step: int = 1, dilation: int = 1) -> list[Tensor]:
    """Return Σ_j taps[j]·x[step·k + dilation·j] for `count` values of k: the low- and the high-pass band."""
    bands = []
    for taps in filters:
        total: Tensor | None = None
        for j, tap in taps:
            part = x.narrow(axis, dilation * j, step * (count - 1) + 1)
            part = (part if step == 1 else part.index_select(axis, _every(step, count, x.device))) * tap
            total = part if total is None else total + part
        assert total is not None  # no filter is empty
        bands.append(total)
    return bands


def _every(step: int, count: int, device: torch.device) -> Tensor:
    return torch.arange(count, device=device) * step
