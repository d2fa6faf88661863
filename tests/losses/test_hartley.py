"""The transform back by Hartley against torch's."""

import numpy as np
import pytest
import torch

pytest.importorskip("numba")
from specreg.losses.kernels.fourier import _mirrors
from specreg.losses.kernels.fourier_loops import _cas

SHAPES = [(2, 3, 8, 10), (1, 2, 7, 5), (2, 1, 6, 9), (1, 1, 9, 4), (2, 2, 1, 8), (2, 2, 5, 1), (1, 3, 2, 2),
          (2, 1, 4, 6, 8), (1, 2, 3, 5, 7), (1, 1, 2, 1, 6)]  # fmt: skip


def hartley(F, shape, shares):
    out = torch.full(shape, np.nan)
    for share in range(shares):
        _cas(F.reshape(-1).numpy(), out.view(-1).numpy(), _mirrors(shape[2:-1]), shape[-1], share, shares)
    return out


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("shares", [1, 3])
def test_two_sums_around_a_transform_forward_are_the_transform_back(shape, symmetric, shares):
    g = torch.Generator().manual_seed(0)
    axes = tuple(range(2 - len(shape), 0))
    F = torch.fft.rfftn(torch.randn(shape, generator=g), dim=axes)
    if not symmetric:  # what no real signal has: irfftn takes the part that one could have
        F = torch.randn(F.shape, dtype=F.dtype, generator=g)
    expected = torch.fft.irfftn(F.to(torch.complex128), shape[2:], norm="forward")
    kept = F.clone()
    found = hartley(torch.fft.rfftn(hartley(F, shape, shares), dim=axes), shape, shares)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=2e-6 * expected.abs().max().item())
    assert torch.equal(F, kept)
