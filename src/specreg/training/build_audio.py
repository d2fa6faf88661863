"""From a config to a DiffWave and the clips that it is trained or scored on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from specreg.data.audio import AudioDataset
from specreg.data.audio_files import Part, list_audio, read_header
from specreg.data.mel import MelSettings
from specreg.models.diffwave import DiffWave, DiffWaveConfig
from specreg.models.diffwave_checkpoint import load_diffwave
from specreg.training.config import Config, ConfigError
from specreg.training.randomness import Stream, integer_seed

Description = Mapping[str, Any]
"""What a run's checkpoint says of its network: `DiffWaveConfig`'s fields under "diffwave"."""


def diffwave_config(config: Config, saved: Description | None = None) -> DiffWaveConfig:
    """The network that a run is about: as its own checkpoint has it (`saved`), as model.checkpoint has it, or new."""
    if saved is not None:
        return DiffWaveConfig(**saved["diffwave"])
    if config.model.kind == "pretrained":
        return load_diffwave(_checkpoint(config)).model.config
    options = config.vocoder.model_dump()
    if options["sample_rate"] is None:
        folder = _folder(config)
        options["sample_rate"] = read_header(folder / list_audio(folder).names[0]).sample_rate
    return DiffWaveConfig(**options)


def build_diffwave(config: Config) -> DiffWave:
    """The network with its initial weights: the checkpoint's, or a function of the run's seed alone."""
    if config.model.kind == "pretrained":
        return load_diffwave(_checkpoint(config)).model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer_seed(config.seed, Stream.INIT))
        return DiffWave(diffwave_config(config))


def describe(network: DiffWaveConfig) -> dict[str, Any]:
    """A network as JSON; `diffwave_config` reads it back."""
    return {"diffwave": asdict(network)}


def build_clips(config: Config, network: DiffWaveConfig, part: Part) -> AudioDataset:
    """The clips of one part of a run's data, at the network's sample rate and with its mel spectrogram."""
    data = config.data
    folder = _folder(config)
    path = data.test_path if part == "held_out" and data.test_path is not None else folder
    whole = data.test_path is not None  # then nothing is held out of data.path
    if not whole and data.held_out is None and not list_audio(folder).is_ljspeech:
        raise ConfigError(
            f"data.held_out: expected file-name patterns or a fraction, since {folder} is not LJSpeech; got nothing"
        )
    return AudioDataset(
        path,
        mel=MelSettings(
            sample_rate=network.sample_rate, n_fft=network.n_fft, hop=network.hop_samples, n_mels=network.n_mels
        ),
        crop_frames=network.crop_mel_frames,
        part="all" if whole else part,
        held_out=data.held_out,
        short=data.short,
        max_damaged=data.max_damaged,
        cache=data.cache,
    )


def _folder(config: Config) -> Path:
    if config.data.path is None:
        raise ConfigError("data.path: expected a folder of sound files (data.kind is audio); got nothing")
    return config.data.path


def _checkpoint(config: Config) -> Path:
    if config.model.checkpoint is None:
        raise ConfigError("model.checkpoint: expected a DiffWave .pt (--checkpoint); got nothing")
    return config.model.checkpoint
