"""The transform back by Hartley against torch's."""

import pytest
import torch

pytest.importorskip("numba")
from specreg.transforms.hartley import cas

SHAPES = [(2, 3, 8, 10), (1, 2, 7, 5), (2, 1, 6, 9), (1, 1, 9, 4), (2, 2, 1, 8), (2, 2, 5, 1), (1, 3, 2, 2),
          (2, 1, 4, 6, 8), (1, 2, 3, 5, 7), (1, 1, 2, 1, 6)]  # fmt: skip


def back(F, shape):
    H = cas(F, torch.empty(shape), torch.Size(shape))
    Y = torch.fft.rfftn(H, dim=tuple(range(2 - len(shape), 0))).contiguous()
    return cas(Y, H, torch.Size(shape))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
def test_two_sums_around_a_transform_forward_are_the_transform_back(shape, symmetric):
    g = torch.Generator().manual_seed(0)
    axes = tuple(range(2 - len(shape), 0))
    F = torch.fft.rfftn(torch.randn(shape, generator=g), dim=axes)
    if not symmetric:  # what no real signal has: irfftn takes the part that one could have
        F = torch.randn(F.shape, dtype=F.dtype, generator=g)
    expected = torch.fft.irfftn(F.to(torch.complex128), shape[2:], norm="forward")
    torch.testing.assert_close(back(F, shape).double(), expected, rtol=1e-5, atol=2e-6 * expected.abs().max().item())


def test_the_spectrum_is_left_and_its_memory_can_be_another_spectrum():
    F = torch.fft.rfft2(torch.randn(2, 1, 6, 8))
    kept, memory = F.clone(), torch.empty_like(F)
    H = cas(F, memory, torch.Size((2, 1, 6, 8)))
    assert H.data_ptr() == memory.data_ptr()
    assert torch.equal(F, kept)
