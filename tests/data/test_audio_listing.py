"""LJSpeech's layout as people write it, and what is held out."""

import numpy as np
import pytest
import soundfile

from specreg.data.audio import AudioDataset
from specreg.data.audio_listing import list_audio, select
from specreg.data.mel import MelSettings

SMALL = MelSettings(sample_rate=8000, n_fft=256, hop=64, n_mels=20)


def ljspeech(folder, files, metadata):
    """Write clips into wavs/ and a metadata.csv (bytes)."""
    for name in files:
        (folder / "wavs" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / "wavs" / name, np.full(4000, 0.1), 8000)
    (folder / "metadata.csv").write_bytes(metadata)
    return list_audio(folder)


@pytest.mark.parametrize(
    ("id_", "file"),
    [
        ("x.wav", "x.wav"),
        ("wavs/x.wav", "x.wav"),
        ("./wavs/x", "x.wav"),
        ("wavs\\x.wav", "x.wav"),
        ("x", "x.WAV"),
        ("x.wav", "x.WAV"),
        ("x", "x.flac"),
        ("x.mp3", "x.flac"),
        ("x.1", "x.1.wav"),
        ("speaker/x", "speaker/x.wav"),
        (" x ", "x.wav"),
        ("caf\u00e9", "cafe\u0301.wav"),
        ("cafe\u0301", "caf\u00e9.wav"),
    ],
)
def test_an_id_of_metadata_names_its_file_in_any_form(tmp_path, id_, file):
    found = ljspeech(tmp_path, [file, "other.wav"], f"{id_}|text\ngone.wav|text\n".encode())
    assert found == ((f"wavs/{file}",), False, ("wavs/gone.wav",), ("wavs/other.wav",), ())


def test_an_id_with_an_ending_is_that_file_and_one_without_is_the_wav(tmp_path):
    files = ["x.flac", "x.wav", "y.flac", "y.wav"]
    assert ljspeech(tmp_path, files, b"x.flac|a\ny|b\n").names == ("wavs/x.flac", "wavs/y.wav")


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.encode("utf-16"),
        lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
        lambda text: text.encode("latin-1"),  # the ids are ASCII, and texts are not read
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
    ],
    ids=["byte order mark", "utf-16", "utf-16 of the other order", "latin-1", "dos", "old mac"],
)
def test_metadata_is_read_in_the_encodings_of_spreadsheets(tmp_path, encode):
    found = ljspeech(tmp_path, ["a.wav", "b.wav"], encode("a|\u00e9t\u00e9\nb|deux\n"))
    assert found == (("wavs/a.wav", "wavs/b.wav"), False, (), (), ())


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (b"a|x\n\xe9t\xe9|x\n", r"metadata\.csv, line 2: expected an id in UTF-8; got b'\\xe9t\\xe9'"),
        (b"\xff\xfea\0|", r"metadata\.csv: expected UTF-8 or whole UTF-16; truncated data at byte 4"),
        (
            b"file_name,text\na.wav,one\n",
            r"metadata\.csv: none of its 2 ids names one of the 1 sounds in .*wavs; the first is 'file_name,text', "
            r"expected lines such as 'a\|TEXT'",
        ),
        (b"", r"metadata\.csv: none of its 0 ids .*; it has no line"),
    ],
    ids=["latin-1 id", "half a character", "commas", "empty"],
)
def test_metadata_that_lists_no_clip_is_named(tmp_path, metadata, words):
    with pytest.raises(ValueError, match=words):
        ljspeech(tmp_path, ["a.wav"], metadata)


def test_an_own_set_in_ljspeech_s_layout_must_say_what_is_held_out(tmp_path):
    ljspeech(tmp_path, ["a.wav", "b.wav"], b"a|x\nb|x\n")
    for part in ("train", "held_out"):
        with pytest.raises(ValueError, match=f"part '{part}' needs held_out, patterns or a fraction; got None"):
            AudioDataset(tmp_path, mel=SMALL, crop_frames=20, part=part)
        with pytest.raises(
            ValueError, match=r"held_out \(data.held_out of a run\) .* c\*, d holds out 0 of 2 clips, .* is a$"
        ):
            AudioDataset(tmp_path, mel=SMALL, crop_frames=20, part=part, held_out=["c*", "d"])
    with pytest.raises(ValueError, match=r"\* holds out 2 of 2 clips"):
        AudioDataset(tmp_path, mel=SMALL, crop_frames=20, part="train", held_out=["*"])
    assert len(AudioDataset(tmp_path, mel=SMALL, crop_frames=20, part="held_out", held_out=["*"])) == 2


@pytest.mark.parametrize("layout", ["plain", "LJSpeech"])
def test_sounds_in_formats_that_are_not_read_are_named(tmp_path, layout, caplog):
    where = tmp_path / "wavs" if layout == "LJSpeech" else tmp_path
    where.mkdir(exist_ok=True)
    (where / "b.M4A").write_bytes(b"")
    (where / ".c.opus").write_bytes(b"")
    if layout == "LJSpeech":
        (tmp_path / "metadata.csv").write_text("a|text\n")
    name = (where / "b.M4A").relative_to(tmp_path).as_posix()
    with pytest.raises(ValueError, match=rf"no sound in .*; sounds in formats that are not read: 1, such as {name}$"):
        list_audio(tmp_path)
    soundfile.write(where / "a.wav", np.full(4000, 0.1), 8000)
    assert AudioDataset(tmp_path, mel=SMALL, crop_frames=20).report.not_read == [name]
    assert f"files left out, of a format that is not read: 1 ({name})" in caplog.text


def test_a_held_out_fraction_does_not_move_when_clips_are_added():
    names = [f"{k}.wav" for k in range(2000)]
    held_out = select(names, "held_out", 0.1)
    assert 150 < len(held_out) < 250
    assert set(held_out) | set(select(names, "train", 0.1)) == set(names)
    assert select(names[:1000], "held_out", 0.1) == tuple(n for n in names[:1000] if n in held_out)
    assert select(names, "held_out", 0.1, seed=1) != held_out
