"""The spectral term and the objective of a run, from its config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from specreg import losses, modalities
from specreg.auto_weight import AutoWeight
from specreg.config import Config, SpectralConfig
from specreg.diffusion import NoiseLevel, band_weight, noise_weight
from specreg.modalities.protocol import Description, Device
from specreg.objectives import Objective
from specreg.regularizer import SpectralRegularizer


def build_regularizer(config: SpectralConfig | None, *, steps: int = 1) -> SpectralRegularizer | None:
    """Return the spectral term of a run of `steps` optimizer steps, None for a run without one.

    Warm-up and smoothing of the config are in optimizer steps, which the term counts as calls; the cooldown is a share.
    """
    if config is None:
        return None
    weight = AutoWeight(config.ratio, smoothing=config.smoothing) if config.weight == "auto" else config.weight
    return SpectralRegularizer(
        losses.build(config.name, **config.options),
        weight=weight,
        noise_weight=noise_weight.build(config.noise_weight, **config.noise_options),
        band_weight=band_weight.build(config.band_weight, **config.band_options) if config.band_weight else None,
        warmup=min(config.warmup, steps - round(config.cooldown * steps)),
        cooldown=round(config.cooldown * steps),
        total=steps,
        ramp=config.ramp,
    )


def restore_regularizer(
    regularizer: SpectralRegularizer | None, state: Mapping[str, float] | None, *, step: int
) -> None:
    """Load the state of λ that the checkpoint of a step holds into a term, where both exist."""
    if regularizer is not None and state:
        # Checkpoints of before counted each part of an accumulated batch as a call; now a step is one.
        counted = {**state, "calls": min(state["calls"], step)} if "calls" in state else state
        regularizer.load_state_dict({name: torch.tensor(value) for name, value in counted.items()})


def try_regularizer(config: SpectralConfig | None, shape: Sequence[int]) -> None:
    """Evaluate a term once on an x0 of `shape` `(C, *space)`, so that options that do not fit it fail at once."""
    # With a constant λ: an automatic one would warn that it has measured nothing yet.
    regularizer = build_regularizer(config and config.model_copy(update={"weight": 1.0}))
    if regularizer is not None:
        x = torch.zeros(1, *shape)
        regularizer.eval()(x, x, NoiseLevel.edm(torch.ones(1)))


def build_objective(config: Config, device: Device = "cpu", *, saved: Description | None = None) -> Objective:
    """Return the training objective of a run on `device`, its term included; `saved` describes the network."""
    training = config.training
    regularizer = build_regularizer(config.spectral, steps=training.steps)
    return modalities.of(config).objective(config, regularizer, device=device, saved=saved)
