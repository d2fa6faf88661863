"""Sound: DiffWave vocoders trained on a folder of clips and scored on held-out recordings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from specreg import objectives
from specreg._memory import Need
from specreg.data.mel import log_mel
from specreg.diffusion import StackedGenerator
from specreg.diffusion.diffwave_sampler import diffwave
from specreg.metrics import sound
from specreg.modalities.protocol import Description, Device, Modality, Network, Prepared, Real, Scores, check_samples
from specreg.modalities.sound import needs
from specreg.modalities.sound.config import SoundConfig
from specreg.modalities.sound.network import ClipItems, build_diffwave, describe, diffwave_config, open_clips
from specreg.modalities.sound.truth import (
    Recordings,
    SoundTruth,
    load_recordings,
    load_truth,
    save_clips,
    weights_of,
)
from specreg.models.diffwave import DiffWave
from specreg.models.diffwave_checkpoint import save_diffwave
from specreg.objectives import Objective
from specreg.randomness import Stream, rng
from specreg.regularizer import SpectralRegularizer


class SoundSamples(NamedTuple):
    """Vocoded clips with what metrics need of each alone."""

    clips: dict[str, Tensor]  # [T] by name
    sample_rate: int  # Hz
    paired: bool  # whether each is meant to be the recording of its name
    features: sound.ClipFeatures | None = None


class Sound(Modality):
    """See `specreg.modalities.protocol.Modality`."""

    config = SoundConfig
    metrics = sound.SOUND_METRICS

    def needs(self, config: SoundConfig, *, processes: int | None) -> Iterable[Need]:
        """See the protocol; samples are as long as recordings that exist."""
        return needs.of_training(config, processes) if processes is not None else ()

    def prepare(self, config: SoundConfig, saved: Description | None) -> Prepared:
        """See the protocol."""
        settings = diffwave_config(config, saved)
        data = open_clips(config, settings, "train")
        items = ClipItems(data, config, conditional=not settings.unconditional)
        shape = (1, data.crop_samples)
        return Prepared(self.network(config, shape, saved), items, shape)

    def network(self, config: SoundConfig, shape: Sequence[int], saved: Description | None) -> Network:
        """See the protocol."""
        network = build_diffwave(config, saved)
        return Network(network, describe(network.config))

    def objective(
        self,
        config: SoundConfig,
        regularizer: SpectralRegularizer | None,
        *,
        device: Device,
        saved: Description | None,
    ) -> Objective:
        """See the protocol."""
        table = diffwave_config(config, saved).alphas_cumprod.float().to(device)
        diffusion = config.diffusion
        return objectives.diffwave(table, regularizer, updates=diffusion.updates, recompute=diffusion.recompute)

    def truth(self, config: SoundConfig, *, device: Device, scored: bool = True) -> SoundTruth:
        """See the protocol."""
        return load_truth(config, scored=scored, device=device)

    def prompts(self, config: SoundConfig, saved: Description | None) -> Recordings:
        """Return the held-out recordings."""
        return load_recordings(config, diffwave_config(config, saved))

    def count(self, config: SoundConfig, prompts: Recordings) -> int:
        """Return the number of recordings, at most sampling.count."""
        return len(prompts.clips)

    @torch.no_grad()
    def draw(
        self,
        config: SoundConfig,
        network: nn.Module,
        shape: Sequence[int],
        prompts: Recordings,
        indices: range,
        *,
        device: Device,
    ) -> SoundSamples:
        """Vocode the recordings of `indices` from their mel spectrograms."""
        assert isinstance(network, DiffWave)
        settings = network.config
        betas = settings.inference_noise_schedule if config.sampling.sampler == "fast" else None
        names, made = list(prompts.clips), {}
        for i in indices:
            name = names[i]
            mel = None if settings.unconditional else prompts.mels[name][None].to(device)

            def predict(x: Tensor, t: Tensor, mel: Tensor | None = mel) -> Tensor:
                noise: Tensor = network(x, t, mel)
                return noise

            generator = StackedGenerator([config.sampling.seed + i], device)
            latents = generator.randn((1, len(prompts.clips[name])))
            clip = diffwave(predict, latents, settings.noise_schedule, inference_betas=betas, generator=generator)
            made[name] = check_samples(clip)[0].cpu()
        return SoundSamples(made, prompts.settings.sample_rate, not settings.unconditional)

    def analyse(self, config: SoundConfig, samples: SoundSamples, truth: SoundTruth, *, device: Device) -> SoundSamples:
        """Return the clips with their scores beside their recordings, their embeddings and their mel frames."""
        recordings = truth.recordings
        references = {name: recordings.clips[name] for name in samples.clips}
        features = sound.analyse(
            samples.clips,
            references,
            samples.sample_rate,
            lambda clip: log_mel(clip, recordings.settings),
            weights=weights_of(config),
            paired=samples.paired,
            device=device,
        )
        return samples._replace(features=features)

    def join(self, parts: Sequence[SoundSamples]) -> SoundSamples:
        """See the protocol."""
        clips = {name: clip for part in parts for name, clip in part.clips.items()}
        features = [part.features for part in parts if part.features is not None]
        return parts[0]._replace(clips=clips, features=sound.merge(features) if features else None)

    def score(self, config: SoundConfig, samples: SoundSamples, truth: SoundTruth) -> Scores:
        """See the protocol."""
        assert samples.features is not None
        found = sound.summarize(samples.features)
        return Scores(found.values, found.missing, found.failures)

    def real(self, config: SoundConfig, network: nn.Module, *, path: Path | None, count: int) -> Real:
        """Return crops, one of each clip since crops of one clip are not independent, with their mel spectrograms."""
        assert isinstance(network, DiffWave)
        settings = network.config
        if path is not None:
            config = config.model_copy(update={"data": config.data.model_copy(update={"test_path": path})})
        data = open_clips(config, settings, "held_out")
        chosen = np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int).tolist()
        crops = [data.crop(i, rng(config.seed, Stream.AUGMENT, 0, i)) for i in chosen]
        mel = None if settings.unconditional else {"mel": torch.stack([crop.mel for crop in crops])}
        return Real(torch.stack([crop.audio for crop in crops]), mel, "kHz", settings.sample_rate / 1000)

    def pack(self, samples: SoundSamples) -> dict[str, Tensor]:
        """See the protocol."""
        settings = torch.tensor([samples.sample_rate, int(samples.paired)])
        return {"settings": settings, **{f"clip/{name}": clip for name, clip in samples.clips.items()}}

    def unpack(self, tensors: Mapping[str, Tensor]) -> SoundSamples:
        """See the protocol."""
        rate, paired = tensors["settings"].tolist()
        clips = {name[5:]: clip for name, clip in tensors.items() if name.startswith("clip/")}
        return SoundSamples(clips, rate, bool(paired))

    def describe_sampler(self, config: SoundConfig, network: nn.Module) -> str:
        """See the protocol."""
        assert isinstance(network, DiffWave)
        settings, sampler = network.config, config.sampling.sampler
        steps = settings.inference_noise_schedule if sampler == "fast" else settings.noise_schedule
        return f"DiffWave's {sampler} sampler, {len(steps)} steps"

    def save(self, samples: SoundSamples, folder: Path) -> None:
        """Write 16-bit wav files named as their recordings."""
        save_clips(folder, samples.clips, samples.sample_rate)

    def export_samples(self, samples: SoundSamples, folder: Path, *, first: int) -> str:
        """Write 16-bit wav files named as their recordings."""
        save_clips(folder, samples.clips, samples.sample_rate)
        return f"{len(samples.clips)} clips"

    def export_network(
        self, target: Path, config: SoundConfig, network: nn.Module, saved: Description | None, step: int
    ) -> str:
        """Write a DiffWave in the public format, .pt; raises ValueError for another suffix."""
        if target.suffix != ".pt":
            raise ValueError(f"expected a .pt file to write a DiffWave to; got {target}")
        assert isinstance(network, DiffWave)
        training = config.training
        params: dict[str, Any] = {
            "batch_size": training.batch_size,
            "learning_rate": training.lr,
            "max_grad_norm": training.clip,
        }
        save_diffwave(target, network, step=step, other_params=params)
        parameters = sum(p.numel() for p in network.parameters())
        return f"DiffWave at {network.config.sample_rate} Hz, {parameters:,} parameters"
