"""Sound data on clips written here: wav, flac, ogg and mp3, LJSpeech's layout, damage."""

import pickle

import librosa
import numpy as np
import pytest
import scipy.signal
import soundfile
import torch

import reference_vectors as vectors
from specreg.data.audio import AudioDataset, AudioReport
from specreg.data.audio_files import decoder_versions, read_mono
from specreg.data.mel import MelSettings, log_mel

SMALL = MelSettings(sample_rate=8000, n_fft=256, hop=64, n_mels=20)


def tone(seconds, rate=8000, frequency=440.0, seed=0):
    """A tone in a little noise, amplitude below 1."""
    t = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).standard_normal(len(t))
    return (0.4 * np.sin(2 * np.pi * frequency * t) + 0.02 * noise).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """Four formats, two rates, one stereo file, at least a second each."""
    (tmp_path / "sub").mkdir()
    soundfile.write(tmp_path / "a.wav", tone(1.0), 8000, subtype="PCM_16")
    soundfile.write(tmp_path / "b.flac", tone(1.5, seed=1), 8000)
    soundfile.write(tmp_path / "c.ogg", tone(1.2, rate=16_000, seed=2), 16_000)
    soundfile.write(tmp_path / "sub" / "d.mp3", tone(1.3, rate=16_000, seed=3), 16_000)
    soundfile.write(tmp_path / "sub" / "e.WAV", np.stack([tone(1.1), 0 * tone(1.1)], 1), 8000, subtype="FLOAT")
    (tmp_path / "readme.txt").write_text("no sound")
    return tmp_path


def test_log_mel_is_torchaudio_s():
    with np.load(vectors.FOLDER / "mel.npz") as file:
        audio, expected = torch.from_numpy(file["audio"]), torch.from_numpy(file["log_mel"])
    found = log_mel(audio, MelSettings(), frames=expected.shape[1])
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


def test_log_mel_is_librosa_s_at_other_settings():
    settings = MelSettings(sample_rate=16_000, n_fft=512, hop=100, n_mels=24, f_min=50, f_max=7000)
    audio = tone(0.5, rate=16_000).astype(np.float64)
    amplitude = librosa.feature.melspectrogram(
        y=audio, sr=16_000, n_fft=512, hop_length=100, n_mels=24, fmin=50, fmax=7000, htk=True, norm=None, power=1.0,
        pad_mode="reflect", dtype=np.float64,
    )  # fmt: skip
    amplitude /= np.sqrt((scipy.signal.get_window("hann", 512) ** 2).sum())
    expected = np.clip(0.8 + 0.2 * np.log10(np.maximum(amplitude, 1e-5)), 0, 1)
    ours = log_mel(torch.from_numpy(np.stack([audio, audio])), settings)
    np.testing.assert_allclose(ours[1], expected, rtol=1e-5, atol=1e-6)
    assert ours.shape[-1] == settings.frames(len(audio))


def test_some_frames_are_the_same_frames_of_the_whole():
    audio = torch.from_numpy(tone(0.3))
    whole = log_mel(audio, SMALL)
    torch.testing.assert_close(log_mel(audio, SMALL, start=5, frames=7), whole[:, 5:12])
    with pytest.raises(ValueError, match=r"the clip has 38 frames; got start=30, frames=9"):
        log_mel(audio, SMALL, start=30, frames=9)
    with pytest.raises(ValueError, match=r"longer than n_fft / 2 = 128 samples; got 128"):
        log_mel(audio[:128], SMALL)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"hop": 0}, "hop must be"), ({"f_max": 20_000.0}, "half the sample rate"), ({"n_fft": 1023}, "must be even")],
)
def test_bad_settings_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        MelSettings(**options)


