import pickle

import numpy as np
import pytest
import torch

from instruments.sources.files import everything, floats, folder_of, noise, zip_of
from specreg.instruments.sources import open_source

av = pytest.importorskip("av")


def movie(path, frames, codec="ffv1", pixels="bgr0", form="rgb24", **options):
    """Write frames [T, H, W, C] without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as video:
        stream = video.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        for pixels_of_frame in frames:
            frame = av.VideoFrame.from_ndarray(pixels_of_frame, format=form)
            video.mux(stream.encode(frame))
        video.mux(stream.encode())
    return path


@pytest.mark.parametrize("pack", [folder_of, zip_of])
def test_frames_are_samples_of_one_group_a_file(tmp_path, pack):
    frames = noise(12, 16, 24, 3)
    files = {
        "set/a.mkv": movie(tmp_path / "a.mkv", frames[:7]).read_bytes(),
        "set/b.mkv": movie(tmp_path / "b.mkv", frames[7:]).read_bytes(),
    }
    source = open_source(pack(tmp_path / ("x" if pack is folder_of else "x.zip"), files))
    assert source.shape == (3, 16, 24)
    assert source.keys() == [f"a#{i}" for i in range(7)] + [f"b#{i}" for i in range(5)]
    assert list(source.groups()) == [0] * 7 + [1] * 5
    expected = floats(frames)
    torch.testing.assert_close(everything(source).double(), expected, atol=1e-6, rtol=0)
    for i in (9, 3, 4, 0, 11):
        torch.testing.assert_close(source.read(i, i + 1).double(), expected[i : i + 1], atol=1e-6, rtol=0)
    assert torch.equal(everything(pickle.loads(pickle.dumps(source))), everything(source))


def test_frames_between_key_frames_are_found_from_anywhere(tmp_path):
    """Frames of one grey level each, with B frames, which are stored in another order than they are shown."""
    frames = np.broadcast_to((10 + 2 * np.arange(90, dtype=np.uint8))[:, None, None, None], (90, 32, 32, 3))
    path = movie(tmp_path / "a.mp4", np.ascontiguousarray(frames), codec="mpeg4", pixels="yuv420p", bf="2", g="12")
    source = open_source(str(path))
    assert len(source) == 90
    levels = everything(source).mean((1, 2, 3))
    np.testing.assert_allclose(levels * 127.5 + 127.5, frames[:, 0, 0, 0], atol=4)
    for i in (89, 40, 41, 5, 70, 0):
        assert torch.equal(source.read(i, i + 1).mean((1, 2, 3)), levels[i : i + 1])


def test_grey_and_deep_video(tmp_path):
    grey = noise(4, 16, 24)
    source = open_source(str(movie(tmp_path / "a.mkv", grey, pixels="gray", form="gray")))
    assert source.channels == ("luma",)
    np.testing.assert_allclose(everything(source)[:, 0], grey / 127.5 - 1, atol=1e-6)
    deep = noise(4, 16, 24, dtype=np.uint16)
    source = open_source(str(movie(tmp_path / "b.mkv", deep, pixels="gray16le", form="gray16le")))
    np.testing.assert_allclose(everything(source)[:, 0], deep / 32767.5 - 1, atol=1e-6)
    assert source.rounding == pytest.approx((2 / 65535) ** 2 / 12)
    colour = noise(4, 16, 24, 3, dtype=np.uint16)
    source = open_source(str(movie(tmp_path / "c.mkv", colour, pixels="gbrp16le", form="rgb48le")))
    np.testing.assert_allclose(everything(source), colour.transpose(0, 3, 1, 2) / 32767.5 - 1, atol=1e-6)


def test_sizes_that_differ_are_cut_into_tiles_or_refused(tmp_path):
    movie(tmp_path / "x/a.mkv", noise(2, 16, 24, 3))
    movie(tmp_path / "x/b.mkv", noise(2, 16, 16, 3))
    with pytest.raises(ValueError, match=r"a\.mkv \(frame 0\) is 16×24, b\.mkv \(frame 0\) is 16×16; --tile N"):
        everything(open_source(str(tmp_path / "x")))
    assert len(open_source(str(tmp_path / "x"), tile=8)) == 2 * 6 + 2 * 4


@pytest.mark.parametrize("content", ["cut", "text", "empty", "sound"])
def test_damaged_videos_are_named(tmp_path, content):
    path = movie(tmp_path / "a.mp4", noise(9, 32, 32, 3), codec="mpeg4", pixels="yuv420p")
    whole = path.read_bytes()
    if content == "sound":
        with av.open(str(path), "w") as video:
            stream = video.add_stream("aac", rate=8000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
            frame.sample_rate = 8000
            video.mux(stream.encode(frame))
            video.mux(stream.encode())
    else:
        path.write_bytes({"cut": whole[: len(whole) // 2], "text": b"<html></html>", "empty": b""}[content])
    with pytest.raises(ValueError, match=r"^cannot read the video .*a\.mp4: "):
        open_source(str(path))
