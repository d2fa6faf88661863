"""Vocoding metrics on synthetic speech-like sound, against the packages themselves and known values."""

import sys

import auraloss
import numpy as np
import pesq as pesq_package
import pytest
import torch

from specreg.metrics.audio import Pair, log_spectral_distance, mr_stft, pair_clips, pesq, vocoding_scores
from specreg.metrics.embeddings import Resemblyzer, embed, embedding_statistics
from specreg.metrics.mos import UTMOS, DistillMOS, mean_opinion_scores
from specreg.metrics.resampling import resample
from specreg.metrics.scores import Unavailable


def voice(seconds=2.0, rate=16_000, seed=0):
    """A buzz through moving formants, in syllables: enough like speech for PESQ."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    pitch = 120 + 20 * np.sin(2 * np.pi * 0.7 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    sound = sum(np.sin(k * phase) / k for k in range(1, 30))
    sound *= np.clip(np.sin(2 * np.pi * 3 * t + rng.uniform(0, 6)), 0, 1)
    return torch.from_numpy((0.2 * sound).astype(np.float32))


def noisy(clip, snr_db, seed=1):
    noise = torch.randn(clip.shape, generator=torch.Generator().manual_seed(seed))
    return clip + noise * clip.std() * 10 ** (-snr_db / 20)


def pairs_at(snr_db):
    return {f"clip{k}": Pair(noisy(voice(seed=k), snr_db), voice(seed=k)) for k in range(2)}


def test_every_metric_falls_with_the_signal_to_noise_ratio():
    by_snr = [vocoding_scores(pairs_at(snr), 16_000) for snr in (40, 20, 5)]
    for metric, sign in (("PESQ", -1), ("MR-STFT", 1), ("LSD", 1)):
        means = [sign * scores[metric].mean for scores in by_snr]
        assert means[0] < means[1] < means[2], metric


def test_a_clip_equal_to_its_reference_is_as_good_as_can_be():
    scores = vocoding_scores({"same": Pair(voice(), voice())}, 16_000)
    assert scores["PESQ"].mean == pytest.approx(4.644, abs=1e-3)
    assert scores["MR-STFT"].mean == 0
    assert scores["LSD"].mean == 0


def test_values_are_the_packages_own():
    pairs = pairs_at(15)
    score = pesq(pairs, 16_000)
    for name, pair in pairs.items():
        expected = pesq_package.pesq(16_000, pair.reference.numpy(), pair.output.numpy(), "wb")
        assert score.values[name] == pytest.approx(expected)
        distance = auraloss.freq.MultiResolutionSTFTLoss()(pair.output[None, None], pair.reference[None, None])
        assert mr_stft(pairs).values[name] == pytest.approx(distance.item())


def test_pesq_resamples_to_16_khz():
    at_22 = {"clip": Pair(*(resample(c, 16_000, 22_050) for c in pairs_at(15)["clip0"]))}
    assert pesq(at_22, 22_050).mean == pytest.approx(pesq(pairs_at(15), 16_000).values["clip0"], abs=0.15)


def test_log_spectral_distance_of_a_gain_is_that_gain():
    clip = 0.1 * torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    gain = {"quieter": Pair(clip / 2, clip), "silent": Pair(0 * clip, 0 * clip)}
    scores = log_spectral_distance(gain)
    assert scores.values["quieter"] == pytest.approx(20 * np.log10(2), abs=0.01)
    assert scores.values["silent"] == 0
    # White noise of power 1e-2 against silence at −101 dB: log-exponential statistics are 2.5 dB below the mean.
    assert log_spectral_distance({"x": Pair(0 * clip, clip)}).mean == pytest.approx(101.1 - 20 - 2.5, abs=0.5)


def test_failures_are_counted_under_their_names():
    pairs = {
        **pairs_at(20),
        "silence": Pair(torch.zeros(16_000), torch.zeros(16_000)),
        "blip": Pair(*[voice(0.01)] * 2),
    }
    scores = vocoding_scores(pairs, 16_000)
    assert set(scores["PESQ"].failures) == {"silence", "blip"}
    assert scores["PESQ"].failures["silence"] == "ValueError: both clips are silent"
    quiet = {"x": Pair(voice(), torch.zeros(32_000))}
    assert "NoUtterancesError" in pesq(quiet, 16_000).failures["x"]
    assert set(scores["PESQ"].values) == {"clip0", "clip1"}
    assert set(scores["LSD"].failures) == {"blip"}
    assert "blip" in scores["MR-STFT"].failures
    assert all(len(s.values) + len(s.failures) == 4 for s in scores.values())


def test_what_cannot_run_is_missing_and_never_a_number(monkeypatch):
    monkeypatch.setitem(sys.modules, "pesq", None)
    monkeypatch.setitem(sys.modules, "auraloss.freq", None)
    scores = vocoding_scores(pairs_at(20), 16_000)
    for metric in ("PESQ", "MR-STFT"):
        assert scores[metric].mean is None
        assert "pip install" in scores[metric].missing
    assert scores["LSD"].missing is None
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "librosa", None)
    resampled = pesq(pairs_at(20), 22_050)
    assert (resampled.mean, resampled.values) == (None, {})
    assert "needs librosa" in resampled.missing


def test_pairs_go_by_name_and_are_cut_to_one_length():
    x = torch.arange(300.0)
    pairs = pair_clips({"b": x[None], "a": x[:290]}, {"a": x, "b": x}, tolerance=10)
    assert {name: len(p.output) for name, p in pairs.items()} == {"b": 300, "a": 290}
    assert all(torch.equal(p.output, p.reference) for p in pairs.values())
    with pytest.raises(ValueError, match="1 clips have no reference: c"):
        pair_clips({"a": x, "c": x}, {"a": x}, tolerance=0)
    with pytest.raises(ValueError, match="1 clips have no output: b"):
        pair_clips({"a": x}, {"a": x, "b": x}, tolerance=0)
    with pytest.raises(ValueError, match="may differ by 5 samples; they have 290 and 300"):
        pair_clips({"a": x[:290]}, {"a": x}, tolerance=5)
    with pytest.raises(ValueError, match="expected a mono clip"):
        pair_clips({"a": torch.zeros(2, 9)}, {"a": torch.zeros(2, 9)}, tolerance=0)


class Loudness:
    """A predictor and an extractor whose answers are known."""

    name, sample_rate = "loudness", 8000

    def __call__(self, audio):
        if audio.abs().max() == 0:
            raise ValueError("silence")
        return 1 + 4 * float(audio.square().mean().sqrt())


def test_predictors_get_their_rate_and_failures_are_counted():
    t = torch.arange(16_000) / 16_000
    clips = {"tone": 0.5 * torch.sin(2 * torch.pi * 440 * t), "none": torch.zeros(16_000)}
    scores = mean_opinion_scores(Loudness(), clips, 16_000)
    assert scores.values["tone"] == pytest.approx(1 + 4 * 0.5 / np.sqrt(2), abs=1e-2)
    assert scores.failures == {"none": "ValueError: silence"}


HUB = """
dependencies = ["torch"]
import torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.zeros(()))

    def forward(self, wave, sr):
        assert sr == 16000
        return self.gain * wave.abs().amax(1)

