"""Sound from files through training to synthesis: what a user's own loop does, in a few seconds."""

import numpy as np
import soundfile
import torch

import specreg
from specreg import objectives
from specreg.data import AudioDataset, MelSettings
from specreg.diffusion import StackedGenerator
from specreg.diffusion.diffwave_sampler import diffwave
from specreg.metrics.audio import pair_clips, vocoding_scores
from specreg.models.diffwave import DiffWave, DiffWaveConfig
from specreg.models.diffwave_checkpoint import load_diffwave, save_diffwave

CONFIG = DiffWaveConfig(
    residual_layers=4, residual_channels=16, dilation_cycle_length=4, n_mels=20, n_fft=256, hop_samples=64,
    sample_rate=8000, crop_mel_frames=32,
)  # fmt: skip
MEL = MelSettings(sample_rate=8000, n_fft=256, hop=64, n_mels=20)


def test_train_save_load_synthesize_score(tmp_path):
    for k, frequency in enumerate([200, 300, 500]):
        t = np.arange(12_000) / 8000
        soundfile.write(tmp_path / f"{k}.wav", 0.5 * np.sin(2 * np.pi * frequency * t), 8000)
    data = AudioDataset(tmp_path, mel=MEL, crop_frames=CONFIG.crop_mel_frames)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = DiffWave(CONFIG)
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
        loss = specreg.losses.build("amplitude", reduction="sum")
        objective = objectives.diffwave(CONFIG.alphas_cumprod, specreg.SpectralRegularizer(loss, weight=1e-5))
        history = []
        for step in range(60):
            crops = [data.crop(k % 3, np.random.default_rng([step, k])) for k in range(6)]
            x0, mel = (torch.stack([crop[part] for crop in crops]) for part in (0, 1))
            optimizer.zero_grad()
            terms = objective(network, x0, torch.randint(50, (6,)), torch.randn_like(x0), {"mel": mel})
            terms.loss.backward()
            optimizer.step()
            history.append((terms.base.mean().item(), terms.spectral.per_sample.mean().item()))
    first, last = np.mean(history[:5], axis=0), np.mean(history[-5:], axis=0)
    assert (last < 0.7 * first).all(), (first, last)

    save_diffwave(tmp_path / "tuned.pt", network, step=60)
    tuned = load_diffwave(tmp_path / "tuned.pt").model
    clips = {data.names[i]: data[i] for i in range(3)}
    outputs = {}
    for name, clip in clips.items():
        generator = StackedGenerator([0])
        latents = generator.randn((1, 1, clip.audio.shape[-1]))
        audio = diffwave(
            lambda x, t, mel=clip.mel[None]: tuned(x, t, mel),
            latents,
            CONFIG.noise_schedule,
            inference_betas=CONFIG.inference_noise_schedule,
            generator=generator,
        )
        outputs[name] = audio[0, 0]
    pairs = pair_clips(outputs, {name: clip.audio[0] for name, clip in clips.items()}, tolerance=0)
    scores = vocoding_scores(pairs, 8000)
    assert len(scores["LSD"].values) == len(scores["MR-STFT"].values) == 3
    assert len(scores["PESQ"].values) + len(scores["PESQ"].failures) == 3