def test_every_format_is_read_mixed_and_resampled_and_said(folder, caplog):
    data = AudioDataset(folder, mel=SMALL, crop_frames=20)
    assert data.names == ("a.wav", "b.flac", "c.ogg", "sub/d.mp3", "sub/e.WAV")
    report = data.report
    assert (report.files, report.clips, report.resampled, report.mixed_down) == (5, 5, {16_000: 2}, 1)
    assert report.seconds == pytest.approx(6.1, abs=0.05)
    said = caplog.text
    assert "clips resampled from 16000 to 8000 Hz: 2" in said
    assert "mixed down to one: 1" in said
    for i, seconds in enumerate([1.0, 1.5, 1.2, 1.3, 1.1]):
        clip = data[i]
        spectrum = np.abs(np.fft.rfft(clip.audio[0].numpy()))
        assert np.argmax(spectrum) * 8000 / clip.audio.shape[-1] == pytest.approx(440, abs=1)
        assert clip.audio.shape == (1, clip.mel.shape[-1] * 64)
        assert clip.audio.shape[-1] == pytest.approx(seconds * 8000, abs=600 if i == 3 else 64)  # mp3 pads
    np.testing.assert_allclose(data[4].audio[0], tone(1.1)[: data[4].audio.shape[-1]] / 2, atol=1e-7)


def test_links_to_folders_are_part_of_the_set(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    soundfile.write(outside / "l.wav", tone(1.0), 8000)
    (folder / "link").symlink_to(outside, target_is_directory=True)
    (folder / "gone.wav").symlink_to(outside / "none.wav")
    data = AudioDataset(folder, mel=SMALL, crop_frames=20)
    assert data.names == ("a.wav", "b.flac", "c.ogg", "link/l.wav", "sub/d.mp3", "sub/e.WAV")
    assert set(data.report.damaged) == {"gone.wav"}
    alone = tmp_path_factory.mktemp("alone")
    (alone / "only").symlink_to(outside, target_is_directory=True)
    assert AudioDataset(alone, mel=SMALL, crop_frames=20).names == ("only/l.wav",)


def test_resampling_keeps_what_the_new_rate_can_hold(tmp_path):
    t = np.arange(32_000) / 16_000
    low, high = np.sin(2 * np.pi * 1000 * t), np.sin(2 * np.pi * 6000 * t)  # 6 kHz is beyond 8 kHz's half
    soundfile.write(tmp_path / "x.wav", 0.4 * (low + high), 16_000, subtype="FLOAT")
    out = read_mono(tmp_path / "x.wav", 8000)
    assert len(out) == 16_000
    np.testing.assert_allclose(out[500:-500], 0.4 * low[::2][500:-500], atol=1e-3)


@pytest.mark.parametrize("cached", [False, True])
def test_crops_are_a_function_of_the_generator_and_cut_from_the_clip(folder, tmp_path, cached):
    cache = tmp_path / "cache" if cached else None
    data = AudioDataset(folder, mel=SMALL, crop_frames=20, cache=cache)
    starts = set()
    for i in range(len(data)):
        whole = data[i]
        for step in range(8):
            generator, again = (np.random.Generator(np.random.Philox(key=[7, i], counter=step)) for _ in range(2))
            crop, same = data.crop(i, generator), data.crop(i, again)
            assert torch.equal(crop.audio, same.audio)
            assert torch.equal(crop.mel, same.mel)
            assert crop.audio.shape == (1, 20 * 64)
            assert crop.mel.shape == (20, 20)
            frame = crop.start // 64
            torch.testing.assert_close(crop.audio, whole.audio[:, crop.start : crop.start + 1280], rtol=0, atol=1e-6)
            torch.testing.assert_close(crop.mel, whole.mel[:, frame : frame + 20], rtol=1e-4, atol=1e-4)
            starts.add(crop.start)
    assert len(starts) > 20


def test_every_start_that_leaves_a_whole_crop_is_drawn(tmp_path):
    soundfile.write(tmp_path / "x.wav", tone(0.0)[:0].tolist() + [0.1] * (24 * 64 + 10), 8000)
    data = AudioDataset(tmp_path, mel=SMALL, crop_frames=20)
    generator = np.random.default_rng(0)
    assert {data.crop_start(0, generator) for _ in range(200)} == {0, 1, 2, 3, 4}


def test_the_cache_is_equal_and_follows_the_file_and_the_settings(folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    plain, cached = (AudioDataset(folder, mel=SMALL, crop_frames=20, cache=c) for c in (None, cache))
    for i in range(len(plain)):
        torch.testing.assert_close(plain[i][:2], cached[i][:2], rtol=1e-4, atol=1e-4)
    assert len(list(cache.iterdir())) == 10
    monkeypatch.setattr("specreg.data.audio.read_mono", None)  # from now on nothing is decoded
    crop = pickle.loads(pickle.dumps(cached)).crop(2, np.random.default_rng(0))
    monkeypatch.undo()
    crop.audio.mul_(2)  # a copy, not the map
    soundfile.write(folder / "a.wav", tone(1.4, frequency=600), 8000)
    assert AudioDataset(folder, mel=SMALL, crop_frames=20, cache=cache)[0].audio.shape[-1] == 175 * 64
    AudioDataset(folder, mel=MelSettings(sample_rate=8000, n_fft=128, hop=64, n_mels=20), crop_frames=20, cache=cache)[
        1
    ]
    assert len(list(cache.iterdir())) == 14


@pytest.mark.parametrize(
    "change",
    [{"decoder_versions": lambda: ("libsndfile 9.9.9",)}, {"CACHE_FORMAT": 99}, {"crop_frames": 140}],
    ids=["other decoder", "other format", "padded to another length"],
)
def test_a_cache_made_otherwise_is_not_used(folder, tmp_path, change, monkeypatch):
    options = {"mel": SMALL, "crop_frames": 20, "cache": tmp_path / "cache"}
    AudioDataset(folder, **options)[0]
    AudioDataset(folder, **options)[0]
    assert len(list(options["cache"].iterdir())) == 2
    if "crop_frames" in change:
        options |= change
    else:
        for name, value in change.items():
            monkeypatch.setattr(f"specreg.data.audio.{name}", value)
    clip = AudioDataset(folder, **options)[0]
    assert len(list(options["cache"].iterdir())) == 4
    assert clip.audio.shape[-1] == (140 * 64 if "crop_frames" in change else 125 * 64)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"hello", None])
