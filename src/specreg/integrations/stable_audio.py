"""stable-audio-tools: the term in its training wrappers. Read from stable-audio-tools 0.0.19.

    training_wrapper = create_training_wrapper_from_config(model_config, model)
    add_term(training_wrapper, regularizer)                             # before trainer.fit
    callbacks = [..., KeepRegularizer(regularizer)]                     # specreg.integrations.lightning

The wrappers add up modules that see a dict of output and target. x_t and the time are not in that dict, so a hook on
the network remembers them.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from specreg import NoiseLevel, SpectralRegularizer, SpectralTerm
from specreg.watch import KeepsLastCall

NAMES: dict[str, Literal["v", "flow"]] = {"v": "v", "rectified_flow": "flow", "rf_denoiser": "flow"}
"""Its diffusion objectives, and what their networks predict by the names of `recover_x0`."""


class SpectralLoss(KeepsLastCall, nn.Module):
    """One of a MultiLoss's modules: `(info) -> []`, the term of the batch that the network was called with last.

    The last term is in `term`, for logging. The module has no state of its own, so older checkpoints load.
    """

    OF_CALL: ClassVar = ("term", "_given")

    name = "spectral_loss"

    def __init__(self, regularizer: SpectralRegularizer, objective: str):
        super().__init__()
        self.regularizer, self.objective = regularizer, objective
        self.term: SpectralTerm | None = None
        self._given: tuple[Tensor, Tensor] | None = None

    def remember(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Keep x_t `[B, C, T]` and time `[B]` of a call of the network."""
        self._given = (args[0], args[1])

    def forward(self, info: dict[str, Any]) -> Tensor:
        """Return the term of output and target in `info`, of which padding is no part."""
        if self._given is None:
            raise RuntimeError("expected the network to be called before its loss; it was not")
        (x_t, t), self._given = self._given, None
        output, target = info["output" if "output" in info else "v"], info["targets"]
        mask = info.get("padding_mask")
        mask = None if mask is None else mask.reshape(len(output), 1, -1).bool()
        error = (output.float() - target).square()
        base = error.mean() if mask is None else error[mask.expand_as(error)].mean()
        measured: dict[str, Any] = {"base_loss": base} if torch.is_grad_enabled() else {}
        self.term = self.regularizer.from_output(
            output, target, level(t, self.objective), prediction=NAMES[self.objective], x_t=x_t, mask=mask, **measured
        )
        return self.term.loss


def add_term(wrapper: nn.Module, regularizer: SpectralRegularizer) -> SpectralLoss:
    """Add the term to a DiffusionUncondTrainingWrapper or DiffusionCondTrainingWrapper, and return the module.

    Raises TypeError for other wrappers, ValueError for objectives other than `NAMES`.
    """
    parts: Any = wrapper
    objective = getattr(wrapper, "diffusion_objective", "v")  # the unconditional wrapper knows no other
    if not (hasattr(wrapper, "diffusion") and hasattr(getattr(wrapper, "losses", None), "losses")):
        raise TypeError(f"expected a training wrapper of a diffusion model; got {type(wrapper).__name__}")
    if objective not in NAMES:
        raise ValueError(f"expected a diffusion objective {', '.join(NAMES)}; got {objective!r}")
    found = SpectralLoss(regularizer, objective)
    parts.diffusion.register_forward_pre_hook(found.remember)
    parts.losses.losses.append(found)
    return found


def level(t: Tensor, objective: str) -> NoiseLevel:
    """Return the level of times t `[B]` in [0, 1], noise at 1."""
    if objective == "v":
        angle = t.float() * math.pi / 2
        return NoiseLevel(angle.cos().clamp_min(0), angle.sin())  # at t = 1 rounding makes the cosine negative
    return NoiseLevel.flow(t)
