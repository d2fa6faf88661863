"""Sound files whose header or range is not what their samples are."""

import struct

import numpy as np
import pytest
import soundfile

from specreg.data.audio import AudioDataset
from specreg.data.audio_files import read_channels, read_header, read_mono, read_peak
from specreg.data.mel import MelSettings

RATE = 16_000
SMALL = MelSettings(sample_rate=RATE, n_fft=256, hop=64, n_mels=20)
NOISE = 0.2 * np.random.default_rng(0).standard_normal(4000).clip(-4, 4)


def length(path):
    """Length as the decoder finds it, which is what the header must say."""
    header = read_header(path)
    assert len(read_mono(path, RATE)) == header.samples
    return header.samples


def variable_mp3(path, loud_first):
    """Write 12 s at a variable rate without the first frame, which declares the length; return the number of samples.

    The first frame that is left is of a high or a low rate, from which a decoder guesses too short or too long.
    """
    t = np.arange(12 * RATE) / RATE
    loud = (t < 2) == loud_first
    sound = np.where(loud, np.random.default_rng(0).standard_normal(len(t)), 0.005 * np.sin(2764 * t)) * 0.2
    soundfile.write(path, sound, RATE, bitrate_mode="VARIABLE", compression_level=0.3)
    data = path.read_bytes()
    second = data.index(data[:2], 4)  # a frame starts as the first does
    path.write_bytes(data[second:])
    return len(sound)


@pytest.mark.parametrize("loud_first", [True, False])
@pytest.mark.parametrize("tag", [b"", b"ID3\x03\0\0\0\0\x20\0" + bytes(4096)], ids=["bare", "tagged"])
def test_an_mp3_without_its_length_is_counted(tmp_path, loud_first, tag):
    path = tmp_path / "x.mp3"
    samples = variable_mp3(path, loud_first)
    path.write_bytes(tag + path.read_bytes())
    assert abs(soundfile.info(path).frames / samples - 1) > 0.3  # the guess
    assert length(path) == pytest.approx(samples, abs=2 * 1152)
    clip = AudioDataset(tmp_path, mel=SMALL, crop_frames=20)[0]
    assert clip.audio.shape[-1] == read_header(path).samples // 64 * 64
    # The quiet part has its tone and the loud part its power, each where it was written.
    loud = slice(0, RATE) if loud_first else slice(4 * RATE, 11 * RATE)
    quiet = slice(4 * RATE, 11 * RATE) if loud_first else slice(RATE // 2, RATE)
    assert clip.audio[0, loud].std() == pytest.approx(0.2, rel=0.1)
    assert clip.audio[0, quiet].std() == pytest.approx(0.001 / np.sqrt(2), rel=0.1)


def test_an_mp3_cut_short_is_named_and_whole_ones_have_their_length(tmp_path):
    path = tmp_path / "x.mp3"
    soundfile.write(path, NOISE, RATE)
    assert length(path) == 4000
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"cannot read the sound .*x\.mp3: it is cut short: its header promises"):
        read_header(path)


def test_flac_from_a_pipe_has_its_length(tmp_path):
    path = tmp_path / "x.flac"
    soundfile.write(path, NOISE, RATE)
    data = bytearray(path.read_bytes())
    assert length(path) == 4000
    data[21] &= 0xF0  # the number of samples, 36 bits, where 0 is unknown
    data[22:26] = bytes(4)
    (tmp_path / "piped.flac").write_bytes(data)
    assert length(tmp_path / "piped.flac") == 4000
    np.testing.assert_array_equal(
        read_mono(tmp_path / "piped.flac", RATE, start=100, samples=50), read_mono(path, RATE)[100:150]
    )


FORMS = {
    "RIFF": {"format": "WAV", "subtype": "PCM_16"},
    "RIFX": {"format": "WAV", "subtype": "PCM_16", "endian": "BIG"},
    "RF64": {"format": "RF64", "subtype": "PCM_16"},
    "float": {"format": "WAV", "subtype": "FLOAT"},
    "24 bits": {"format": "WAVEX", "subtype": "PCM_24"},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_wav_cut_short_is_named_and_an_incomplete_sample_is_not(tmp_path, form):
    path = tmp_path / "x.wav"
    soundfile.write(path, NOISE, RATE, **form)
    data = path.read_bytes()
    assert length(path) == 4000
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"x\.wav: it is cut short: its header promises \d+ bytes of sound, found \d+"):
        read_header(path)
    path.write_bytes(data[:-1])
    assert length(path) == 3999
    soundfile.write(tmp_path / "whole.wav", NOISE, RATE)
    data = AudioDataset(tmp_path, mel=SMALL, crop_frames=20)
    assert data.names == ("whole.wav", "x.wav")


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0xFFFFFFFF - 36, 0x7FFFFFFF, 0x7FFFF000])
def test_streaming_headers_stay_good_and_so_do_chunks_after_the_sound(tmp_path, size):
    path = tmp_path / "x.wav"
    soundfile.write(path, NOISE, RATE, subtype="PCM_16")
    data = path.read_bytes()
    assert data[36:40] == b"data"
    path.write_bytes(data + b"LIST" + struct.pack("<I", 4) + b"INFO")
    assert length(path) == 4000
    path.write_bytes(data[:4] + struct.pack("<I", size) + data[8:40] + struct.pack("<I", size) + data[44:])
    assert length(path) == 4000


