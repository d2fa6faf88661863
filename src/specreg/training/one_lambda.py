"""One λ a step where a batch is accumulated in parts: measured over the whole batch before the first part trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from specreg.objectives import Model, Objective
from specreg.training.batches import Batch


def advance(objective: Objective, model: Model, parts: Sequence[Batch]) -> Tensor | None:
    """Count one step of a spectral term whose batch comes in `parts`; return the norms that it measured, `[parts, 2]`.

    A constant λ needs no measurement. An automatic one needs the gradients at the network's output over all parts, so
    each part passes the network forward once more, without a graph.
    """
    regularizer = objective.regularizer
    if regularizer is None or not regularizer.automatic:
        if regularizer is not None:
            regularizer.advance()
        return None
    with regularizer.held():
        found = [_norms(objective, model, batch) for batch in parts]
    norms = torch.stack(found)
    regularizer.advance(norms)
    return norms


def _norms(objective: Objective, model: Model, batch: Batch) -> Tensor:
    term = objective(_Leaf(model), batch.x0, batch.t, batch.noise, batch.condition, measure_ratio=True).spectral
    assert term is not None
    assert term.norms is not None
    return term.norms


class _Leaf:
    """A network whose first output is a leaf of autograd's graph; the graphs of further calls reach back to it."""

    def __init__(self, model: Model):
        self.model, self.called = model, False

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        with torch.set_grad_enabled(self.called):
            output: Tensor = self.model(*args, **kwargs)
        if self.called:
            return output
        self.called = True
        return output.detach().requires_grad_()
