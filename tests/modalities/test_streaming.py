"""Sums over images of any number."""

import pytest
import torch

from specreg.modalities.images.streaming import _Sums


def test_images_of_another_size_are_refused_and_not_averaged():
    sums = _Sums(None)
    sums.add(torch.zeros(2, 1, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"one image size; got .* of 768 coefficients and .* of 1024"):
        sums.add(torch.zeros(2, 1, 24, 32, dtype=torch.uint8))
    assert sums.count == 2
