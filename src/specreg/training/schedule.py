"""The learning rate of each step of a run."""

from __future__ import annotations

import math

from specreg.config import Config


def learning_rate(config: Config, step: int) -> float:
    """Learning rate of a step (from 0): linear warm-up, then constant or a cosine down to 0 at the last step."""
    settings = config.training
    if settings.warmup_images is not None:  # the public loop counts the images before this step: its first has none
        ramp = min(1.0, step * settings.batch_size / settings.warmup_images)
    else:
        ramp = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    if settings.decay == "constant":
        return settings.lr * ramp
    done = max(0, step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.lr * ramp * 0.5 * (1 + math.cos(math.pi * done))
