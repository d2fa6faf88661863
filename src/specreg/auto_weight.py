"""Automatic λ: keeps the spectral term's gradient at the network's output at a fixed multiple of the base loss's."""

from __future__ import annotations

import math
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from specreg import _checks
from specreg.own_state import OwnState

_CALLS_TO_WARN = 20


class AutoWeight(OwnState):
    """λ for which the spectral term's gradient at the network's output is `ratio` times as large as the base loss's.

    λ = ratio · m, where m is an exponential mean, geometric since gradients move over decades, of ‖∂L/∂o‖ / ‖∂L_S/∂o‖
    over the calls so far: o the network's output, L the base loss, L_S the spectral loss with its noise-level
    weights at λ = 1, ‖·‖ the L2 norm over the whole batch. Both gradients are taken at the output, so nothing runs
    through the network twice. Scales cancel: sum or mean, whatever is predicted, at any size, one ratio means the same.

    Under torch.distributed the norms are those of the global batch (every rank must call), so all ranks use one λ.
    A batch whose norms are zero or not finite does not update λ and is counted in `skipped`; before the first update λ
    is 0. λ has no gradient. Its state is float32 and stays out of other modules' state dicts (see `OwnState`).

    The norms are those of whole batches. Where the base loss has weights with heavy tails (1/σ², say), the sample of
    least noise decides them and λ follows it from call to call. A larger batch evens that out, a larger `smoothing`
    does after the first calls, and a regularizer's `warmup` keeps λ small in these; docs/losses.md has figures.

    Args:
        ratio: ‖λ·∂L_S/∂o‖ / ‖∂L/∂o‖ to hold, positive. At 1 both pull equally, which suited flow matching. 2
            suited training from scratch with prediction v or x0, 0.5 networks that were trained already and fields
            under EDM (docs/choosing.md); 5 moves spectra further, at a cost in denoising error. The gradient of a
            squared error fades as the error does, that of an absolute error does not, so λ falls during training.
        smoothing: share of the mean kept at each call, in [0, 1); 0.98 forgets in about 50 calls.
        bounds: smallest and largest λ. Calls whose λ is held at a bound are counted in `clamped`, and the first one
            warns (on the CPU, where it can be seen without waiting).
    """

    OWN: ClassVar = ("log_mean", "mass", "skipped", "clamped")
    COUNTERS: ClassVar = ("skipped", "clamped")

    def __init__(self, ratio: float = 1.0, *, smoothing: float = 0.98, bounds: tuple[float, float] = (0.0, math.inf)):
        super().__init__()
        low, high = bounds
        if not all(isinstance(x, (int, float)) for x in (ratio, smoothing, low, high)):
            raise TypeError(f"AutoWeight's options are numbers; got {ratio!r}, {smoothing!r}, {bounds!r}")
        if not 0 < ratio < float("inf"):
            raise ValueError(f"ratio must be a positive finite number; got {ratio}")
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be at least 0 and below 1; got {smoothing}")
        if not (0 <= low < high and low < float("inf")):
            raise ValueError(f"bounds must be two numbers, 0 <= low < high; got {bounds}")
        self.ratio, self.smoothing, self.bounds = float(ratio), float(smoothing), (float(low), float(high))
        state: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}  # whatever the defaults are
        self.log_mean = torch.zeros((), **state)  # of log ‖∂L/∂o‖ / ‖∂L_S/∂o‖, not yet divided by mass
        self.mass = torch.zeros((), **state)  # of the exponential mean: 0 before any call, towards 1
        self.skipped = torch.zeros((), dtype=torch.int64, device="cpu")  # calls that could not be measured
        self.clamped = torch.zeros((), dtype=torch.int64, device="cpu")  # calls whose λ was held at a bound

    @property
    def value(self) -> Tensor:
        """Current λ, `[]`; 0 before the first measurement."""
        mean = self._unbounded()
        return torch.where(self.mass > 0, mean.clamp(*self.bounds), torch.zeros_like(mean))

    def _unbounded(self) -> Tensor:
        return self.ratio * (self.log_mean / self.mass.clamp_min(1e-12)).exp()

    @torch.no_grad()
    def update(self, base_norm: Tensor, spectral_norm: Tensor) -> Tensor:
        """Return λ, `[]`, updated by the two gradient norms of the global batch, `[]` each."""
        if self.log_mean.device != base_norm.device:
            self.move_state(base_norm.device)
        log_ratio = base_norm.float().log() - spectral_norm.float().log()
        good = log_ratio.isfinite()
        keep = self.smoothing
        self.log_mean.copy_(torch.where(good, keep * self.log_mean + (1 - keep) * log_ratio, self.log_mean))
        self.mass.copy_(torch.where(good, keep * self.mass + (1 - keep), self.mass))
        self.skipped += ~good
        self._warn_if_never_measured()
        lam, unbounded = self.value, self._unbounded()
        held = (self.mass > 0) & (lam != unbounded)
        self.clamped += held
        if held.device.type == "cpu" and not torch.compiler.is_compiling() and bool(held):
            _checks.warn_once(
                "clamped λ",
                f"AutoWeight holds λ at {float(lam):g}, a bound of {self.bounds}, where its ratio of {self.ratio:g} "
                f"asks for {float(unbounded):g}; .clamped counts such calls",
            )
        return lam

    def _warn_if_never_measured(self) -> None:
        """Warn once where none of the first calls could be measured, on the CPU: elsewhere a look would wait."""
        if self.mass.device.type == "cpu" and not torch.compiler.is_compiling():
            skipped = int(self.skipped)
            if skipped == _CALLS_TO_WARN and float(self.mass) == 0:
                _checks.warn_once(
                    "λ never measured",
                    f"AutoWeight could measure none of the first {skipped} calls, so λ is still 0: a gradient at the "
                    "output is 0 or not finite, such as where the noise weight is 0 for all samples",
                )

    @classmethod
    def named(cls, name: str) -> AutoWeight | None:
        """Return "auto" or "auto:RATIO" as an instance, None for other names; ValueError for what is no ratio."""
        head, colon, ratio = name.partition(":")
        if head != "auto":
            return None
        try:
            return cls(float(ratio)) if colon else cls()
        except ValueError:
            raise ValueError(f"weight (λ) is auto or auto:RATIO, a positive number; got {name!r}") from None

    def extra_repr(self) -> str:
        """Return the options as arguments of the constructor."""
        return f"ratio={self.ratio:g}, smoothing={self.smoothing:g}, bounds={self.bounds}"


