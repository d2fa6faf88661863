"""What a training step is recorded as, and what ends a run: batch means, and states that are not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from specreg.objectives import ObjectiveTerms
from specreg.spectral_term import SpectralTerm

COLUMNS = ("base", "spectral", "weight", "term", "lambda", "gradient_ratio")
"""Columns of metrics.jsonl about the losses, as batch means: base loss, spectral loss, λ times the noise weight, the
product of these two, λ alone, and the ratio of the two gradients at the network's output."""


class NonFiniteLoss(RuntimeError):
    """The loss, its gradient or the state after a step is NaN or infinite: which step and which term."""

    def __init__(self, step: int, problem: str):
        super().__init__(f"step {step}: {problem}")
        self.step, self.problem = step, problem


def batch_means(
    terms: Sequence[ObjectiveTerms],
    reduce: Callable[[Tensor], Tensor],
    *,
    norms: Tensor | None,
    step: int,
    asked: bool,
) -> tuple[dict[str, float | None], bool]:
    """Return the means of a step's terms over parts and processes, and whether any process was asked to stop.

    Args:
        terms: the terms of each part.
        reduce: averages a vector over processes.
        norms: gradient norms `[parts, 2]` that were measured before; None for those that the terms carry.
        step: the step, for the error.
        asked: whether this process was asked to stop.

    Raises NonFiniteLoss if a mean is not finite.
    """
    base = torch.stack([term.base.mean() for term in terms]).mean()
    means = [base.detach(), base.detach().new_tensor(float(asked))]
    spectral = [term.spectral for term in terms if term.spectral is not None]
    names = ["base"]
    if spectral:
        columns = {
            "spectral": [s.per_sample.mean() for s in spectral],
            "weight": [s.weight.mean() for s in spectral],
            "term": [s.loss for s in spectral],
            "lambda": [s.lam for s in spectral],
            "gradient_ratio": _ratio(spectral, norms),
        }
        measured = {name: torch.stack(values) for name, values in columns.items() if values}
        names += measured
        means += [values.mean().detach() for values in measured.values()]
    first, stopping, *others = reduce(torch.stack(means)).tolist()
    values: dict[str, float | None] = dict.fromkeys(COLUMNS)
    values.update(zip(names, [first, *others], strict=True))
    if not math.isfinite(values["gradient_ratio"] or 0.0):
        values["gradient_ratio"] = None  # the base loss has no gradient left
    bad = [name for name in COLUMNS if not math.isfinite(values[name] or 0.0)]
    if bad:
        shown = ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
        culprit = "base loss" if bad[0] == "base" else "spectral term"
        raise NonFiniteLoss(step, f"the {culprit} is not finite ({shown})")
    return {"loss": (values["base"] or 0.0) + (values["term"] or 0.0), **values}, stopping > 0


def _ratio(parts: Sequence[SpectralTerm], norms: Tensor | None) -> list[Tensor]:
    """Return the ratio of the two gradients of the whole batch, `[]`, in a list that is empty where it is unknown."""
    if len(parts) == 1:
        return [parts[0].gradient_ratio] if parts[0].gradient_ratio is not None else []
    if norms is None:
        found = [part.norms for part in parts if part.norms is not None]
        if len(found) < len(parts):
            return []
        norms = torch.stack(found)
    base, spectral = norms.square().sum(0).sqrt().unbind()
    return [parts[0].lam * spectral / base]
