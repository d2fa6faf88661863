"""musubi-tuner: its `--loss_fn` form, and its trainers with the term.

Read from musubi-tuner at commit 30c658c (June 2026) and, for `--loss_fn`, from its pull request 992.

    --loss_fn specreg.integrations.musubi.SpectralLoss --loss_fn_args "loss='haar'" "weight='auto'"

There a loss is a dotted class, built from keyword arguments and called with a context that has output and target but
not the latents, so a wavelet loss is what it takes. Without that option, or for other losses, a launcher puts a
subclass of the trainer into its module:

    from musubi_tuner import zimage_train_network as script
    script.ZImageNetworkTrainer = with_term(script.ZImageNetworkTrainer, regularizer)
    script.main()
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from specreg import NoiseLevel, SpectralRegularizer, SpectralTerm
from specreg.diffusion.pair import check_wiring
from specreg.watch import KeepsLastCall

Flow = Literal["flow", "velocity"]


class SpectralLoss(KeepsLastCall, nn.Module):
    """The trainer's own weighted mean squared error and the term: `(ctx) -> ([], {name: value})`.

    Args:
        loss: a wavelet loss or several by name; they see the difference of output and target alone.
        weight: λ, a number, "auto" or "auto:RATIO".
        noise_weight: weight of the term by noise level, None for "snr".
        prediction: "flow" for targets ε − x0, "velocity" for x0 − ε (Z-Image, Ideogram).
        warmup: calls over which λ ramps up.

    λ's state is not in the trainer's checkpoints: a resumed run measures it anew.
    """

    def __init__(
        self,
        loss: str | Sequence[str] = "haar",
        weight: float | str = "auto",
        noise_weight: str | None = None,
        prediction: Flow = "flow",
        warmup: int = 0,
    ):
        super().__init__()
        names = loss if isinstance(loss, str) else list(loss)
        self.regularizer = SpectralRegularizer(names, weight=weight, noise_weight=noise_weight, warmup=warmup)
        self.prediction: Flow = prediction
        self.term: SpectralTerm | None = None

    def forward(self, ctx: Any) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a context: args, output, timesteps `[B]` from 1 to 1000, noise_scheduler, dtypes."""
        from musubi_tuner.training.timesteps import compute_loss_weighting_for_sd3

        output, target = ctx.output.pred, ctx.output.target
        error = (output.to(ctx.network_dtype) - target).square()
        weighting = compute_loss_weighting_for_sd3(
            ctx.args.weighting_scheme, ctx.noise_scheduler, ctx.timesteps, ctx.timesteps.device, ctx.dit_dtype
        )
        base = (error if weighting is None else error * weighting).mean()
        one = 0 if getattr(ctx.args, "timestep_sampling", None) == "sigma" else 1  # the other samplings add 1
        level = NoiseLevel.flow((ctx.timesteps.float() - one).clamp(0, 1000) / 1000)
        measured: dict[str, Any] = {"base_loss": base} if torch.is_grad_enabled() else {}
        self.term = self.regularizer.from_output(output, target, level, prediction=self.prediction, **measured)
        return base + self.term.loss, _metrics(base, self.term)


def with_term(trainer: type, regularizer: SpectralRegularizer) -> type:
    """Return a subclass of a musubi-tuner trainer whose loss has the term.

    The level is measured from what the network is given, so shifts and timesteps + 1 do not matter. The first call
    checks the sign of the target and raises ValueError where it is neither ε − x0 nor x0 − ε. So does a target of
    another shape than the latents (HiDream-O1, Kandinsky 5, layered Qwen-Image). A trainer that calls the network twice
    and `compute_loss` never (the fine-tuners, whose loop has a loss of its own) is refused with a RuntimeError.
    """

    class WithTerm(trainer):  # type: ignore[misc]
        _call: tuple[Tensor, Tensor, Tensor] | None = None
        _prediction: Flow | None = None

        def call_dit(
            self,
            args: Any,
            accelerator: Any,
            transformer_arg: Any,
            latents: Tensor,
            batch: Any,
            noise: Tensor,
            noisy_model_input: Tensor,
            *rest: Any,
            **kwargs: Any,
        ) -> Any:
            if self._call is not None:
                raise RuntimeError(f"expected {trainer.__name__} to call compute_loss after its network; it did not")
            self._call = (latents, noise, noisy_model_input)
            return super().call_dit(
                args, accelerator, transformer_arg, latents, batch, noise, noisy_model_input, *rest, **kwargs
            )

        def compute_loss(self, args: Any, output: Any, *rest: Any, **kwargs: Any) -> tuple[Tensor, dict[str, float]]:
            base, metrics = super().compute_loss(args, output, *rest, **kwargs)
            if self._call is None:
                raise RuntimeError("expected the network to be called before its loss; it was not")
            (latents, noise, noisy), self._call = self._call, None
            if output.target.shape != latents.shape:  # HiDream-O1's tokens of pixels, Kandinsky's frames first
                raise ValueError(
                    f"expected a target of the latents' shape {list(latents.shape)}; "
                    f"{trainer.__name__} has {list(output.target.shape)}, which the term does not take"
                )
            level = NoiseLevel.flow(sigma_of(noisy, latents, noise))
            if self._prediction is None:
                self._prediction = _sign(output.target, latents, noise)
                check_wiring(output.target, noisy, latents, level, prediction=self._prediction)
            measured: dict[str, Any] = {"base_loss": base} if torch.is_grad_enabled() else {}
            term = regularizer.from_output(
                output.pred, output.target, level, prediction=self._prediction, x0=latents, **measured
            )
            return base + term.loss, {**metrics, **_metrics(base, term)}

    WithTerm.__name__ = f"{trainer.__name__}WithTerm"
    return WithTerm


def sigma_of(noisy: Tensor, clean: Tensor, noise: Tensor) -> Tensor:
    """Return σ `[B]` of noisy = (1 − σ)·clean + σ·noise, by least squares."""
    direction = (noise.double() - clean.double()).flatten(1)
    moved = (noisy.double() - clean.double()).flatten(1)
    return ((moved * direction).sum(1) / direction.square().sum(1)).clamp(0, 1).float()


def _sign(target: Tensor, latents: Tensor, noise: Tensor) -> Flow:
    along = (target.float() * (noise.float() - latents.float())).sum()
    return "flow" if float(along) > 0 else "velocity"


def _metrics(base: Tensor, term: SpectralTerm) -> dict[str, float]:
    return {"loss/base": float(base.detach()), "loss/spectral": float(term.loss.detach()), "lambda": float(term.lam)}