def gradient_norms(base_loss: Tensor, spectral_loss: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """Return ‖∂base_loss/∂output‖ and ‖∂spectral_loss/∂output‖ over the global batch, float32 `[]` each.

    Both graphs stay usable. Every loss is read as the mean over ranks of what each rank passes; all ranks must call.

    Raises:
        TypeError: `base_loss` is not a scalar tensor.
        ValueError: a loss does not depend on `output`.
    """
    if not (isinstance(base_loss, Tensor) and base_loss.ndim == 0):
        came = f"shape {list(base_loss.shape)}" if isinstance(base_loss, Tensor) else type(base_loss).__name__
        raise TypeError(f"base_loss must be the scalar that is minimized, such as base.mean(); got {came}")
    if not output.requires_grad:
        raise ValueError(
            "output must require a gradient: pass the tensor that the network returned, before any detach()"
        )
    squares = []
    for name, loss in (("base_loss", base_loss), ("x0_hat", spectral_loss)):
        norm = _gradient_norm(loss, output) if loss.requires_grad else None
        if norm is None:
            hint = "; inside torch.compile gradients do not exist yet" if torch.compiler.is_compiling() else ""
            raise ValueError(f"{name} must be computed from output; it does not depend on it{hint}")
        squares.append(norm.square())
    both = torch.stack(squares)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(both)
    base, spectral = both.sqrt().unbind()
    return base, spectral


def _gradient_norm(loss: Tensor, output: Tensor) -> Tensor | None:
    """Return ‖∂loss/∂output‖, float32 `[]`, or None where loss does not depend on output.

    The gradient at a float16 output is float16 itself: that of a mean over its values would vanish, that of a sum
    scaled up would overflow. So it is taken twice, of the loss and of the loss times the number of values (a power of 2
    near it), and the second counts where it is finite.
    """
    scales = [1.0]
    if output.dtype == torch.float16:
        scales.append(2.0 ** math.ceil(math.log2(max(1, output.numel()))))
    norm: Tensor | None = None
    for scale in scales:
        gradients = torch.autograd.grad(loss * scale, output, retain_graph=True, allow_unused=True)
        if (gradient := cast("Tensor | None", gradients[0])) is None:
            return None
        wide = torch.float64 if gradient.dtype == torch.float64 else torch.float32
        found: Tensor = torch.linalg.vector_norm(gradient, dtype=wide).float() / scale
        norm = found if norm is None else torch.where(found.isfinite(), found, norm)
    return norm
