"""Exponential moving average of a network's weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class EMA:
    """Moving average of the weights; `model` is a copy for evaluation: no gradients, same device and dtype.

    Args:
        model: the network as training starts from it.
        decay: the decay is min(decay, (1 + n)/(10 + n)) at update n, so that initial weights are forgotten.
        halflife: a half-life in samples that replaces the decay, as in EDM's public loop.
        rampup: the half-life is at most this share of the samples seen before the update; None for no ramp.
        batch_size: samples per update.
    """

    def __init__(
        self,
        model: nn.Module,
        decay: float,
        *,
        halflife: float | None = None,
        rampup: float | None = None,
        batch_size: int = 1,
    ):
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.halflife, self.rampup, self.batch_size = decay, halflife, rampup, batch_size
        self.updates = 0
        self._weights: list[Tensor] = list(self.model.parameters())
        self._buffers = list(self.model.buffers())

    def next_decay(self) -> float:
        """Return the share of the average that the next update keeps."""
        if self.halflife is None:
            return min(self.decay, (2 + self.updates) / (11 + self.updates))
        halflife = self.halflife
        if self.rampup is not None:
            halflife = min(halflife, self.updates * self.batch_size * self.rampup)
        return 0.5 ** (self.batch_size / halflife) if halflife else 0.0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the weights of `model`; buffers are copied."""
        decay = self.next_decay()
        self.updates += 1
        torch._foreach_lerp_(self._weights, list(model.parameters()), 1 - decay)
        for ours, theirs in zip(self._buffers, model.buffers(), strict=True):
            ours.copy_(theirs)