def utmos22_strong(progress=True, pretrained=True):
    assert not pretrained
    return Model()
"""


def test_utmos_runs_from_a_checkout_and_a_weights_file(tmp_path):
    weights = tmp_path / "weights.pt"
    with pytest.raises(Unavailable, match=r"no hubconf.py in"):
        UTMOS(tmp_path, weights)
    (tmp_path / "hubconf.py").write_text(HUB)
    with pytest.raises(Unavailable, match=r"utmos22_strong_step7459_v1.pt from release v1.0.0"):
        UTMOS(tmp_path, weights)
    torch.save({"other": torch.ones(())}, weights)
    with pytest.raises(Unavailable, match="does not hold its weights"):
        UTMOS(tmp_path, weights)
    torch.save({"gain": torch.tensor(4.0)}, weights)
    scores = mean_opinion_scores(UTMOS(tmp_path, weights), {"x": torch.full((100,), 0.5)}, 16_000)
    assert scores.values == {"x": 2.0}


@pytest.mark.parametrize(
    ("build", "package"), [(DistillMOS, "distillmos"), (Resemblyzer, "resemblyzer")], ids=["distillmos", "resemblyzer"]
)
def test_packages_with_weights_say_what_they_need(build, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Unavailable, match=f"pip install .*{package}"):
        build()


def test_distillmos_is_the_package_s_own(capsys, stand_ins):
    import distillmos

    scores = mean_opinion_scores(DistillMOS(), {"x": voice()}, 16_000)
    assert capsys.readouterr().out == ""
    with torch.no_grad():
        expected = distillmos.ConvTransformerSQAModel().eval()(voice()[None]).item()
    assert scores.values["x"] == pytest.approx(expected)
    assert 1 < expected <= 5


class Windows:
    """Embeds windows of four samples as themselves."""

    name, sample_rate = "windows", 16_000

    def __call__(self, audio):
        return audio[: len(audio) // 4 * 4].reshape(-1, 4)


def test_embedding_statistics_are_numpy_s_of_all_windows():
    g = torch.Generator().manual_seed(0)
    clips = {f"{k}": 1000 + torch.randn(400 + 40 * k, generator=g) for k in range(5)}
    statistics = embedding_statistics(embed(Windows(), {**clips, "short": torch.zeros(3)}, 16_000))
    windows = np.concatenate([clip.double().numpy().reshape(-1, 4) for clip in clips.values()])
    np.testing.assert_allclose(statistics.mean, windows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.covariance, np.cov(windows, rowvar=False), rtol=1e-9, atol=1e-9)
    assert (statistics.windows, statistics.too_short) == (len(windows), ["short"])
    with pytest.raises(ValueError, match="at least two windows; 1 clips gave 1"):
        embedding_statistics(embed(Windows(), {"a": torch.zeros(4)}, 16_000))
    with pytest.raises(ValueError, match="a: windows returned NaN or infinity"):
        embed(Windows(), {"a": torch.full((8,), torch.nan)}, 16_000)


def test_resemblyzer_embeds_windows(stand_ins):
    windows = Resemblyzer()(voice(4.0))
    assert windows.shape[0] > 1
    assert windows.shape[1] == 256
    torch.testing.assert_close(windows.norm(dim=1), torch.ones(len(windows)))