def test_cached_files_that_are_cut_short_are_made_again(folder, tmp_path, content):
    cache = tmp_path / "cache"
    data = AudioDataset(folder, mel=SMALL, crop_frames=20, cache=cache)
    before = data[1]
    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[:-8] if content is None else content)
    again = data[1]
    assert torch.equal(again.audio, before.audio)
    assert torch.equal(again.mel, before.mel)


def test_devices_and_lying_headers_are_no_sound(tmp_path):
    (tmp_path / "zero.wav").symlink_to("/dev/zero")
    soundfile.write(tmp_path / "a.flac", tone(1.0), 8000)
    flac = bytearray((tmp_path / "a.flac").read_bytes())
    flac[21] |= 0x0F  # the number of samples has 36 bits
    flac[22:26] = b"\xff\xff\xff\xff"
    (tmp_path / "lie.flac").write_bytes(flac)
    for name, words in (("zero.wav", "expected a file"), ("lie.flac", "promises 68,719,476,735 samples")):
        with pytest.raises(ValueError, match=rf"cannot read the sound .*{name}: .*{words}"):
            read_mono(tmp_path / name, 8000)


def test_the_decoder_s_versions_name_the_packages_that_make_the_samples():
    found = decoder_versions()
    assert found[0] == f"libsndfile {soundfile.__libsndfile_version__}"
    assert found[2] == f"librosa {librosa.__version__}"
    assert [name.split()[0] for name in found] == ["libsndfile", "soundfile", "librosa", "soxr"]


