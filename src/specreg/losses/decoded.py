"""A loss on decoded latents: the spectra of pixels instead of those of latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from specreg import _checks
from specreg.losses.modules import SpectralLoss
from specreg.losses.registry import build
from specreg.own_state import OwnState


class Decoded(OwnState):
    """Compares the pixels of decoded latents: `SpectralRegularizer(losses.Decoded(decode, "amplitude", crop=32))`.

    A decoder costs more than most networks, so a crop and every n-th call are what makes it affordable.

    Args:
        decode: latents `[B, C, *space]` to pixels, differentiable and the same for every sample, such as
            `lambda z: vae.decode(z / scaling).sample`. Its weights should not require gradients. It is no submodule, so
            state dicts do not have it.
        loss: the loss of the pixels, by name or as an object.
        crop: side of a square of latents that is decoded, the same for the batch, at a place drawn anew for each call
            (from numbers of calls alone: nothing is drawn from torch's generators); None for all. The decoder sees no
            context beyond it, for x0_hat and x0 alike.
        every: calls between two decodings, at least 1. The other calls return zeros, which `AutoWeight` leaves out. The
            parts of a batch, inside `SpectralRegularizer.held`, are one call. Calls without gradients always decode.
        recompute: recompute the decoder's activations in the backward pass instead of keeping them.
        dtype: dtype of the latents that `decode` is given, such as `vae.dtype` of an autoencoder in half precision;
            None for that of the samples, which is float32 inside `SpectralRegularizer.from_output`.

    Calls count while gradients are enabled; `SpectralRegularizer.state_dict()` has their number.
    """

    OWN: ClassVar = ("calls",)
    COUNTERS: ClassVar = ("calls",)
    ON_CPU: ClassVar = ("calls",)

    def __init__(
        self,
        decode: Callable[[Tensor], Tensor],
        loss: str | SpectralLoss = "amplitude",
        *,
        crop: int | None = None,
        every: int = 1,
        recompute: bool = True,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        if not callable(decode):
            raise TypeError(f"decode must be a function of latents; got {_checks.shown(decode)}")
        for name, value in (("crop", crop), ("every", every)):
            if not (value is None and name == "crop") and not (type(value) is int and value >= 1):
                raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}")
        self._decode = (decode,)  # in a tuple, or nn.Module would take a decoder's weights for its own
        self.loss = build(loss) if isinstance(loss, str) else loss
        self.crop, self.every, self.recompute, self.dtype = crop, every, recompute, dtype
        self.calls = torch.zeros((), dtype=torch.int64, device="cpu")
        self._passing = 0  # calls without gradients, for the places of their crops
        self.held_call: int | None = None  # inside `held` the regularizer says which call this is, and counts

    def forward(self, x0_hat: Tensor, x0: Tensor) -> Tensor:
        """Return the loss of each sample, `[B]`, for latents `[B, C, *space]`; 0 in calls that are left out."""
        call = int(self.calls) if self.held_call is None else self.held_call
        if torch.is_grad_enabled():
            if self.held_call is None:
                self.calls += 1
            if call % self.every:
                return 0.0 * x0_hat.flatten(1).float().sum(1)
        elif self.held_call is None:
            self._passing += 1
        (decode,) = self._decode
        x0_hat, x0 = (x.to(self.dtype or x.dtype) for x in self._cropped(x0_hat, x0, call))
        with torch.no_grad():
            clean = _pixels(decode(x0.detach()))
        if self.recompute and torch.is_grad_enabled():
            from torch.utils.checkpoint import checkpoint  # which imports sympy with torch 2.4, half a second

            predicted: Any = checkpoint(decode, x0_hat, use_reentrant=False)
        else:
            predicted = decode(x0_hat)
        found: Tensor = self.loss(_pixels(predicted), clean)
        return found

    def _cropped(self, x0_hat: Tensor, x0: Tensor, call: int) -> tuple[Tensor, Tensor]:
        if self.crop is None:
            return x0_hat, x0
        window: list[Any] = [slice(None), slice(None)]
        places = torch.Generator().manual_seed(call + (0 if torch.is_grad_enabled() else self._passing << 32))
        for size in x0.shape[2:]:
            if self.crop > size:
                raise ValueError(f"crop must be at most the size of the latents, {list(x0.shape[2:])}; got {self.crop}")
            start = int(torch.randint(size - self.crop + 1, (), generator=places, device="cpu"))
            window.append(slice(start, start + self.crop))
        return x0_hat[tuple(window)], x0[tuple(window)]

    def extra_repr(self) -> str:
        """Return the options."""
        dtype = "" if self.dtype is None else f", dtype={self.dtype}"
        return f"crop={self.crop}, every={self.every}, recompute={self.recompute}{dtype}"


def _pixels(decoded: Any) -> Tensor:
    """Return what a decoder returned in float32 at least, or say what it should have returned."""
    if not isinstance(decoded, Tensor):
        raise TypeError(
            f"decode must return a tensor; got {type(decoded).__name__} (of diffusers' autoencoders take `.sample`)"
        )
    return decoded if decoded.dtype == torch.float64 else decoded.float()
