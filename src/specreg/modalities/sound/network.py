"""The DiffWave of a run and the clips that it is trained or scored on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from specreg.config import ConfigError
from specreg.data.audio import AudioDataset
from specreg.data.audio_files import read_header
from specreg.data.audio_listing import Part, list_audio
from specreg.data.mel import MelSettings
from specreg.modalities.protocol import Description
from specreg.modalities.sound.config import SoundConfig
from specreg.models.diffwave import DiffWave, DiffWaveConfig
from specreg.models.diffwave_checkpoint import load_diffwave
from specreg.randomness import DataOrder, Stream, integer_seed, rng


def diffwave_config(config: SoundConfig, saved: Description | None = None) -> DiffWaveConfig:
    """Return the network of a run: as its own checkpoint has it (`saved`), as model.checkpoint has it, or a new one."""
    if saved is not None:
        return DiffWaveConfig(**saved["diffwave"])
    if config.model.kind == "pretrained":
        return load_diffwave(_checkpoint(config)).model.config
    options = config.vocoder.model_dump()
    if options["sample_rate"] is None:
        options["sample_rate"] = _sample_rate(_folder(config))
    return DiffWaveConfig(**options)


def build_diffwave(config: SoundConfig, saved: Description | None = None) -> DiffWave:
    """Return the network with its initial weights: the checkpoint's, or a function of the run's seed alone."""
    if saved is None and config.model.kind == "pretrained":
        return load_diffwave(_checkpoint(config)).model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer_seed(config.seed, Stream.INIT))
        return DiffWave(diffwave_config(config, saved))


def describe(network: DiffWaveConfig) -> dict[str, Any]:
    """Return a network as plain values; `diffwave_config` reads them back."""
    return {"diffwave": asdict(network)}


def open_clips(config: SoundConfig, network: DiffWaveConfig, part: Part) -> AudioDataset:
    """Return the clips of one part of a run's data, at the network's sample rate and with its mel spectrogram."""
    data = config.data
    folder = _folder(config)
    path = data.test_path if part == "held_out" and data.test_path is not None else folder
    whole = data.test_path is not None  # then nothing is held out of data.path
    if not whole and data.held_out is None and not list_audio(folder).is_ljspeech:
        raise ConfigError(
            f"data.held_out: expected file-name patterns or a fraction, since {folder} has no clips "
            "named as LJSpeech's (LJ001-0001, …); got nothing"
        )
    return AudioDataset(
        path,
        mel=mel_settings(network),
        crop_frames=network.crop_mel_frames,
        part="all" if whole else part,
        held_out=data.held_out,
        short=data.short,
        max_damaged=data.max_damaged,
        cache=data.cache,
    )


def mel_settings(network: DiffWaveConfig) -> MelSettings:
    """Return the mel spectrogram that a network is conditioned on."""
    return MelSettings(
        sample_rate=network.sample_rate, n_fft=network.n_fft, hop=network.hop_samples, n_mels=network.n_mels
    )


class ClipItems(Dataset[dict[str, Tensor]]):
    """Random crops of clips by (step, index in the global batch): "x0" `[1, T]` and, for a vocoder, "mel"."""

    def __init__(self, data: AudioDataset, config: SoundConfig, *, conditional: bool):
        self.data, self.seed, self.conditional = data, config.seed, conditional
        self.order = DataOrder(config.seed, len(data), config.training.batch_size)

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Tensor]:
        step, index = place
        clip = self.data.crop(self.order.item(step, index), rng(self.seed, Stream.AUGMENT, step, index))
        return {"x0": clip.audio, "mel": clip.mel} if self.conditional else {"x0": clip.audio}


def _folder(config: SoundConfig) -> Path:
    if config.data.path is None:
        raise ConfigError("data.path: expected a folder of sound files (data.kind is audio); got nothing")
    return config.data.path


def _sample_rate(folder: Path) -> int:
    """Return the rate of the first clip that can be read, Hz; whether too many cannot is the data set's to say."""
    first: ValueError | None = None
    for name in list_audio(folder).names:
        try:
            return read_header(folder / name).sample_rate
        except ValueError as error:
            first = first or error
    assert first is not None  # a listing has at least one clip
    raise first


def _checkpoint(config: SoundConfig) -> Path:
    if config.model.checkpoint is None:
        raise ConfigError("model.checkpoint: expected a DiffWave .pt (--checkpoint); got nothing")
    return config.model.checkpoint
