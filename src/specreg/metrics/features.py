"""Inception-v3 features for FID, by torch-fidelity, from weights on disk."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specreg._files import sha256
from specreg._torch_files import load_plain

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
"""Name of the weights among torch-fidelity's releases (v0.2.0); its last part begins the file's SHA-256."""

INCEPTION_VARIABLE = "SPECREG_INCEPTION"
"""Environment variable that may hold the path of the weights."""


class WeightsMissing(ValueError):
    """The weights of a metric are missing; the message says what to fetch and where to put it."""


def find_inception(given: Path | None = None) -> Path:
    """Return the path of the Inception weights, `given` or $SPECREG_INCEPTION.

    Raises WeightsMissing, which says what to fetch, where there is no such file.
    """
    path = given or (Path(os.environ[INCEPTION_VARIABLE]) if os.environ.get(INCEPTION_VARIABLE) else None)
    if path is None or not path.is_file():
        raise WeightsMissing(
            f"FID needs {INCEPTION_FILE} (torch-fidelity's release v0.2.0): fetch it and pass --inception FILE or set "
            f"{INCEPTION_VARIABLE}; got {path or 'neither'}"
        )
    return path


class InceptionFeatures:
    """Extractor of the 2048 pool features of the 2015-12-05 Inception graph.

    Args:
        weights: path of `INCEPTION_FILE`.
        device: device of the network.
        verify: whether the file's SHA-256 must begin as its published name says.

    Raises ValueError for other weights, ImportError without torch-fidelity.
    """

    dimensions = 2048
    name = INCEPTION_FILE

    def __init__(self, weights: Path, *, device: torch.device | str = "cpu", verify: bool = True):
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise ImportError('FID needs torch-fidelity: pip install "specreg[eval]"') from error
        if verify:
            found = sha256(weights)
            expected = INCEPTION_FILE.rpartition("-")[2].removesuffix(".pth")
            if not found.startswith(expected):
                raise ValueError(f"{weights}: expected a SHA-256 that begins with {expected}; got {found[:8]}")
        state = load_plain(weights)
        # torch-fidelity unpickles its file, so it gets a copy of weights that were read safely.
        with tempfile.TemporaryDirectory() as folder:
            safe = Path(folder) / INCEPTION_FILE
            torch.save(state, safe)
            self.network: Any = FeatureExtractorInceptionV3("inception", ["2048"], str(safe)).to(device).eval()
        self.device = torch.device(device)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return features, float32 `[N, 2048]`, of uint8 images `[N, 1 or 3, H, W]`."""
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"images must be uint8 [N, 1 or 3, H, W]; got {images.dtype} {list(images.shape)}")
        features: Tensor = self.network(images.to(self.device).expand(-1, 3, -1, -1))[0]
        return features.float().cpu()