def test_short_clips_are_padded_or_left_out_by_name(folder, caplog):
    soundfile.write(folder / "short.wav", tone(0.01), 8000, subtype="FLOAT")
    padded = AudioDataset(folder, mel=SMALL, crop_frames=20)
    assert padded.report.padded_short == ["short.wav"]
    clip = padded.crop(padded.names.index("short.wav"), np.random.default_rng(0))
    assert clip.start == 0
    assert clip.audio.shape == (1, 1280)
    assert torch.equal(clip.audio[0, 80:], torch.zeros(1200))
    np.testing.assert_array_equal(clip.audio[0, :80], tone(0.01))
    torch.testing.assert_close(clip.mel, log_mel(clip.audio[0], SMALL)[:, :20])
    assert "padded with silence, shorter than a crop: 1 (short.wav)" in caplog.text
    skipped = AudioDataset(folder, mel=SMALL, crop_frames=20, short="skip")
    assert skipped.report.skipped_short == ["short.wav"]
    assert len(skipped) == 5
    assert "left out, shorter than a crop: 1 (short.wav)" in caplog.text


@pytest.mark.parametrize(("count", "end"), [(20, "; 20.wav)"), (23, "; 20.wav; and 3 more, named in the report)")])
def test_a_line_of_the_log_stays_short(count, end):
    names = [f"{k}.wav" for k in range(1, count + 1)]
    (line,) = AudioReport(skipped_short=names).notices(8000)
    assert line.startswith(f"files left out, shorter than a crop: {count} (1.wav; 2.wav")
    assert line.endswith(end)


def test_damaged_files_are_named_and_left_out_up_to_a_limit(folder, caplog):
    (folder / "noise.wav").write_bytes(b"RIFF no sound here")
    (folder / "empty.flac").write_bytes(b"")
    data = AudioDataset(folder, mel=SMALL, crop_frames=20)
    assert set(data.report.damaged) == {"noise.wav", "empty.flac"}
    assert len(data) == 5
    assert data.report.files == data.report.clips + 2
    assert "left out, unreadable: 2 (empty.flac, " in caplog.text
    with pytest.raises(ValueError, match=r"2 files in .* are damaged, more than max_damaged = 1: empty.flac"):
        AudioDataset(folder, mel=SMALL, crop_frames=20, max_damaged=1)


def test_damage_further_on_is_found_by_decoding_or_named_when_read(folder):
    whole = (folder / "b.flac").read_bytes()
    (folder / "cut.flac").write_bytes(whole[: len(whole) // 2])
    whole = (folder / "c.ogg").read_bytes()
    (folder / "cut.ogg").write_bytes(whole[: len(whole) // 2])
    soundfile.write(folder / "nan.wav", np.full(8000, np.nan, np.float32), 8000, subtype="FLOAT")
    by_header = AudioDataset(folder, mel=SMALL, crop_frames=20)
    with pytest.raises(ValueError, match=r"cut\.flac"):
        by_header[by_header.names.index("cut.flac")]
    decoded = AudioDataset(folder, mel=SMALL, crop_frames=20, verify="decode")
    # The header of an ogg cannot be read without its end, and floats are decoded in any case.
    assert set(by_header.report.damaged) == {"cut.ogg", "nan.wav"}
    assert set(decoded.report.damaged) == {"cut.flac", "cut.ogg", "nan.wav"}
    assert decoded.report.damaged["nan.wav"] == "it holds NaN or infinity"


def test_refusals(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        AudioDataset(folder / "none")
    (folder / "bare").mkdir()
    with pytest.raises(ValueError, match=r"no sound in .*\.flac, \.mp3, \.ogg, \.wav"):
        AudioDataset(folder / "bare")
    with pytest.raises(ValueError, match="part 'train' needs held_out"):
        AudioDataset(folder, part="train")
    with pytest.raises(ValueError, match=r"short must be one of pad, skip; got 'padd' .did you mean 'pad'"):
        AudioDataset(folder, short="padd")
    with pytest.raises(TypeError, match="must be a list of patterns"):
        AudioDataset(folder, part="train", held_out="a*")
    with pytest.raises(ValueError, match="crop_frames · hop must be more than n_fft / 2 = 128 samples; got 2 · 64"):
        AudioDataset(folder, mel=SMALL, crop_frames=2)
    with pytest.raises(ValueError, match="no clip is left of the 5 files"):
        AudioDataset(folder, mel=SMALL, crop_frames=1000, short="skip")
