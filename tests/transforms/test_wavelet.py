"""The wavelet transform against PyWavelets, Parseval and values by hand."""

from __future__ import annotations

import math
import warnings
from itertools import product
from typing import get_args

import pytest
import pywt
import torch
from torch import Tensor

from specreg.transforms.wavelet import Mode, WaveletCoefficients, max_levels, wavedecn

WAVELETS = pywt.wavelist(kind="discrete")
MODES = get_args(Mode)
FEW = ["haar", "db2", "bior1.3", "bior3.1", "sym5", "coif2", "rbio2.8"]


def signal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def oracle(x: Tensor, name: str, levels: int, mode: str, ndim: int) -> WaveletCoefficients:
    """PyWavelets' answer in our order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Level value is too high": allowed here and there
        axes = tuple(range(-ndim, 0))
        approx, *details = pywt.wavedecn(x.numpy(), name, mode=mode, level=levels, axes=axes)
    finest_first = tuple({k: torch.from_numpy(v) for k, v in level.items()} for level in reversed(details))
    return WaveletCoefficients(torch.from_numpy(approx), finest_first, tuple(x.shape[-ndim:]))


def assert_same(ours: WaveletCoefficients, theirs: WaveletCoefficients, atol: float = 1e-10) -> None:
    assert ours.shape == theirs.shape
    assert [list(level) for level in ours.details] == [sorted(level) for level in theirs.details]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


@pytest.mark.parametrize("mode", MODES)
def test_every_discrete_wavelet_equals_pywavelets_in_1d(mode: Mode) -> None:
    for name, size in product(WAVELETS, (1, 7, 16, 33)):  # most filters are longer than most of these
        if mode == "reflect" and size < 3:  # refused, as by PyWavelets
            continue
        x = signal(2, 1, size)
        ours = wavedecn(x, name, levels=2, mode=mode)
        assert_same(ours, oracle(x, name, 2, mode, 1))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("space", [(8, 12), (7, 10), (5, 9), (1, 6), (4, 6, 8), (3, 5, 4), (1, 1, 1)])
def test_several_axes_equal_pywavelets(space: tuple[int, ...], mode: Mode) -> None:
    levels = 1 if mode == "reflect" else 3
    if mode == "reflect":  # refuses a size of 1, as PyWavelets does
        space = tuple(max(size, 2) for size in space)
    for name in FEW:
        x = signal(2, 2, *space)
        ours = wavedecn(x, name, levels=levels, mode=mode)
        assert_same(ours, oracle(x, name, levels, mode, len(space)))


def test_only_the_trailing_axes_are_transformed_when_ndim_says_so() -> None:
    x = signal(2, 3, 4, 6, 7)
    assert_same(wavedecn(x, "db2", levels=2, ndim=2), oracle(x, "db2", 2, "periodization", 2))
    assert_same(wavedecn(x, "db2", levels=1, ndim=1), oracle(x, "db2", 1, "periodization", 1))


def test_levels_far_below_size_one_still_equal_pywavelets() -> None:
    x = signal(1, 1, 5, 3)
    for name, mode in product(("haar", "bior1.3"), MODES):
        if mode == "reflect":
            continue
        assert_same(wavedecn(x, name, levels=6, mode=mode), oracle(x, name, 6, mode, 2), atol=1e-9)


def test_default_levels_are_max_levels() -> None:
    for name, space in product(FEW, [(1,), (9,), (64, 31), (16, 40, 33)]):
        expected = max(1, pywt.dwtn_max_level(space, name))
        assert max_levels(space, name) == expected
        assert len(wavedecn(signal(1, 1, *space), name).details) == expected


def test_haar_by_hand() -> None:
    c = wavedecn(torch.tensor([[[1.0, 3.0, 10.0, 6.0]]]), "haar", levels=1)
    torch.testing.assert_close(c.approx.flatten(), torch.tensor([4.0, 16.0]) / math.sqrt(2))
    torch.testing.assert_close(c.details[0]["d"].flatten(), torch.tensor([-2.0, 4.0]) / math.sqrt(2))


def test_parseval_for_orthogonal_wavelets_with_periodization() -> None:
    x = signal(2, 3, 16, 32)
    for name in WAVELETS:
        if not pywt.Wavelet(name).orthogonal or name == "dmey":  # dmey is orthogonal only nearly
            continue
        approx, details, _ = wavedecn(x, name, levels=3)
        bands = [approx, *(band for level in details for band in level.values())]
        energy = torch.stack([band.square().sum() for band in bands]).sum()
        torch.testing.assert_close(energy, x.square().sum(), rtol=1e-6, atol=0)


def test_memory_layout_does_not_matter() -> None:
    x = signal(2, 3, 8, 9)
    for name in ("haar", "db4"):
        expected = wavedecn(x, name, levels=2)
        for view in (
            x.to(memory_format=torch.channels_last),
            x.transpose(0, 3).contiguous().transpose(0, 3),
            signal(2, 3, 16, 9)[:, :, ::2].copy_(x),
            x.unsqueeze(2).expand(2, 3, 4, 8, 9)[:, :, 2],
        ):
            assert_same(wavedecn(view, name, levels=2), expected, atol=0)


def test_dtypes() -> None:
    x = signal(2, 1, 33, dtype=torch.float32)
    single = wavedecn(x, "sym4", levels=2, mode="symmetric")
    assert single.approx.dtype == torch.float32
    torch.testing.assert_close(
        single.approx.double(), oracle(x.double(), "sym4", 2, "symmetric", 1).approx, rtol=0, atol=1e-5
    )
    half = wavedecn(x.to(torch.bfloat16), "sym4", levels=2, mode="symmetric")
    assert_same(half, wavedecn(x.to(torch.bfloat16).float(), "sym4", levels=2, mode="symmetric"), atol=0)


def test_autocast_changes_nothing() -> None:
    x = signal(1, 1, 16, dtype=torch.float32)
    plain = wavedecn(x, "db2", levels=2)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(wavedecn(x, "db2", levels=2), plain, atol=0)


def test_autograd_does_not_see_it() -> None:
    c = wavedecn(signal(1, 1, 12).requires_grad_(), "db2", levels=1)
    assert not c.approx.requires_grad


def test_audio_without_a_channel_axis() -> None:
    x = signal(3, 21)
    c = wavedecn(x, "db2", levels=2)
    assert_same(c, wavedecn(x[:, None], "db2", levels=2), atol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: wavedecn(x, "bior13"), r"got 'bior13' \(did you mean 'bior1.3'\?\)"),
        (lambda x: wavedecn(x, "morl"), "discrete wavelet of PyWavelets"),
        (lambda x: max_levels((8,), "DB4"), r"did you mean 'db4'\?"),
        (lambda x: wavedecn(x, "haar", mode="periodisation"), r"did you mean 'periodization'\?"),
        (lambda x: wavedecn(x[..., :1], "haar", mode="reflect"), "at least 2 samples along every axis"),
        (lambda x: wavedecn(x, "haar", mode="antireflect"), "mode must be one of"),
        (lambda x: wavedecn(x, "haar", levels=0), "levels must be at least 1; got 0"),
        (lambda x: wavedecn(x, "haar", ndim=3), "ndim must be between 1 and the 2 spatial axes"),
        (lambda x: wavedecn(x[:, :, :0], "haar"), "x is empty"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(signal(1, 1, 8, 8))


def test_integer_input_is_refused() -> None:
    with pytest.raises(TypeError, match="real floating-point"):
        wavedecn(torch.arange(8).reshape(1, 1, 8), "haar")
