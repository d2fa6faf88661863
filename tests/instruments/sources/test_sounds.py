import pickle

import numpy as np
import pytest
import torch

from instruments.sources.files import everything, folder_of, tar_of, zip_of
from specreg.instruments.sources import open_source

soundfile = pytest.importorskip("soundfile")


def clip(samples, channels=1, seed=0):
    return np.random.default_rng(seed).uniform(-0.9, 0.9, (samples, channels)).astype(np.float32)


def write(path, sound, rate=8000, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, rate, **options)
    return path


def test_clips_are_cut_into_segments(tmp_path):
    first, second = clip(10_000), clip(5000, seed=1)
    write(tmp_path / "x/a.wav", first, subtype="FLOAT")
    write(tmp_path / "x/b/c.wav", second, subtype="FLOAT")
    write(tmp_path / "x/short.wav", clip(100), subtype="FLOAT")
    source = open_source(str(tmp_path / "x"))
    assert (source.shape, source.channels, source.unit) == ((1, 4096), ("mono",), "s")
    assert source.spacing == (1 / 8000,)
    assert source.keys() == ["a@0", "a@4096", "b/c@0"]
    assert list(source.groups()) == [0, 0, 1]
    assert source.notes == ("1 of 3 are smaller than 4096 values and left out, such as short.wav, 100 values",)
    expected = np.stack([first[:4096, 0], first[4096:8192, 0], second[:4096, 0]])
    assert np.array_equal(everything(source)[:, 0], expected)
    assert np.array_equal(open_source(str(tmp_path / "x"), segment=50).read(1, 2)[0, 0], first[50:100, 0])


@pytest.mark.parametrize(
    ("ending", "subtype", "step"),
    [("wav", "PCM_16", 2**-15), ("wav", "PCM_24", 2**-23), ("wav", "PCM_U8", 2**-7), ("flac", "PCM_16", 2**-15),
     ("wav", "FLOAT", 0)],
)  # fmt: skip
def test_stereo_is_read_as_soundfile_reads_it(tmp_path, ending, subtype, step):
    path = write(tmp_path / f"a.{ending}", clip(300, 2), subtype=subtype)
    source = open_source(str(path), segment=100)
    assert source.channels == ("left", "right")
    stored, _ = soundfile.read(path, dtype="float32", always_2d=True)
    assert np.array_equal(everything(source).transpose(1, 2).reshape(300, 2), stored)
    assert source.rounding == pytest.approx(step**2 / 12)
    if step:
        assert np.var(stored - clip(300, 2)) == pytest.approx(source.rounding, rel=0.2)


@pytest.mark.parametrize("ending", ["ogg", "mp3"])
def test_lossy_sounds_are_read(tmp_path, ending):
    t = np.arange(20_000) / 8000
    path = write(tmp_path / f"a.{ending}", 0.5 * np.sin(2 * np.pi * 440 * t))
    source = open_source(str(path), segment=4000)
    power = (torch.fft.rfft(everything(source)[1, 0]).abs() ** 2).numpy()
    assert power.argmax() == 220  # 440 Hz in segments of half a second
    assert source.rounding == 0
    assert len(source) >= 4  # an mp3 may lose the encoder's padding
    assert torch.equal(source.read(2, 3), everything(source)[2:3])


@pytest.mark.parametrize("pack", [folder_of, zip_of, tar_of])
def test_archives_of_sound(tmp_path, pack):
    sounds = [clip(300, seed=i) for i in range(2)]
    files = {f"set/{i}.flac": write(tmp_path / f"{i}.flac", sound).read_bytes() for i, sound in enumerate(sounds)}
    path = pack(tmp_path / {folder_of: "folder", zip_of: "x.zip", tar_of: "x.tar"}[pack], files)
    source = open_source(path, segment=100)
    assert source.keys() == [f"{i}@{start}" for i in range(2) for start in (0, 100, 200)]
    np.testing.assert_allclose(everything(source).reshape(2, 300), np.stack(sounds)[..., 0], atol=2**-15)
    assert torch.equal(everything(pickle.loads(pickle.dumps(source))), everything(source))


def test_rates_and_channels_do_not_mix(tmp_path):
    write(tmp_path / "a.wav", clip(300))
    write(tmp_path / "b.wav", clip(300), rate=16_000)
    with pytest.raises(ValueError, match=r"expected sounds of one rate; a\.wav has 8000 Hz, b\.wav 16000 Hz; resample"):
        open_source(str(tmp_path), segment=100)
    write(tmp_path / "b.wav", clip(300, 2))
    with pytest.raises(ValueError, match=r"expected the channels of a\.wav, mono; b\.wav has 2"):
        everything(open_source(str(tmp_path), segment=100))
    with pytest.raises(ValueError, match=r"channels 'luma' needs red, green and blue; its channels are mono"):
        open_source(str(tmp_path / "a.wav"), segment=100, channels="luma")


@pytest.mark.parametrize("pack", [folder_of, zip_of, tar_of])
def test_damaged_sounds_are_named(tmp_path, pack):
    good = write(tmp_path / "good.wav", clip(300)).read_bytes()
    for bad in (good[:-200], b"", b"no sound"):
        path = pack(tmp_path / f"{len(bad)}-{pack.__name__}.{pack.__name__[:3]}", {"a.wav": good, "b.wav": bad})
        with pytest.raises(ValueError, match=r"^cannot read the sound (.*/b\.wav|b\.wav in .*): ") as error:
            open_source(path, segment=100)
        assert "unpacked" not in str(error.value)


def test_an_mp3_that_promises_more_than_it_can_hold_is_refused(tmp_path):
    path = write(tmp_path / "a.mp3", clip(9000))
    data = path.read_bytes()
    frames = data.index(b"Xing") + 8 if b"Xing" in data else data.index(b"Info") + 8
    path.write_bytes(data[:frames] + b"\x10\0\0\0" + data[frames + 4 :])
    with pytest.raises(ValueError, match=r"a\.mp3: its header promises [\d,]+ samples"):
        open_source(str(path))


def test_sounds_that_are_all_too_short_are_refused(tmp_path):
    path = write(tmp_path / "a.wav", clip(300))
    with pytest.raises(ValueError, match=r"no sample of 4096 values fits: the largest of 1 is 300 values"):
        open_source(str(path))
