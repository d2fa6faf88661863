"""Table 1 on tiny networks under the public files' names: runs what is there, names what is not, goes on."""

import io
import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import reference_pickle
from specreg import modalities
from specreg.config import ConfigError
from specreg.metrics.frechet import FeatureAccumulator, frechet_distance, save_statistics
from specreg.modalities.images import streaming
from specreg.modalities.images.sampling import draw_images
from specreg.models import pretrained
from specreg.reproduce import published, table1

QUICK = ["training.steps=1", "training.batch_size=2", "sampling.steps=2", "sampling.batch_size=4"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A conditional checkpoint and a labelled archive under their public names."""
    folder = tmp_path_factory.mktemp("files")
    reference_pickle.write_tiny(folder / "edm-cifar10-32x32-cond-ve.pkl")
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(folder / "cifar10-32x32.zip", "w") as archive:
        names = [f"{i:02d}.png" for i in range(10)]
        for name in names:
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, "PNG")
            archive.writestr(name, buffer.getvalue())
        archive.writestr("dataset.json", json.dumps({"labels": [[name, i] for i, name in enumerate(names)]}))
    return folder


class Features:
    """Four numbers an image, in place of Inception's."""

    name, dimensions = "four numbers", 4

    def __call__(self, images):
        return torch.stack([images.float().mean((1, 2, 3)), *images.float().std((2, 3)).T], dim=1)


def run(files, folder, **options):
    said = Console(file=io.StringIO(), width=200)
    content = table1.run(files, files, folder, **{"overrides": QUICK, "console": said, **options})
    return content, said.file.getvalue()


def test_cells_are_run_scored_resumed_and_tabled(files, tmp_path):
    arms = ["edm", "haar", "haar-weighted"]
    content, said = run(files, tmp_path, samples=6, seeds=2, arms=arms)
    assert "CIFAR-10 cond VP: skipped, there is no edm-cifar10-32x32-cond-vp.pkl" in said
    assert len(content["skipped"]) == 5
    assert [row["arm"] for row in content["rows"]] == ["edm", "haar-weighted", "haar"]
    for row in content["rows"]:
        assert set(row["metrics"]) == {"log_spectral_distance_db", "high_frequency_db", "contrast_db"}
        assert row["metrics"]["contrast_db"]["n"] == 2
        assert row["metrics"]["contrast_db"]["std"] is not None
    assert [row["paper_fid"] for row in content["rows"]] == [1.81, 1.81, 1.81]
    cell = tmp_path / "edm-cifar10-cond-ve" / "haar-seed1"
    assert not (cell / "checkpoints").exists()
    assert Image.open(cell / "samples.png").size == (4 * 32, 32)
    text = (tmp_path / "table1.md").read_text()
    assert "paper's FID" in text
    assert "±" in text

    again, said = run(files, tmp_path, samples=6, seeds=2, arms=arms)
    assert again["rows"] == content["rows"]
    assert "haar, seed" not in said

    # With features the spectra alone are not enough any more.
    scored, said = run(files, tmp_path, samples=6, seeds=1, arms=["edm"], features=Features())
    assert "edm, seed 0" in said
    assert scored["rows"][0]["metrics"]["fid"]["mean"] > 0


@pytest.fixture(scope="module")
def cell(files, tmp_path_factory):
    """An untouched network of Table 1, its run of ten samples and the truth."""
    row = table1.ROWS[0]
    config = table1.cell_config(row, table1.find(row, files, files), "edm", 0, 10, QUICK)
    prepared = modalities.of(config).prepare(config, None)
    truth = streaming.reference(config, tmp_path_factory.mktemp("cache"), Features())
    return config, prepared.network.module.eval(), truth


class Breaking(Features):
    """Features that are interrupted at the third batch."""

    def __init__(self):
        self.calls = 0

    def __call__(self, images):
        self.calls += 1
        if self.calls == 3:
            raise KeyboardInterrupt
        return super().__call__(images)


def score(cell, folder, *, features=None, made_of="these weights", **sampling):
    config, network, truth = cell
    config = config.model_copy(update={"sampling": config.sampling.model_copy(update=sampling)})
    return streaming.score(
        config, network, (3, 32, 32), folder, truth, features=features or Features(), made_of={"weights": made_of}
    )


def interrupted(cell, folder, monkeypatch):
    monkeypatch.setattr(streaming, "SAVE_EVERY", 4)
    with pytest.raises(KeyboardInterrupt):
        score(cell, folder, features=Breaking())
    assert (folder / "partial.npz").exists()


def test_an_interrupted_cell_resumes_and_fid_is_of_all_samples(cell, tmp_path, monkeypatch):
    interrupted(cell, tmp_path / "a", monkeypatch)
    counted = Breaking()
    counted.calls = 10  # batches: 4 + 4 samples were summed up, 2 are left
    resumed = score(cell, tmp_path / "a", features=counted)
    assert counted.calls == 11
    whole = score(cell, tmp_path / "b")
    assert resumed == pytest.approx(whole, rel=1e-9)
    assert not (tmp_path / "a" / "partial.npz").exists()

    config, network, truth = cell
    sums = FeatureAccumulator(4)
    sums.add(Features()(draw_images(config, network, (3, 32, 32), range(10))))
    assert whole["fid"] == pytest.approx(frechet_distance(sums.statistics(), truth.features), rel=1e-6)


@pytest.mark.parametrize("other", [{"steps": 3}, {"churn": 5.0}, {"seed": 20}, {"made_of": "other weights"}])
def test_sums_made_of_something_else_are_not_continued(cell, tmp_path, monkeypatch, other):
    """Interrupted with 2 steps and called again with 3, the result is that of 3 steps alone."""
    interrupted(cell, tmp_path / "a", monkeypatch)
    counted = Breaking()
    counted.calls = 10
    assert score(cell, tmp_path / "a", features=counted, **other) == score(cell, tmp_path / "b", **other)
    assert counted.calls == 13  # all three batches, not the last one alone


def test_a_finished_cell_is_run_again_for_other_weights_or_options(files, tmp_path):
    for name in ("edm-cifar10-32x32-cond-ve.pkl", "cifar10-32x32.zip"):
        shutil.copy(files / name, tmp_path / name)
    again = [
        ({}, False),
        ({"overrides": [*QUICK, "sampling.batch_size=2"]}, False),
        ({"overrides": [*QUICK, "sampling.churn=5"]}, True),
        ({"overrides": [*QUICK, "sampling.churn=5"]}, False),
    ]
    run(tmp_path, tmp_path / "out", samples=4, seeds=1, arms=["edm"])
    for options, expected in again:
        _, said = run(tmp_path, tmp_path / "out", samples=4, seeds=1, arms=["edm"], **options)
        assert ("edm, seed 0" in said) == expected, options
    network = pretrained.read(tmp_path / "edm-cifar10-32x32-cond-ve.pkl")
    (tmp_path / "edm-cifar10-32x32-cond-ve.pkl").unlink()
    changed = {name: 1.5 * tensor for name, tensor in network.tensors.items()}
    pretrained.save(tmp_path / "edm-cifar10-32x32-cond-ve.safetensors", network._replace(tensors=changed))
    _, said = run(tmp_path, tmp_path / "out", samples=4, seeds=1, arms=["edm"], overrides=[*QUICK, "sampling.churn=5"])
    assert "edm, seed 0" in said


def test_references_are_cached_and_edm_s_own_are_taken(files, tmp_path):
    row = table1.ROWS[0]
    shutil.copy(files / "cifar10-32x32.zip", tmp_path / "cifar10-32x32.zip")
    found = table1.find(row, files, files)._replace(archive=tmp_path / "cifar10-32x32.zip")
    config = table1.cell_config(row, found, "edm", 0, 4, QUICK)
    first = streaming.reference(config, tmp_path / "cache", Features())

    class Never(Features):
        def __call__(self, images):
            raise AssertionError("the cache was not used")

    cached = streaming.reference(config, tmp_path / "cache", Never())
    assert torch.equal(first.features.covariance, cached.features.covariance)
    assert torch.equal(first.spectrum.power, cached.spectrum.power)
    others = Never()
    others.name = "other features"
    with pytest.raises(AssertionError, match="the cache was not used"):
        streaming.reference(config, tmp_path / "cache", others)
    other = first.features._replace(mean=first.features.mean + 1)
    save_statistics(tmp_path / "cifar10-32x32.npz", other)
    given = streaming.reference(config, tmp_path / "cache", Never())
    assert torch.equal(given.features.mean, other.mean)
    assert given.fingerprint != first.fingerprint
    more = Never()
    more.dimensions = 2048
    with pytest.raises(ValueError, match="expected 2048 features; got 4"):
        streaming.reference(config, tmp_path / "cache", more)


def test_the_paper_s_numbers_and_what_is_wrong(files, tmp_path):
    assert published.fid("edm-afhqv2-vp", "bior1.3-weighted") == 2.07
    assert published.fid("edm-afhqv2-vp", "bior1.3") == 2.05
    assert published.fid("edm-ffhq-ve", "edm") == 2.56
    assert all(published.fid(row.recipe, arm) > 1 for row in table1.ROWS for arm in table1.ARMS)
    with pytest.raises(FileNotFoundError, match="nothing to run; CIFAR-10 cond VE: skipped, there is no"):
        run(tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match=r"arm must be one of edm, .*did you mean 'haar'"):
        run(files, tmp_path, arms=["harr"])
    with pytest.raises(ValueError, match="row must be one of"):
        run(files, tmp_path, rows=["edm-ffhq"])
    with pytest.raises(ConfigError, match="no such key"):
        table1.run(files, files, tmp_path, overrides=["training.stepz=1"], console=Console(quiet=True))
