"""Samples with one axis of space as small line plots, in a grid like that of pictures."""

from __future__ import annotations

import numpy as np

from specreg.report.colors import INK
from specreg.report.contents import Images, Samples

ROWS = COLUMNS = 5
SIDE, DPI = 1.6, 84  # inches of one plot; 5 plots are 672 pixels across
COLORS = (INK, "#0072B2", "#D55E00", "#009E73")  # of the channels


def tile(samples: Samples, *, most: int = ROWS) -> tuple[Images, int]:
    """Draw the first of `samples` float [N, C, T] in `most` rows as uint8 [H, W, 3]; return it with their number.

    All plots share one vertical axis, from the lowest to the highest value shown.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(samples))
    rows = max(1, min(most, -(-len(samples) // columns)))
    shown = np.asarray(samples[: rows * columns], dtype=np.float64)
    finite = shown[np.isfinite(shown)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    margin = 0.06 * ((high - low) or 1.0)
    figure = Figure(figsize=(SIDE * columns, SIDE * 0.75 * rows), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for index, sample in enumerate(shown):
        axes = figure.add_subplot(rows, columns, index + 1)
        for channel, values in enumerate(sample):
            axes.plot(values, color=COLORS[channel % len(COLORS)], lw=1.1)
        axes.set(ylim=(low - margin, high + margin), xticks=[], yticks=[])
        axes.grid(visible=False)
        axes.spines[:].set_visible(True)
        axes.spines[:].set_color("#d8d7d0")
    canvas.draw()  # type: ignore[no-untyped-call]
    drawn = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    pixels: Images = drawn[..., :3].copy()
    return pixels, len(shown)
