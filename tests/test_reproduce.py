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
from specreg.metrics.frechet import FeatureAccumulator, frechet_distance, save_statistics
from specreg.reproduce import published, scoring, table1
from specreg.training.config import ConfigError

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


def features(images):
    """Four numbers an image, in place of Inception's."""
    return torch.stack([images.float().mean((1, 2, 3)), *images.float().std((2, 3)).T], dim=1)


def run(files, folder, **options):
    said = Console(file=io.StringIO(), width=200)
    content = table1.run(files, files, folder, overrides=QUICK, console=said, **options)
    return content, said.file.getvalue()


def test_cells_are_run_scored_resumed_and_tabled(files, tmp_path):
    arms = ["edm", "haar", "haar-weighted"]
    content, said = run(files, tmp_path, images=6, seeds=2, arms=arms)
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

    again, said = run(files, tmp_path, images=6, seeds=2, arms=arms)
    assert again["rows"] == content["rows"]
    assert "haar, seed" not in said

    # With features the spectra alone are not enough any more.
    scored, said = run(files, tmp_path, images=6, seeds=1, arms=["edm"], extract=features, dimensions=4)
    assert "edm, seed 0" in said
    assert scored["rows"][0]["metrics"]["fid"]["mean"] > 0


def test_an_interrupted_cell_goes_on_and_fid_is_of_all_samples(files, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "SAVE_EVERY", 4)
    row = table1.ROWS[0]
    found = table1.find(row, files, files)
    config = table1.cell_config(row, found, "edm", 0, 10, QUICK)
    model = table1.build_network(config, 3).module.eval()
    truth = scoring.reference(found.archive, tmp_path / "cache", config, features, 4)
    options = {"images": 10, "dimensions": 4}
    calls = 0

    def breaking(images):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return features(images)

    with pytest.raises(KeyboardInterrupt):
        scoring.score(config, model, (3, 32, 32), tmp_path / "a", truth, extract=breaking, **options)
    assert (tmp_path / "a" / "partial.npz").exists()
    resumed = scoring.score(config, model, (3, 32, 32), tmp_path / "a", truth, extract=features, **options)
    whole = scoring.score(config, model, (3, 32, 32), tmp_path / "b", truth, extract=features, **options)
    assert resumed == pytest.approx(whole, rel=1e-9)
    assert not (tmp_path / "a" / "partial.npz").exists()

    ten = config.model_copy(update={"sampling": config.sampling.model_copy(update={"count": 10})})
    drawn = table1.evaluation.draw_samples(ten, model, (3, 32, 32))
    sums = FeatureAccumulator(4)
    sums.add(features(drawn))
    assert whole["fid"] == pytest.approx(frechet_distance(sums.statistics(), truth.features), rel=1e-6)


def test_references_are_cached_and_edm_s_own_are_taken(files, tmp_path):
    row = table1.ROWS[0]
    config = table1.cell_config(row, table1.find(row, files, files), "edm", 0, 4, QUICK)
    archive = shutil.copy(files / "cifar10-32x32.zip", tmp_path / "cifar10-32x32.zip")
    first = scoring.reference(archive, tmp_path / "cache", config, features, 4)

    def never(images):
        raise AssertionError("the cache was not used")

    cached = scoring.reference(archive, tmp_path / "cache", config, never, 4)
    assert torch.equal(first.features.covariance, cached.features.covariance)
    assert torch.equal(first.spectrum.power, cached.spectrum.power)
    other = first.features._replace(mean=first.features.mean + 1)
    save_statistics(tmp_path / "cifar10-32x32.npz", other)
    given = scoring.reference(archive, tmp_path / "cache", config, never, 4)
    assert torch.equal(given.features.mean, other.mean)
    with pytest.raises(ValueError, match="expected 2048 features; got 4"):
        scoring.reference(archive, tmp_path / "cache", config, never, 2048)


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
