"""Scores against real data: the same for any processes and batches, kept where interrupted, cached by content."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from specreg import scoring
from specreg.cli.app import app
from specreg.metrics import spectra
from specreg.metrics.features import INCEPTION_FILE
from specreg.metrics.image_sets import ImageRows
from specreg.scoring import drawn, images
from specreg.scoring.images import Extractors, files_source
from specreg.training.trainer import Trainer

SPECTRA = ["log_spectral_distance_db", "high_frequency_db", "contrast_db"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("runs") / "run"
    config = tiny("sampling.count=40", "training.steps=2", "sampling.eta=1")
    Trainer(config, folder, console=Console(quiet=True)).run()
    return folder


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    path = tmp_path_factory.mktemp("real") / "real.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (40, 16, 16), dtype=np.uint8))
    return path


def evaluate(*arguments, processes=1):
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return subprocess.run(
        [*command, "-m", "specreg", "evaluate", *map(str, arguments)], capture_output=True, text=True, timeout=300,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_processes_and_batches_change_no_number(run, real, tmp_path):
    found = {}
    for processes, batch_size in ((1, 64), (2, 64), (2, 7)):
        name = f"{processes}-{batch_size}"
        shown = evaluate(
            run, "--reference", real, "--metrics", ",".join(["kernel_distance", *SPECTRA]), "--batch-size", batch_size,
            "--work", tmp_path / name, "--cache", tmp_path / f"cache-{name}", "--json", tmp_path / f"{name}.json",
            processes=processes,
        )  # fmt: skip
        assert shown.returncode == 0, shown.stderr
        found[name] = json.loads((tmp_path / f"{name}.json").read_text())
    first = found.pop("1-64")
    assert first["samples"] == first["reference_samples"] == 40
    assert list(first["metrics"]) == ["kernel_distance", *SPECTRA]
    for other in found.values():
        for name, entry in first["metrics"].items():
            for key in ("value", "low", "high", "floor"):
                assert other["metrics"][name][key] == pytest.approx(entry[key], rel=1e-6, abs=1e-9), (name, key)


def test_values_are_those_of_the_metrics_themselves(run, real, tmp_path):
    options = scoring.Options(metrics=SPECTRA, work=tmp_path / "work", cache=tmp_path / "cache", draws=20)
    found = scoring.score(run, real, options)["metrics"]
    files = sorted((tmp_path / "work").glob("*.safetensors"))
    from safetensors.torch import load_file

    made = torch.cat([load_file(path)["images"] for path in files])
    truth = torch.from_numpy(np.load(real))[:, None]
    one, other = (spectra.mean_spectrum(spectra.from_uint8(x)) for x in (made, truth))
    expected = [
        spectra.log_spectral_distance(one, other),
        spectra.power_ratio(one, other, low=0.25),
        spectra.power_ratio(one, other),
    ]
    assert [found[name]["value"] for name in SPECTRA] == pytest.approx(expected, rel=1e-9)


def test_drawn_samples_are_kept_and_those_of_other_weights_are_not(run, real, tmp_path, monkeypatch):
    monkeypatch.setattr(drawn, "CHUNK", 16)
    options = scoring.Options(metrics=["contrast_db"], work=tmp_path / "work", cache=tmp_path / "cache", draws=20)
    first = scoring.score(run, real, options)
    files = sorted((tmp_path / "work").glob("*.safetensors"))
    assert [path.stem for path in files] == ["00000000-00000016", "00000016-00000032", "00000032-00000040"]
    files[1].write_bytes(files[1].read_bytes()[:100])  # torn
    files[2].unlink()
    written = files[0].stat().st_mtime_ns
    again = scoring.score(run, real, options)
    assert again == first
    assert files[0].stat().st_mtime_ns == written
    other = tmp_path / "other"
    shutil.copytree(run, other, ignore=shutil.ignore_patterns("evaluate"))
    (other / "config.yaml").write_text((run / "config.yaml").read_text().replace("steps: 3", "steps: 2"))
    changed = scoring.score(other, real, options)
    assert changed["metrics"]["contrast_db"]["value"] != first["metrics"]["contrast_db"]["value"]


def test_only_drawn_samples_are_removed(run, real, tmp_path):
    work = tmp_path / "work"
    options = scoring.Options(metrics=["contrast_db"], work=work, cache=tmp_path / "cache", draws=20)
    work.mkdir()
    (work / "weights.safetensors").write_bytes(b"mine")
    words = rf"{work}: expected an empty folder, or one with made-of.json; it holds other files, such as weights\.safe"
    with pytest.raises(ValueError, match=words):
        scoring.score(run, real, options)
    assert [path.name for path in work.iterdir()] == ["weights.safetensors"]

    (work / "made-of.json").write_text("{}")
    (work / "00000040-00000080.safetensors").write_bytes(b"of other weights")
    scoring.score(run, real, options)
    assert sorted(path.name for path in work.iterdir()) == [
        "00000000-00000040.safetensors", "made-of.json", "weights.safetensors",
    ]  # fmt: skip
    assert (work / "weights.safetensors").read_bytes() == b"mine"


class Means:
    """Two numbers an image, in place of a feature network; it counts its calls."""

    def __init__(self):
        self.images = 0

    def __call__(self, x):
        self.images += len(x)
        return torch.stack([x.float().mean((1, 2, 3)), x.float().std((1, 2, 3))], 1)


def test_rows_of_real_images_are_cached_by_content_and_damaged_ones_are_rebuilt(real, tmp_path):
    def rows(path=real):
        means = Means()
        extractors = Extractors({"efficientnet": means}, {"efficientnet": "means"}, [], {})
        found, _ = images.reference_rows(files_source(path), extractors, tmp_path / "cache")
        return means.images, found

    first_calls, first = rows()
    assert first_calls == 40
    shutil.copy(real, tmp_path / "renamed.npy")
    calls, again = rows(tmp_path / "renamed.npy")
    assert calls == 0
    assert same(first, again)
    for path in (tmp_path / "cache").iterdir():
        content = bytearray(path.read_bytes())
        content[-3] ^= 1  # one bit of a value
        path.write_bytes(bytes(content))
    calls, again = rows()
    assert calls == 40
    assert same(first, again)
    assert rows()[0] == 0
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(b"")
    assert rows()[0] == 40
    pixels = np.load(real)
    pixels[3, 0, 0] ^= 1
    np.save(tmp_path / "other.npy", pixels)
    assert rows(tmp_path / "other.npy")[0] == 40


def same(a: ImageRows, b: ImageRows):
    pairs = [(a.power, b.power), (a.features["efficientnet"], b.features["efficientnet"])]
    return all(torch.equal(x, y) for x, y in pairs)


def test_files_are_scored_and_real_against_real_is_near_its_floor(tmp_path):
    """Two draws of one distribution: no difference in energy is seen; twice the amplitude is 6.02 dB."""
    g = np.random.default_rng(0)
    for name, scale in (("a", 20), ("b", 20), ("c", 40)):
        np.save(tmp_path / f"{name}.npy", np.clip(128 + scale * g.standard_normal((60, 8, 8)), 0, 255).astype(np.uint8))
    options = scoring.Options(metrics=SPECTRA, cache=tmp_path / "cache")
    equal = scoring.score(tmp_path / "a.npy", tmp_path / "b.npy", options)["metrics"]["contrast_db"]
    assert equal["low"] < 0 < equal["high"]
    assert "no difference seen" in equal["words"]
    louder = scoring.score(tmp_path / "c.npy", tmp_path / "b.npy", options)["metrics"]["contrast_db"]
    assert louder["low"] < 20 * np.log10(2) < louder["high"]
    assert "samples have too much by" in louder["words"]
    assert "(30 against 30)" in louder["words"]


def test_what_is_missing_is_said_and_what_was_asked_for_is_an_error(real, tmp_path, monkeypatch):
    monkeypatch.delenv("SPECREG_INCEPTION", raising=False)
    found = scoring.find_extractors(None, None)
    assert [*found.missing] == ["fid", "kid", "precision", "recall"]
    assert all(INCEPTION_FILE in why for why in found.missing.values())
    with pytest.raises(ValueError, match=f"{INCEPTION_FILE}.*pass --inception FILE or set SPECREG_INCEPTION"):
        scoring.find_extractors(["fid"], None)
    with pytest.raises(ValueError, match=f"{INCEPTION_FILE}.*got {tmp_path}"):
        scoring.find_extractors(None, tmp_path / "none.pth")
    with pytest.raises(ValueError, match="metric"):
        scoring.find_extractors(["fit"], None)
    with pytest.raises(ValueError, match="--reference: expected real data to compare"):
        scoring.score(real, None, scoring.Options())
    np.save(tmp_path / "small.npy", np.zeros((10, 8, 8), dtype=np.uint8))
    options = scoring.Options(metrics=["contrast_db"], cache=tmp_path / "cache")
    with pytest.raises(ValueError, match=r"small.npy: expected images of the size of the ref.*, 256 pixels; got 64"):
        scoring.score(tmp_path / "small.npy", real, options)
    np.save(tmp_path / "odd.npy", np.zeros((10, 16, 15), dtype=np.uint8))  # as many frequencies as 16×16
    with pytest.raises(ValueError, match=r"odd.npy: expected images of the size .*, \S*real.npy, 256 pixels; got 240"):
        scoring.score(tmp_path / "odd.npy", real, options)


def test_metrics_of_inception_s_features_are_measured_where_its_weights_are(real, tmp_path, monkeypatch):
    """Two numbers in place of 2048; FID against scipy's matrix square root."""
    from scipy.linalg import sqrtm

    class Inception(Means):
        name = "two numbers"

        def __init__(self, weights, *, device):
            super().__init__()

    monkeypatch.setattr(images, "InceptionFeatures", Inception)
    (tmp_path / "weights.pth").touch()
    made = np.random.default_rng(1).integers(0, 200, (30, 16, 16), dtype=np.uint8)
    np.save(tmp_path / "made.npy", made)
    names = ["fid", "kid", "precision", "recall"]
    options = scoring.Options(metrics=names, inception=tmp_path / "weights.pth", cache=tmp_path / "cache")
    found = scoring.score(tmp_path / "made.npy", real, options)["metrics"]
    assert list(found) == names
    a, b = (Means()(torch.from_numpy(x)[:, None]).double().numpy() for x in (made, np.load(real)))
    cov = [np.cov(x.T) for x in (a, b)]
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov[0] + cov[1] - 2 * sqrtm(cov[0] @ cov[1]).real)
    assert found["fid"]["value"] == pytest.approx(expected, rel=1e-6)
    assert found["fid"]["low"] < found["fid"]["value"] < found["fid"]["high"]
    assert found["fid"]["floor"] < found["fid"]["low"]
    assert "(20 against 20). Biased upward" in found["fid"]["words"]