def test_the_content_decides_and_not_the_ending(tmp_path):
    soundfile.write(tmp_path / "x.mp3", NOISE, RATE)
    named = (tmp_path / "x.mp3").rename(tmp_path / "x.wav")
    whole = read_mono(named, RATE)
    np.testing.assert_array_equal(read_mono(named, RATE, start=2000, samples=64), whole[2000:2064])


@pytest.mark.parametrize(
    ("scale", "bits"), [(1 << 15, 16), (1 << 23, 24), (1 << 31, 32)], ids=["16 bits", "24 bits", "32 bits"]
)
def test_integers_in_floats_are_named(tmp_path, scale, bits):
    soundfile.write(tmp_path / "x.wav", (NOISE * scale).round(), RATE, subtype="DOUBLE")
    with pytest.raises(ValueError, match=rf"no clip is left of the 1 files .* 1 damaged, .*: x\.wav, .*{bits}-bit"):
        AudioDataset(tmp_path, mel=SMALL, crop_frames=20)
    soundfile.write(tmp_path / "y.wav", NOISE, RATE, subtype="DOUBLE")
    words = rf"x\.wav: expected samples from -1 to 1; its floats are whole .* as of {bits}-bit sound .* by {scale}$"
    with pytest.raises(ValueError, match=words):
        read_mono(tmp_path / "x.wav", RATE)
    data = AudioDataset(tmp_path, mel=SMALL, crop_frames=20)
    assert data.names == ("y.wav",)
    assert f"{bits}-bit" in data.report.damaged["x.wav"]
    with pytest.raises(ValueError, match=rf"are damaged, more than max_damaged = 0: x\.wav .*{bits}-bit"):
        AudioDataset(tmp_path, mel=SMALL, crop_frames=20, max_damaged=0)


def test_peaks_a_little_beyond_full_scale_are_clipped_and_said_and_others_refused(tmp_path, caplog):
    sound = NOISE / np.abs(NOISE).max()
    soundfile.write(tmp_path / "hot.wav", 1.5 * sound, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "far.wav", 3.5 * sound, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "full.wav", sound, RATE, subtype="FLOAT")
    assert read_peak(tmp_path / "hot.wav") == 1.5
    np.testing.assert_allclose(read_mono(tmp_path / "hot.wav", RATE), (1.5 * sound).clip(-1, 1), atol=1e-7)
    data = AudioDataset(tmp_path, mel=SMALL, crop_frames=20)
    assert data.report.clipped == ["hot.wav"]
    assert data.report.damaged == {"far.wav": "expected samples from -1 to 1; they reach 3.5"}
    assert "clips with peaks beyond ±1, clipped: 1 (hot.wav)" in caplog.text


def test_resampling_that_overshoots_full_scale_is_clipped(tmp_path):
    square = np.sign(np.sin(2 * np.pi * 500 * (np.arange(4000) + 0.5) / RATE))
    soundfile.write(tmp_path / "x.wav", square, RATE, subtype="PCM_16")
    assert np.abs(read_mono(tmp_path / "x.wav", RATE + 1000)).max() == 1  # Gibbs's overshoot is 9 % of the step


def test_16_bits_in_32_bit_integers_are_named(tmp_path):
    soundfile.write(tmp_path / "x.wav", (NOISE * 2**15).round().astype(np.int32), RATE, subtype="PCM_32")
    soundfile.write(tmp_path / "y.wav", NOISE, RATE, subtype="PCM_32")
    data = AudioDataset(tmp_path, mel=SMALL, crop_frames=20)
    assert data.report.damaged == {"x.wav": "it holds 16-bit values as 32-bit integers, without scaling"}
    assert data.names == ("y.wav",)


@pytest.mark.parametrize("form", ["wav", "flac", "ogg"])
def test_channels_are_read_as_they_are_at_any_place(tmp_path, form):
    path = tmp_path / f"x.{form}"
    soundfile.write(path, np.stack([NOISE, -0.5 * NOISE], axis=1), RATE)
    whole, _ = soundfile.read(path, dtype="float32")
    assert np.array_equal(read_channels(path), whole)
    np.testing.assert_allclose(read_channels(path, start=1000, samples=500), whole[1000:1500], atol=1e-6)
