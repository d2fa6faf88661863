"""The spectral term: L_total = L + λ·L_S (Eq. 17), λ constant or automatic, times a weight by noise level."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from specreg import _checks, losses, ramps
from specreg.auto_weight import AutoWeight, gradient_norms
from specreg.diffusion import band_weight as band_weights
from specreg.diffusion import noise_weight as noise_weights
from specreg.diffusion.band_weight import BandWeight
from specreg.diffusion.noise_level import NoiseLevel, check_level
from specreg.diffusion.noise_weight import NoiseWeight
from specreg.diffusion.pair import check_wiring, x0_pair
from specreg.diffusion.parameterization import AnyPrediction, prediction_name
from specreg.own_state import OwnState
from specreg.spectral_term import SpectralTerm, masked, spread
from specreg.transforms import radial


class SpectralRegularizer(OwnState):
    """A spectral loss on the predicted clean sample, weighted by λ, by noise level and optionally by frequency band.

    Args:
        loss: a name ("amplitude", "amplitude_phase", "haar", "bior1.3", or TRANSFORM:COMPARISON, "dct:log_power" say,
            see `specreg.losses.build`), or any callable `(x0_hat, x0) -> [B]`, such as
            `specreg.losses.Wavelet("bior1.3", levels=3)`; or several of specreg's losses by name or object, such as
            ["amplitude", "haar"], which are added up under one λ.
        weight: λ. `specreg.AutoWeight(ratio=1.0)`, in short "auto" (the default), measures it while training: calls
            then need `base_loss` and `output`; "auto:2" is short for `AutoWeight(2)`. Or a finite number of at least 0;
            or "edm", the paper's weighted λ = λ_EDM(σ), which is λ = 1 with `noise_weight="edm"`. At 0 the term takes
            no part in the graph: training is bit-identical to training without it, while `per_sample` still says what
            the loss would be.
        noise_weight: weight of the loss by noise level: "snr" (the default), "constant", "edm", "hard_gate",
            "smooth_gate", or any callable `NoiseLevel -> [B]`, such as `specreg.noise_weights.SNR(power=0.5, clip=5)`.
            "snr" is √SNR up to 1, and SNR up to 1 for networks that predict ε or the score.
        band_weight: None, "wiener", "signal_gate", or any callable `(NoiseLevel, frequency [K], power [K]) -> [B, K]`,
            such as `specreg.band_weights.SignalGate(margin_db=3)`: weights by noise level and frequency together,
            given the mean power spectrum of the batch's x0. Costs one more transform of x0 per call.
        layout: names of the axes of x0 and x0_hat where they are not `[B, C, *space]`, such as "btchw" or "blc"; see
            `specreg.losses.functional`. The loss then gets views `[B, C, *space]` and must have no layout of its own.
        warmup: calls over which λ ramps up from 0, for either kind of λ; 0 for none.
        cooldown: calls over which λ fades to 0, the last of `total` calls; 0 for none. After them λ stays 0.
        total: calls in all, which a cooldown needs.
        ramp: shape of the warm-up and of the cooldown, "linear" or "cosine".
        by_band: whether terms carry errors by band, for logging; costs one more transform per call.

    Calls count, for the ramp and for automatic λ, while the module is in training mode and gradients are enabled.
    Both are in `state_dict()`: save it beside the model's to resume with the same λ. A module that holds the
    regularizer does not have them in its own state (see `specreg.own_state`).

    A batch that is accumulated in parts is one call too, of one λ: see `advance` and `held`.

    Example:
        >>> import torch, specreg
        >>> reg = specreg.SpectralRegularizer("amplitude", weight=0.1)
        >>> x0, x0_hat = torch.randn(4, 3, 32, 32), torch.randn(4, 3, 32, 32, requires_grad=True)
        >>> term = reg(x0_hat, x0, specreg.NoiseLevel.edm(torch.full((4,), 0.5)))
        >>> term.loss.backward()
    """

    OWN: ClassVar = ("calls",)

    def __init__(
        self,
        loss: str | Callable[[Tensor, Tensor], Tensor] | Sequence[str | losses.SpectralLoss] = "amplitude",
        *,
        weight: float | AutoWeight | str = "auto",
        noise_weight: str | NoiseWeight | None = None,
        band_weight: str | BandWeight | None = None,
        layout: str | None = None,
        warmup: int = 0,
        cooldown: int = 0,
        total: int | None = None,
        ramp: ramps.Shape = "linear",
        by_band: bool = False,
    ):
        super().__init__()
        if isinstance(weight, str):
            weight = AutoWeight.named(weight) or weight
        if isinstance(weight, str):
            _checks.choice("weight (λ), where it is no number,", weight, ["auto", "auto:RATIO", "edm"])
            if noise_weight not in (None, "edm"):
                raise ValueError(f'weight="edm" sets the noise weight; got noise_weight={noise_weight!r} beside it')
            weight, noise_weight = 1.0, "edm"
        if not isinstance(weight, AutoWeight):
            if not isinstance(weight, (int, float)):
                raise TypeError(f"weight (λ) must be a number, an AutoWeight, auto, auto:RATIO or edm; got {weight!r}")
            if not 0 <= weight < float("inf"):
                raise ValueError(f"weight (λ) must be a finite number of at least 0; got {weight}")
            weight = float(weight)
        self.ramps = ramps.Ramps(warmup, cooldown, total, ramp)
        self.spectral_loss = losses.as_loss(loss)
        self.weight = weight
        noise_weight = "snr" if noise_weight is None else noise_weight
        self.noise_weight = noise_weights.build(noise_weight) if isinstance(noise_weight, str) else noise_weight
        self.band_weight = band_weights.build(band_weight) if isinstance(band_weight, str) else band_weight
        self.wants_bands = by_band
        self.layout = layout if layout is None else _checks.layout_letters(layout)
        self.calls = torch.zeros((), dtype=torch.int64, device="cpu")
        self._checked = False
        self._held = False
        self._decoded = tuple(part for part in self.modules() if isinstance(part, losses.Decoded))
        if by_band and not hasattr(self.spectral_loss, "by_band"):
            raise TypeError(f"by_band=True needs a loss with a by_band method; {loss!r} has none")
        if band_weight is not None and not isinstance(self.spectral_loss, losses.SpectralLoss):
            raise TypeError(f"band_weight needs one of specreg's losses, which take frequency weights; got {loss!r}")

        if layout is not None and getattr(self.spectral_loss, "layout", None) is not None:
            raise ValueError(
                f"layout belongs to the loss or to the regularizer, not both; got {layout!r} beside {loss!r}"
            )

    @property
    def automatic(self) -> bool:
        """Whether λ is measured while training."""
        return isinstance(self.weight, AutoWeight)

    @property
    def measures(self) -> bool:
        """Whether the next call in training needs `base_loss` and `output`, to update an automatic λ."""
        return self.automatic and not self._held

    @contextmanager
    def held(self) -> Iterator[None]:
        """Calls inside use λ as it is: they count as none, and do not update an automatic λ.

        For a batch in parts, measure all of it first, then step once:

            with regularizer.held():
                norms = [regularizer(..., base_loss=base, output=output).norms for each part]
            regularizer.advance(torch.stack(norms))
            with regularizer.held():
                ...  # forward and backward of each part, without base_loss and output
        """
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before
            for part in self._decoded:
                part.held_call = None

    @torch.no_grad()
    def advance(self, norms: Tensor | None = None) -> Tensor:
        """Count one call and return its λ, `[]`, updated by the `norms` of the parts of one batch, `[parts, 2]`.

        Each row is `SpectralTerm.norms` of a part; the parts are of one size. A constant λ needs no norms.
        """
        if self.automatic and norms is None:
            raise TypeError("advance needs norms= under AutoWeight: SpectralTerm.norms of each part, stacked")
        if self.weight == 0:
            return torch.zeros(())
        for part in self._decoded:
            part.calls += 1
        if norms is None:
            return self._lambda(None, True, self.calls.float())
        # The batch's gradients are those of its parts side by side, over the number of parts, which cancels.
        base, spectral = norms.float().square().sum(0).sqrt().unbind()
        return self._lambda((base, spectral), True, norms)

    def forward(
        self,
        x0_hat: Tensor,
        x0: Tensor,
        level: NoiseLevel,
        *,
        prediction: AnyPrediction | None = None,
        base_loss: Tensor | None = None,
        output: Tensor | None = None,
        mask: Tensor | None = None,
        sample_weight: Tensor | None = None,
    ) -> SpectralTerm:
        """Return the term for predictions `x0_hat`, data `x0` and their noise level (B values or 1).

        Args:
            x0_hat: predicted clean samples, `[B, C, *space]`, `[B, T]`, or as `layout` says.
            x0: clean samples of the same shape.
            level: their noise level.
            prediction: what the network predicts, as of `recover_x0`; the noise weight "snr" depends on it.
            base_loss: the scalar that training minimizes without the term; with `output`, what `AutoWeight` needs.
                With a constant λ the two may be given, on every rank, to measure `gradient_ratio`.
            output: what the network returned, from which both were computed.
            mask: which values count, of a shape that broadcasts to x0's: boolean, or weights from 0 to 1. Where it is 0
                the prediction is replaced by x0, so that nothing there has an error or a gradient; the mean stays
                that over all coefficients. x0 may be NaN there. Losses of the difference alone (wavelets, l1) are then
                exact: what x0 is there does not matter. Amplitudes and powers are of the whole sample, with x0 (or,
                where it is NaN, the mean of what is seen) in the gaps of both.
            sample_weight: factors of the samples' losses, `[B]`: a trainer's own weights, such as min-SNR's.
        """
        check_level(level)
        learning = torch.is_grad_enabled() and self.training
        if (base_loss is None) != (output is None) or (self.measures and learning and base_loss is None):
            raise TypeError(
                "AutoWeight, the default λ, needs both base_loss= and output= (the tensor that the network returned)"
                if self.automatic
                else "base_loss and output measure the gradient ratio together; got only one of them"
            )
        if self.layout is not None:
            x0_hat, x0 = _checks.arrange("x0_hat", x0_hat, self.layout), _checks.arrange("x0", x0, self.layout)
        if mask is not None:
            x0_hat, x0 = masked(x0_hat, x0, mask, self.layout)
        for part in self._decoded if self._held else ():
            measuring = self.automatic and base_loss is not None  # before `advance` counts, the other parts after it
            part.held_call = int(part.calls) - (not measuring)
        off = self.weight == 0
        with torch.set_grad_enabled(torch.is_grad_enabled() and not off):
            per_sample = self._losses(x0_hat, x0, level)
        noise_weight = self.noise_weight
        if prediction is not None and isinstance(noise_weight, noise_weights.SNR):
            noise_weight = noise_weight.of(prediction_name(prediction))
        level_weight = noise_weight(level).to(per_sample)
        if level_weight.shape not in (per_sample.shape, (1,)):
            raise ValueError(
                f"noise weights must be one a sample, [{len(per_sample)}], or one for all; "
                f"got {list(level_weight.shape)}"
            )
        if sample_weight is not None:
            if sample_weight.shape != per_sample.shape:
                raise ValueError(
                    f"sample_weight must be one a sample, [{len(per_sample)}]; got {list(sample_weight.shape)}"
                )
            level_weight = level_weight * sample_weight.detach().to(level_weight)
        bands: Any = self.spectral_loss.by_band(x0_hat, x0) if self.wants_bands else {}  # type: ignore[attr-defined]
        if off:  # not 0 · level_weight: λ_EDM is infinite without noise
            zero = per_sample.new_zeros(())
            return SpectralTerm(zero, per_sample, torch.zeros_like(per_sample), bands, zero, None)

        norms = None
        if learning and base_loss is not None and output is not None:
            norms = gradient_norms(base_loss, (level_weight * per_sample).mean(), output)
        elif self.automatic and not (self._held and learning):
            self._warn_if_unmeasured(per_sample)
        lam = self._lambda(None if self._held else norms, learning and not self._held, per_sample)
        weight = (lam * level_weight).expand_as(per_sample)
        ratio, both = (lam * norms[1] / norms[0], torch.stack(norms)) if norms else (None, None)
        return SpectralTerm((weight * per_sample).mean(), per_sample, weight, bands, lam, ratio, both)

    def from_output(
        self,
        output: Tensor,
        target: Tensor,
        level: NoiseLevel,
        *,
        prediction: AnyPrediction,
        x0: Tensor | None = None,
        x_t: Tensor | None = None,
        base_loss: Tensor | None = None,
        mask: Tensor | None = None,
        sample_weight: Tensor | None = None,
        sigma_data: float = 0.5,
        check: bool = False,
    ) -> SpectralTerm:
        """Return the term from what every trainer has, the network's output and its regression target `[B, ...]`.

        Gradients run through the output alone.

        Args:
            output: what the network returned.
            target: what training regresses it on.
            level: the noise level, B values or 1.
            prediction: what the network predicts; see `recover_x0`.
            x0: the clean samples; or
            x_t: the noisy samples, before any scaling of the network's input. Wavelet losses need neither.
            base_loss: see `forward`; None for the mean squared error of output and target, for AutoWeight's measure.
            mask: see `forward`.
            sample_weight: see `forward`.
            sigma_data: standard deviation of the data; only "edm" uses it.
            check: whether the first call checks, with x0 and x_t, that prediction and level are right
                (see `check_wiring`).
        """
        layout = self.layout or getattr(self.spectral_loss, "layout", None)
        if layout is not None and not layout.startswith("b"):
            raise ValueError(
                f"from_output needs the batch first; got layout={layout!r} (permute the tensors, or call the "
                "regularizer with x0_hat and x0)"
            )
        _checks.alike(output=output, target=target, x0=x0, x_t=x_t if x0 is None else None)
        if check and not self._checked:
            if x0 is None or x_t is None:
                raise TypeError("check=True needs both x0= and x_t= in the first call")
            check_wiring(target, x_t, x0, level, prediction=prediction, sigma_data=sigma_data)
            self._checked = True
        if x0 is None and x_t is None and not losses.sees_difference_alone(self.spectral_loss):
            raise TypeError(f"{self.spectral_loss!r} needs x0= or x_t=; only wavelet losses need neither")
        with _checks.without_autocast(output.device):
            wide = output if output.dtype == torch.float64 else output.float()
            target = target.detach()
            x0, x_t = (x if x is None else x.detach() for x in (x0, x_t))
            x0_hat, clean = x0_pair(wide, target, level, prediction=prediction, x0=x0, x_t=x_t, sigma_data=sigma_data)
            measured: dict[str, Any] = {}
            if base_loss is not None or self.automatic:
                if base_loss is None:
                    there = target if mask is None else torch.where(spread(mask, target) == 0, wide.detach(), target)
                    base_loss = (wide - there).square().mean()
                measured = {"base_loss": base_loss, "output": output}
            at = {"prediction": prediction, "mask": mask, "sample_weight": sample_weight, **measured}
            term: SpectralTerm = self(x0_hat, clean, level, **at)
            return term

    def _warn_if_unmeasured(self, like: Tensor) -> None:
        """Warn once where an automatic λ is used before it was measured, when it is 0."""
        mass: Any = self.weight.mass  # type: ignore[union-attr]
        if mass.device.type == "cpu" and not torch.compiler.is_compiling() and float(mass) == 0:
            _checks.warn_once(
                "unmeasured λ",
                "AutoWeight has not measured λ yet, so this term is 0: it measures in training mode with gradients "
                "enabled (validation before the first training step has no term)",
            )

    def _losses(self, x0_hat: Tensor, x0: Tensor, level: NoiseLevel) -> Tensor:
        """Return the spectral loss of each sample, `[B]`."""
        band_weight = self.band_weight
        if band_weight is None:
            found = self.spectral_loss(x0_hat, x0)
            if isinstance(found, Tensor) and found.ndim == 1:
                return found
            came = f"shape {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"the loss must return one value a sample, [B]; got {came}")
        with torch.no_grad(), torch.autocast(x0.device.type, enabled=False):
            ndim, layout = (getattr(self.spectral_loss, name, None) for name in ("ndim", "layout"))
            spectrum = radial.power_spectrum(x0, ndim=ndim, layout=layout)

        def frequency_weight(frequency: Tensor) -> Tensor:
            return band_weight(level, frequency, radial.power_at(frequency, spectrum))

        per_sample: Tensor = self.spectral_loss(x0_hat, x0, frequency_weight=frequency_weight)  # type: ignore[call-arg]
        return per_sample

    def _lambda(self, norms: tuple[Tensor, Tensor] | None, learning: bool, like: Tensor) -> Tensor:
        """Return λ of this call, `[]`, in the dtype and on the device of `like`; updates λ's state if `learning`."""
        if self.calls.device != like.device:
            self.move_state(like.device)
        if isinstance(self.weight, AutoWeight):
            lam = (self.weight.update(*norms) if norms else self.weight.value).to(like)
        else:
            lam = like.new_full((), self.weight)
        if self.ramps.flat:
            return lam
        if learning:
            self.calls += 1
        return self.ramps.scaled(lam, self.calls)

    def extra_repr(self) -> str:
        """Return λ and the weights; the loss and an automatic λ print themselves as submodules."""
        said = [] if self.automatic else [f"weight={self.weight:g}"]
        said.append(f"noise_weight={self.noise_weight}")
        said += [f"band_weight={self.band_weight}"] if self.band_weight is not None else []
        said += [f"layout={self.layout!r}"] if self.layout is not None else []
        said += [] if self.ramps.flat else [str(self.ramps)]
        return ", ".join(said)
