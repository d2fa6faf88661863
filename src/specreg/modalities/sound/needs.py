"""What a run on sound needs of memory at least: of every sum only the terms that are certain."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from specreg._memory import Need
from specreg.modalities.sound.config import SoundConfig

WORKER = 10_000_000
"""Bytes of a process that loads data, beside what it shares with the process that started it."""


def of_training(config: SoundConfig, processes: int) -> Iterator[Need]:
    """Yield what training takes in one of `processes`, with the network of the config."""
    yield Need("training.workers", "what loads data", WORKER * config.training.workers)
    if config.model.kind == "pretrained":
        return
    network, training = config.vocoder, config.training
    batch, crop = training.batch_size // processes, network.crop_mel_frames * network.hop_samples
    fields = "training.batch_size, vocoder.crop_mel_frames, vocoder.hop_samples"
    yield Need(fields, "a batch of crops with its noise", 8 * batch * crop)
    layers, channels = network.residual_layers, network.residual_channels
    copies = 1 if torch.cuda.is_available() else 5  # with gradients, weight average, and Adam's two moments
    yield Need(
        "vocoder.residual_layers, vocoder.residual_channels",
        "the network in training",
        4 * copies * layers * 8 * channels**2,  # a dilated convolution of width 3 and one of width 1, each to twice
    )
    if not torch.cuda.is_available():
        size = 4 if training.precision == "no" else 2
        kept = size * max(1, batch // training.accumulate) * crop * layers * channels
        yield Need(f"{fields}, vocoder.residual_layers", "what the network keeps for its gradients", kept)
