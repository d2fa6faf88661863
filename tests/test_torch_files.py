"""Files that stand in the place of weights: what they are is said, torch's advice to switch safety off is not."""

import io
import pickle

import numpy as np
import pytest
import torch

from specreg._torch_files import load_plain, load_safetensors
from specreg.data.arrays import ImageArray
from specreg.metrics.frechet import load_statistics
from specreg.metrics.scores import Unavailable
from specreg.metrics.vggish import VGGish
from specreg.models import pretrained
from specreg.models.diffwave import DiffWave, DiffWaveConfig
from specreg.models.diffwave_checkpoint import load_diffwave, save_diffwave

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 123456789\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>404: \x1b[1mNot\x1b[0m\n Found</title></head>"


def saved(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def scripted():
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    return file.getvalue()


CONTENTS = {
    "lfs": (POINTER, r'is a Git LFS pointer to the 123,456,789 bytes that belong here; run "git lfs pull"'),
    "page": (PAGE, r"is a web page \('404: \[1mNot\[0m Found'\); download the file itself"),
    "answer": (b'{"error": "Repository not found"}', "is text that begins with .*Repository not found"),
    "empty": (b"", "is empty; copy or download it again"),
}
OTHERS = {
    "cut short": (saved({"w": torch.ones(1000)})[:2000], "damaged or cut short"),
    "bytes": (bytes(range(256)) * 20, "damaged or cut short"),
    "object": (saved({"model": torch.nn.Linear(2, 2)}), r"holds torch\.nn\.modules\.linear\.Linear, which is neither"),
    "array": (saved({"params": np.ones(2)}), r"holds numpy\.(_core|core)\.multiarray\._reconstruct"),
    "text": (saved({"params": np.str_("x")}), r"holds numpy\.(dtype|_core|core)"),
    "script": (scripted(), "is a TorchScript archive, which holds code"),
}


@pytest.mark.parametrize("name", [*CONTENTS, *OTHERS])
def test_what_torch_cannot_read_is_described_in_one_sentence(tmp_path, name):
    content, words = (CONTENTS | OTHERS)[name]
    (tmp_path / "x.pt").write_bytes(content)
    for read in (load_plain, pretrained.read, load_diffwave):
        with pytest.raises(ValueError, match=rf"x\.pt: cannot be read as a torch file .*: it .*{words}") as caught:
            read(tmp_path / "x.pt")
        said = str(caught.value)
        assert not any(advice in said for advice in ("weights_only", "allowlist", "add_safe_globals", "arbitrary"))
        assert said.isprintable()


@pytest.mark.parametrize("name", CONTENTS)
def test_other_readers_say_it_too(tmp_path, name):
    content, words = CONTENTS[name]
    for suffix, read in (
        (".safetensors", load_safetensors),
        (".safetensors", pretrained.read),
        (".npz", load_statistics),
        (".npy", ImageArray),
        (".pkl", pretrained.read),
        (".pth", VGGish),
    ):
        path = tmp_path / f"x{suffix}"
        path.write_bytes(content)
        expected = "expected 1 to" if not content and suffix == ".pkl" else words
        with pytest.raises((ValueError, Unavailable), match=expected) as caught:
            read(path)
        assert path.name in str(caught.value)
        assert "pickle" not in str(caught.value)


def test_numbers_of_numpy_are_read_and_nothing_stays_allowed(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    numbers = [
        np.float64(1.5),
        np.float32(-2),
        np.float16(0.5),
        np.int64(-3),
        np.int32(7),
        np.uint8(255),
        np.bool_(True),
    ]
    torch.save({"params": dict(enumerate(numbers)), "w": torch.ones(2)}, tmp_path / "x.pt")
    found = load_plain(tmp_path / "x.pt")
    assert list(found["params"].values()) == [1.5, -2.0, 0.5, -3, 7, 255, True]
    assert [type(value) for value in found["params"].values()] == [float, float, float, int, int, int, bool]
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError, match="numpy"):
        torch.load(tmp_path / "x.pt", weights_only=True)


def test_arrays_of_objects_are_refused_without_numpys_advice(tmp_path):
    objects = np.array([{}], dtype=object)
    np.savez(tmp_path / "x.npz", mu=objects, sigma=np.eye(1))
    np.save(tmp_path / "x.npy", objects)
    for read, name in ((load_statistics, "x.npz"), (ImageArray, "x.npy")):
        with pytest.raises(ValueError, match=rf"{name}.*Python objects") as caught:
            read(tmp_path / name)
        assert "allow_pickle" not in str(caught.value)


def test_a_vocoder_whose_params_are_numpys(tmp_path):
    config = DiffWaveConfig(
        residual_layers=2,
        residual_channels=4,
        n_mels=8,
        n_fft=128,
        hop_samples=32,
        sample_rate=8000,
        crop_mel_frames=16,
    )
    save_diffwave(tmp_path / "x.pt", DiffWave(config), step=np.int64(5))
    stored = torch.load(tmp_path / "x.pt", weights_only=False)
    stored["params"] |= {name: np.int64(stored["params"][name]) for name in ("residual_layers", "sample_rate")}
    stored["params"]["learning_rate"] = np.float64(2e-4)
    torch.save(stored, tmp_path / "x.pt")
    loaded = load_diffwave(tmp_path / "x.pt")
    assert (loaded.model.config, loaded.step) == (config, 5)
    assert loaded.other_params["learning_rate"] == 2e-4