def test_a_run_without_reference_is_scored_against_its_own_data(run, tmp_path):
    shown = CliRunner().invoke(
        app,
        ["evaluate", str(run), "--metrics", "contrast_db", "--count", "8", "--work", str(tmp_path / "work"),
         "--cache", str(tmp_path / "cache")],
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    assert "8 images against 20" in shown.output
    assert "contrast is" in shown.output


@pytest.fixture(scope="module")
def vocoder(tmp_path_factory, save_tiny_sound):
    from specreg.modalities import parse
    from specreg.recipes import RECIPES

    root = tmp_path_factory.mktemp("sound")
    net, clips = save_tiny_sound(root)
    config = parse(
        RECIPES["diffwave"](),
        [f"model.checkpoint={net}", f"data.path={clips}", "data.held_out=['0', '1', '2']", "training.steps=1",
         "training.batch_size=1", "training.log_every=1"],
    )  # fmt: skip
    Trainer(config, root / "run", console=Console(quiet=True)).run()
    return root


def test_a_vocoder_s_clips_are_scored_as_evaluation_does(vocoder, tmp_path, monkeypatch):
    from specreg import evaluation

    monkeypatch.setattr(drawn, "CHUNK", 2)
    found = scoring.score(vocoder / "run", None, scoring.Options(work=tmp_path / "work", draws=20))
    trained = evaluation.load_trained(vocoder / "run")
    expected = evaluation.evaluate(vocoder / "run", evaluation.load_truth(trained.config))
    values = {name: entry["value"] for name, entry in found["metrics"].items()}
    assert values == pytest.approx(expected["metrics"], rel=1e-6)
    assert found["missing"] == expected["missing"]
    for entry in found["metrics"].values():
        assert entry["low"] <= entry["value"] <= entry["high"]
    again = scoring.score(vocoder / "run", None, scoring.Options(work=tmp_path / "work", draws=20))
    assert again == found


@pytest.mark.parametrize("what", ["run", "clips"])
def test_processes_change_no_score_of_sound(vocoder, tmp_path, what):
    found = []
    for processes in (1, 2):
        shown = evaluate(
            vocoder / what, "--reference", vocoder / "clips", "--draws", 20, "--work", tmp_path / str(processes),
            "--json", tmp_path / f"{processes}.json", processes=processes,
        )  # fmt: skip
        assert shown.returncode == 0, shown.stderr
        found.append(json.loads((tmp_path / f"{processes}.json").read_text())["metrics"])
    assert found[0].keys() == found[1].keys()
    assert found[0]
    for name, entry in found[0].items():
        values = [[each[key] for key in ("value", "low", "high")] for each in (entry, found[1][name])]
        assert values[1] == pytest.approx(values[0], rel=1e-6, abs=1e-9)
        assert found[1][name]["floor"] == (None if entry["floor"] is None else pytest.approx(entry["floor"], rel=1e-6))


def test_folders_of_sound_are_paired_by_name(vocoder, tmp_path):
    import soundfile

    (tmp_path / "made").mkdir()
    for path in (vocoder / "clips").glob("*.wav"):
        clip, rate = soundfile.read(path)
        noise = np.random.default_rng(int(path.stem)).standard_normal(len(clip))
        soundfile.write(tmp_path / "made" / path.name, clip + 0.01 * noise, rate)
    options = scoring.Options(metrics=["mr_stft", "lsd_db"], draws=50)
    found = scoring.score(tmp_path / "made", vocoder / "clips", options)
    assert (found["samples"], found["reference_samples"], found["unit"]) == (4, 4, "clips")
    assert found["metrics"]["lsd_db"]["low"] < found["metrics"]["lsd_db"]["value"]
    same = scoring.score(vocoder / "clips", vocoder / "clips", options)
    assert same["metrics"]["lsd_db"]["value"] == 0
    with pytest.raises(ValueError, match="metric"):
        scoring.score(tmp_path / "made", vocoder / "clips", scoring.Options(metrics=["fid"]))

    (tmp_path / "made" / "1.wav").write_bytes(b"no sound")
    missing = scoring.score(tmp_path / "made", vocoder / "clips", scoring.Options(draws=20))["missing"]
    said = (
        f"compares clips with recordings of the same names: 1 of 4 in {vocoder / 'clips'} have no clip of their name "
        f"in {tmp_path / 'made'}, such as 1; 1 in {tmp_path / 'made'} cannot be read"
    )
    assert [missing[name] for name in ("PESQ", "MR-STFT", "log-spectral distance")] == [said] * 3
