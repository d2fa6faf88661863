"""Fields of science from array to samples in data units, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from rich.console import Console

from specreg import compare, evaluation, modalities
from specreg.config import ConfigError
from specreg.data.fields import SCALE, FieldDataset, Normalization
from specreg.metrics import turbulence
from specreg.report import build_report
from specreg.training.trainer import Trainer

QUIET = Console(quiet=True)


def written(path, count=24, variables=2, side=16, seed=0, dtype=np.float32):
    """Pressure-like values around 1e5 and temperature-like ones around 280, with a red spectrum."""
    g = np.random.default_rng(seed)
    k = np.maximum(np.hypot(*np.meshgrid(*[np.fft.fftfreq(side) * side] * 2)), 1)
    white = np.fft.fft2(g.standard_normal((count, variables, side, side)))
    red = np.fft.ifft2(white * k**-1.5).real
    scale, shift = np.array([500.0, 4.0])[:variables], np.array([1e5, 280.0])[:variables]
    fields = red / red.std((0, 2, 3), keepdims=True) * scale[:, None, None] + shift[:, None, None]
    np.save(path, fields.astype(dtype))
    return fields


@pytest.fixture
def config(tmp_path):
    written(tmp_path / "train.npy")
    written(tmp_path / "test.npy", seed=1)

    def made(*overrides):
        tree = {
            "data": {
                "kind": "fields", "resolution": 16,
                "path": str(tmp_path / "train.npy"), "test_path": str(tmp_path / "test.npy"),
            },
            "model": {"kind": "ddpmpp", "width": 8, "multipliers": [1], "attention": []},
            "diffusion": {"objective": "edm"},
            "training": {"steps": 4, "batch_size": 4, "checkpoint_every": 2, "log_every": 1, "warmup": 1},
            "sampling": {"count": 6, "sampler": "heun", "steps": 4},
        }  # fmt: skip
        return modalities.parse(tree, list(overrides))

    return made


def test_variables_are_normalized_by_the_training_set_and_restored(tmp_path):
    fields = written(tmp_path / "a.npy", dtype=np.float64)
    data = FieldDataset(tmp_path / "a.npy", resolution=16)
    np.testing.assert_allclose(data.normalization.mean, fields.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(data.normalization.std, fields.std((0, 2, 3)), rtol=1e-9)
    items = torch.stack([data.item(i) for i in range(len(data))]).double()
    torch.testing.assert_close(items.mean((0, 2, 3)), torch.zeros(2).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(items.std((0, 2, 3)), torch.full((2,), SCALE).double(), rtol=1e-3, atol=0)
    restored = data.normalization.restored(items)
    np.testing.assert_allclose(restored, fields, rtol=1e-6)
    other = FieldDataset(tmp_path / "a.npy", resolution=16, normalization=Normalization((0.0, 0.0), (1.0, 2.0)))
    torch.testing.assert_close(other.item(3)[1], torch.from_numpy(fields[3, 1] / 4).float())


def test_a_run_is_trained_resumed_and_drawn_in_data_units_without_its_data(config, tmp_path):
    Trainer(config(), tmp_path / "straight", console=QUIET).run()
    shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "step-00000004")
    Trainer(config(), tmp_path / "resumed", console=QUIET).run()
    shutil.move(tmp_path / "train.npy", tmp_path / "elsewhere.npy")
    drawn = []
    for name in ("straight", "resumed"):
        trained = evaluation.load_trained(tmp_path / name)
        modality = modalities.of(trained.config)
        drawn.append(modality.draw(trained.config, trained.network, trained.shape, None, range(6), device="cpu"))
    assert torch.equal(*drawn)
    assert drawn[0].shape == (6, 2, 16, 16)
    assert drawn[0].dtype == torch.float32
    means = drawn[0].mean((0, 2, 3))
    assert abs(float(means[0]) - 1e5) < 3000
    assert abs(float(means[1]) - 280) < 30
    first = modality.draw(trained.config, trained.network, trained.shape, None, range(2, 4), device="cpu")
    torch.testing.assert_close(first, drawn[1][2:4], rtol=1e-4, atol=0.05)  # each from a seed of its own
    said = modality.export_samples(drawn[0], tmp_path / "out", first=7)
    assert said == "6 fields"
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "fields-000007.npy"), drawn[0])


def test_arms_are_compared_and_shown(config, tmp_path):
    base = config("training.steps=2", "metrics.vorticity=false", "name=c")
    arms = compare.with_yardstick(base, compare.resolve_arms(base, ["fft:log_power@auto"]))
    folder = tmp_path / "c"
    compare.compare(base, folder, arms, range(2), console=QUIET)
    results = json.loads((folder / "none-seed0" / "results.json").read_text())
    assert set(results["metrics"]) == {
        "log_spectral_distance_db", "high_frequency_db", "variance_db", "values_distance", "kurtosis_difference",
        "denoising_error_db", "denoising_high_db",
    }  # fmt: skip
    assert results["truth"]["metrics"]["floor: log_spectral_distance_db"] > 0
    page = build_report(folder).read_text()
    assert "real fields" in page
    assert "resolved wavenumbers" not in page
    assert (folder / "figures" / "samples.png").stat().st_size > 1000


def test_real_fields_score_nothing_and_vorticity_is_measured_in_its_terms(config, tmp_path):
    written(tmp_path / "w.npy", variables=1, count=40)
    run = config(f"data.path={tmp_path / 'w.npy'}", "data.test_path=null", "metrics.vorticity=true")
    modality = modalities.of(run)
    truth = modality.truth(run, device="cpu")
    scores = modality.score(run, truth.fields, truth).values
    assert scores.pop("effective_resolution") == 8  # all there are
    assert all(abs(value) < 1e-6 for value in scores.values()), scores
    faint = truth.fields.clone()
    faint[:] = truth.normalization.restored(0.5 * truth.normalization.normalized(faint))
    scores = modality.score(run, faint, truth).values
    decibels = 10 * np.log10(4)
    for name in ("log_spectral_distance_db", "energy_spectrum_db", "second_structure_db"):
        assert scores[name] == pytest.approx(decibels, rel=1e-3)
    assert scores["variance_db"] == pytest.approx(-decibels, rel=1e-3)
    assert scores["third_structure_error"] == pytest.approx(7 / 8, rel=1e-3)
    assert scores["enstrophy_flux_error"] == pytest.approx(7 / 8, rel=1e-3)
    assert scores["kurtosis_difference"] == pytest.approx(0, abs=1e-3)
    assert scores["effective_resolution"] == 0
    assert truth.scores["effective_resolution"] == turbulence.effective_resolution(
        *(turbulence.spectra(part[:, 0]).energy for part in (truth.fields[:6], truth.fields[6:]))
    )


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 16, 16), np.uint8), "fields must be floats; got uint8"),
        (np.zeros((4, 2, 8, 16), np.float32), r"expected fields \[N, 16, 16\] or .* got \[4, 2, 8, 16\]"),
        (np.zeros((0, 1, 16, 16), np.float32), "expected fields; got none"),
        (np.full((4, 1, 16, 16), 3.3, np.float32), "variable 0 has one value everywhere"),
        (np.full((4, 1, 16, 16), np.nan, np.float32), "expected finite fields; field 0 holds NaN or infinity"),
    ],
)
def test_arrays_that_are_no_fields_are_refused(tmp_path, array, message):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ValueError, match=message):
        FieldDataset(tmp_path / "x.npy", resolution=16)


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"CDF\x01", "NetCDF or HDF5"),
        (b"\x89HDF\r\n\x1a\n", "NetCDF or HDF5"),
        (b"GRIB\xff", "something else, or damaged"),
    ],
)
def test_files_of_other_formats_are_refused(tmp_path, head, what):
    (tmp_path / "x.nc").write_bytes(head + bytes(64))
    with pytest.raises(ValueError, match=rf"x\.nc: expected \.npy or \.npz; it is {what}"):
        FieldDataset(tmp_path / "x.nc", resolution=16)


def test_configs_that_do_not_fit_are_refused(config, tmp_path):
    with pytest.raises(ConfigError, match=r"metrics\.vorticity: expected one variable; got 2"):
        modalities.of(config()).truth(config("metrics.vorticity=true"), device="cpu")
    with pytest.raises(ConfigError, match=r"data\.flip"):
        config("data.flip=true")
    with pytest.raises(ConfigError, match=r"sampling\.clip"):
        config("sampling.clip=true")
    with pytest.raises(ConfigError, match=r"data\.path: expected a \.npy or .npz of fields"):
        modalities.of(config()).open(config("data.path=null"))
    written(tmp_path / "one.npy", variables=1)
    with pytest.raises(ValueError, match="expected fields of 2 variables, as those of training; got 1"):
        modalities.of(config()).truth(config(f"data.test_path={tmp_path / 'one.npy'}"), device="cpu")
    with pytest.raises(FileNotFoundError, match=r"data\.test_path: no such file"):
        modalities.of(config()).truth(config("data.test_path=nowhere.npy"), device="cpu")
