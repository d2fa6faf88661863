"""A trained vocoder -> held-out clips from their mel spectrograms -> metrics; `evaluation` writes the results."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from specreg.data.audio_files import write_wav
from specreg.data.mel import MelSettings, log_mel
from specreg.diffusion import StackedGenerator
from specreg.diffusion.diffwave_sampler import diffwave
from specreg.metrics import sound
from specreg.models.diffwave import DiffWave, DiffWaveConfig
from specreg.training.build_audio import build_clips, diffwave_config
from specreg.training.config import Config

METRICS = sound.METRICS


class SoundTruth(NamedTuple):
    """Held-out clips that a vocoder's are measured against."""

    clips: dict[str, Tensor]  # [T] float32 by name, whole hops long
    mels: dict[str, Tensor]  # [n_mels, T / hop]
    settings: MelSettings
    item_shape: tuple[int, ...]  # of a training crop, (1, T)
    fingerprint: str  # SHA-256 of the clips and of which weights metrics have
    scores: dict[str, float]  # what the recordings score themselves

    def save(self, folder: Path) -> None:
        """Write the clips as 16-bit wav files."""
        save_clips(folder, self.clips, self.settings.sample_rate)

    def record(self) -> dict[str, Any]:
        """The truth as the report shows it."""
        return {"samples": len(self.clips), "metrics": self.scores, "kind": "recordings"}


def load_truth(
    config: Config,
    *,
    network: DiffWaveConfig | None = None,
    scored: bool = True,
    device: torch.device | str = "cpu",
) -> SoundTruth:
    """Up to sampling.count held-out clips, spread evenly over the set, with their mel spectrograms.

    `network` is the run's where its checkpoint is at hand; `scored` is whether the clips themselves are scored.
    """
    network = network or diffwave_config(config)
    data = build_clips(config, network, "held_out")
    chosen = np.linspace(0, len(data) - 1, min(config.sampling.count, len(data))).round().astype(int)
    clips, mels = {}, {}
    for i in chosen:
        clip = data.item(int(i))
        name = str(Path(clip.name).with_suffix("")).replace("/", "_")
        if name in clips:
            name = clip.name.replace("/", "_")  # two endings of one name
        clips[name], mels[name] = clip.audio[0], clip.mel
    digest = hashlib.sha256(config.metrics.model_dump_json(exclude={"kernel_distance"}).encode())
    for name, audio in clips.items():
        digest.update(name.encode() + audio.numpy().tobytes())
    rate, weights = network.sample_rate, _weights(config)
    scores = sound.score_truth(clips, rate, weights=weights, device=device) if scored else {}
    return SoundTruth(clips, mels, data.mel, (1, data.crop_samples), digest.hexdigest(), scores)


def vocode(
    config: Config, model: DiffWave, truth: SoundTruth, *, device: torch.device | str = "cpu"
) -> Iterator[tuple[str, Tensor]]:
    """The name and sound `[T]` of each clip of the truth, made from its mel spectrogram; clip i from seed + i."""
    settings, network = config.sampling, model.config
    betas = network.inference_noise_schedule if settings.sampler == "fast" else None
    for i, (name, clip) in enumerate(truth.clips.items()):
        generator = StackedGenerator([settings.seed + i], device)
        mel = None if network.unconditional else truth.mels[name][None].to(device)

        def predict(x: Tensor, t: Tensor, mel: Tensor | None = mel) -> Tensor:
            noise: Tensor = model(x, t, mel)
            return noise

        latents = generator.randn((1, len(clip)))
        yield (
            name,
            diffwave(predict, latents, network.noise_schedule, inference_betas=betas, generator=generator)[0].cpu(),
        )


def evaluate(
    config: Config, model: DiffWave, truth: SoundTruth, folder: Path, *, device: torch.device | str = "cpu"
) -> dict[str, Any]:
    """Vocode the truth's clips into `folder`/samples/*.wav and score them; returns that part of results.json."""
    outputs = dict(vocode(config, model, truth, device=device))
    save_clips(folder / "samples", outputs, truth.settings.sample_rate)
    found = sound.score(
        outputs,
        truth.clips,
        truth.settings.sample_rate,
        lambda clip: log_mel(clip, truth.settings),
        weights=_weights(config),
        paired=not model.config.unconditional,
        device=device,
    )
    steps = model.config.inference_noise_schedule if config.sampling.sampler == "fast" else model.config.noise_schedule
    return {
        "samples": len(outputs),
        "sampler": f"DiffWave's {config.sampling.sampler} sampler, {len(steps)} steps",
        "metrics": found.values,
        "described": {name: METRICS[name]._asdict() for name in found.values},
        "missing": {METRICS[name].label: why for name, why in found.missing.items()},
        "failures": {METRICS[name].label: clips for name, clips in found.failures.items()},
    }


def save_clips(folder: Path, clips: dict[str, Tensor], sample_rate: int) -> None:
    """Write clips `[T]` as 16-bit wav files, in place of those that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.wav"):
        old.unlink()
    for name, clip in clips.items():
        write_wav(folder / f"{name}.wav", clip.numpy(), sample_rate)


def _weights(config: Config) -> sound.Weights:
    return sound.Weights(config.metrics.vggish, config.metrics.utmos, config.metrics.utmos_weights)
