"""The gradient of a run's steps: clipped, refused where it is not finite, and skipped steps counted."""

from __future__ import annotations

import math

from accelerate import Accelerator
from torch import Tensor

from specreg.config import TrainingConfig
from specreg.training.record import NonFiniteLoss

MOST_SKIPPED = 30
"""Optimizer steps in a row that a gradient scaler may skip: each halves its scale, from 65,536 to 6e-5."""


class Gradient:
    """The gradient of all weights of a network.

    Args:
        accelerator: whose optimizer takes the steps.
        weights: the network's parameters.
        settings: clip and precision of the run.
    """

    def __init__(self, accelerator: Accelerator, weights: list[Tensor], settings: TrainingConfig):
        self.accelerator, self.weights, self.settings = accelerator, weights, settings
        self.skipped = 0
        """Steps that the gradient scaler skipped so far."""
        self._in_a_row = 0

    def clip(self, *, step: int) -> float:
        """Clip the gradient and return its norm before; raises NonFiniteLoss where no gradient scaler handles it."""
        limit = math.inf if self.settings.clip is None else self.settings.clip
        norm = float(self.accelerator.clip_grad_norm_(self.weights, limit))
        if not math.isfinite(norm) and self.accelerator.scaler is None:
            raise NonFiniteLoss(step, f"the gradient norm is {norm} though the loss is finite")
        return norm

    def count_skipped(self, *, step: int) -> None:
        """Count optimizer steps that the gradient scaler skipped; raises NonFiniteLoss after too many in a row."""
        if not self.accelerator.optimizer_step_was_skipped:
            self._in_a_row = 0
            return
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row >= MOST_SKIPPED:
            raise NonFiniteLoss(
                step,
                f"the gradient was not finite in {MOST_SKIPPED} steps in a row, whatever the scale of the loss "
                f"(training.precision = {self.settings.precision}); no weight has changed in them",
            )
