"""Held-out recordings: what a vocoder's clips are made from and measured against."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from specreg.data.audio_files import write_wav
from specreg.data.mel import MelSettings
from specreg.metrics import sound
from specreg.modalities.sound.config import SoundConfig
from specreg.modalities.sound.network import diffwave_config, open_clips
from specreg.models.diffwave import DiffWaveConfig


class Recordings(NamedTuple):
    """Held-out clips and their mel spectrograms."""

    clips: dict[str, Tensor]  # [T] float32 by name, whole hops long
    mels: dict[str, Tensor]  # [n_mels, T / hop]
    settings: MelSettings
    crop_samples: int  # length of a training crop


class SoundTruth(NamedTuple):
    """Recordings with what they score themselves."""

    recordings: Recordings
    fingerprint: str  # SHA-256 of the clips and of the weights that metrics have
    scores: dict[str, float]

    @property
    def prompts(self) -> Recordings:
        """What a vocoder's clips are made from: the recordings' mel spectrograms."""
        return self.recordings

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Shape of a training crop, (1, T)."""
        return (1, self.recordings.crop_samples)

    def save(self, folder: Path) -> None:
        """Write the clips as 16-bit wav files."""
        save_clips(folder, self.recordings.clips, self.recordings.settings.sample_rate)

    def record(self) -> dict[str, Any]:
        """Return the truth as results.json has it."""
        return {"kind": "recordings", "unit": "clips", "samples": len(self.recordings.clips), "metrics": self.scores}


def load_recordings(config: SoundConfig, network: DiffWaveConfig) -> Recordings:
    """Return up to sampling.count held-out clips, spread evenly over the set, with their mel spectrograms."""
    data = open_clips(config, network, "held_out")
    chosen = np.linspace(0, len(data) - 1, min(config.sampling.count, len(data))).round().astype(int)
    clips, mels = {}, {}
    for i in chosen:
        clip = data.item(int(i))
        name = str(Path(clip.name).with_suffix("")).replace("/", "_")
        if name in clips:
            name = clip.name.replace("/", "_")  # two endings of one name
        clips[name], mels[name] = clip.audio[0], clip.mel
    return Recordings(clips, mels, data.mel, data.crop_samples)


def load_truth(config: SoundConfig, *, scored: bool = True, device: torch.device | str = "cpu") -> SoundTruth:
    """Return the held-out clips; `scored`: with what they score themselves."""
    recordings = load_recordings(config, diffwave_config(config))
    digest = hashlib.sha256(config.metrics.model_dump_json().encode())
    for name, audio in recordings.clips.items():
        digest.update(name.encode() + audio.numpy().tobytes())
    rate, weights = recordings.settings.sample_rate, weights_of(config)
    scores = sound.score_truth(recordings.clips, rate, weights=weights, device=device) if scored else {}
    return SoundTruth(recordings, digest.hexdigest(), scores)


def weights_of(config: SoundConfig) -> sound.Weights:
    """Return the files that metrics need."""
    return sound.Weights(config.metrics.vggish, config.metrics.utmos, config.metrics.utmos_weights)


def save_clips(folder: Path, clips: dict[str, Tensor], sample_rate: int) -> None:
    """Write clips `[T]` as 16-bit wav files, in place of any that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.wav"):
        old.unlink()
    for name, clip in clips.items():
        write_wav(folder / f"{name}.wav", clip.numpy(), sample_rate)
