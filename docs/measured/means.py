"""How much the images of a study differ from each other in brightness and colour, which spectra without means miss.

    python docs/measured/means.py FOLDER > docs/measured/NAME.json

FOLDER is that of `specreg compare` or of a study, whose samples of its last length are read. Kept in the form that
summarize.py has.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import kept
import numpy as np
from numpy.typing import NDArray

from specreg import modalities
from specreg.instruments import open_source

LABELS = {"brightness_db": "variance of images' brightness", "colour_db": "variance of images' colour"}


def measured(folder: Path) -> dict[str, Any]:
    """Return the table: variances over images of their means, relative to those of real images, paired by seed."""
    comparison = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    values: dict[tuple[str, str], list[float]] = {}
    for cell in comparison["cells"]:
        samples = np.load(folder / cell["folder"] / "samples" / "samples.npy").transpose(0, 3, 1, 2)
        config = modalities.load(folder / cell["folder"].replace("calibrated", "none") / "config.yaml")
        source: Any = open_source(str(config.data.test_path))
        real = source.read(0, len(source)).numpy()
        for name, ours, theirs in zip(LABELS, variances(samples), variances(real), strict=True):
            values.setdefault((cell["arm"], name), []).append(10 * math.log10(ours / theirs))
    halves = zip(LABELS, variances(real[::2]), variances(real[1::2]), strict=True)
    about = {"unit": "dB", "better": "zero", "digits": 2}
    return kept.table(
        comparison,
        f"python docs/measured/means.py {folder}",
        comparison["arms"],
        {name: {"label": label, **about} for name, label in LABELS.items()},
        values,
        {f"floor: {name}": 10 * math.log10(a / b) for name, a, b in halves},
    )


def variances(images: NDArray[Any]) -> tuple[float, float]:
    """Return the variance over images `[N, C, H, W]`, 8-bit or in [−1, 1], of their mean brightness and mean colour."""
    scaled = images / 127.5 - 1 if images.dtype == np.uint8 else images
    means = scaled.mean((2, 3), dtype=np.float64)
    brightness = means.mean(1)
    colour = means - brightness[:, None]
    return float(brightness.var()), float(colour.var(0).sum())


if __name__ == "__main__":
    print(json.dumps(measured(Path(sys.argv[1])), indent=1, ensure_ascii=False))
