"""A network with its own gain applied, against Wiener's filter and against networks whose fault is a filter."""

import json

import pytest
import torch
from rich.console import Console
from torch import nn

from specreg import compare, objectives
from specreg.calibrated import calibrate
from specreg.config import ConfigError
from specreg.denoising import denoising_map
from specreg.diffusion import alphas_cumprod, coefficients
from specreg.transforms import fourier, radial

SCHEDULE = alphas_cumprod("cosine", 100).float()
OBJECTIVES = {
    "x0": objectives.ddpm(SCHEDULE, "x0"),
    "v": objectives.ddpm(SCHEDULE, "v"),
    "epsilon": objectives.ddpm(SCHEDULE, "epsilon"),
    "flow": objectives.flow(),
    "edm": objectives.denoiser(),
}


def images(count=32, side=16):
    return torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(1))


class Estimate(nn.Module):
    """Returns the output that implies x0_hat = `estimate(x_t, level)`."""

    def __init__(self, objective, estimate):
        super().__init__()
        self.objective, self.estimate = objective, estimate

    def forward(self, x_t, time):
        level = self.objective.level(self.objective.time.told(time))
        a, b = (c[:, None, None, None] for c in coefficients(level, self.objective.prediction))
        return (self.estimate(x_t, level) - a * x_t) / b


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_network_is_told_times_that_can_be_read_back(name):
    axis = OBJECTIVES[name].time
    times = axis.grid(7)
    torch.testing.assert_close(axis.told(axis.network_time(times)), times)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_white_data_and_a_network_that_removes_no_noise_give_wiener_s_filter(name):
    """x0_hat = x_t/α; for white data of unit variance the best factor on it is α²/(α² + σ²) in every band."""
    objective = OBJECTIVES[name]
    network = Estimate(objective, lambda x_t, level: x_t / level.alpha[:, None, None, None])
    found = calibrate(objective, network, images(128))
    times = objective.time.grid(9)[2:7]
    x_t = torch.randn(5, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    level = objective.level(times)
    expected = (level.alpha / (level.alpha**2 + level.sigma**2))[:, None, None, None] * x_t
    error = objective.predict_x0(found, x_t, times) - expected
    assert float(error.square().mean((1, 2, 3)).div(expected.square().mean((1, 2, 3))).sqrt().max()) < 0.06


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_filter_that_differs_by_noise_level_is_undone(name):
    """The network returns the images, high bands times 0.5 + 0.5·σ/(α + σ): calibrated it has no error left."""
    objective, x0 = OBJECTIVES[name], images()
    high = radial.band_index((16, 16), 4) >= 2

    def estimate(x_t, level):
        share = (0.5 + 0.5 * level.sigma / (level.alpha + level.sigma))[:, None, None, None]
        factor = torch.where(high, share, torch.ones(()))
        spectrum = fourier.half_spectrum(x0[: len(x_t)], ndim=2) * factor
        return torch.fft.irfftn(spectrum, s=(16, 16), dim=(-2, -1), norm="ortho")

    network = Estimate(objective, estimate)
    found = calibrate(objective, network, x0)
    before = denoising_map(objective, network, x0, levels=25, bands=4)
    after = denoising_map(objective, found, x0, levels=25, bands=4)
    assert before.error_db() > -30
    assert after.error_db() < -60
    assert float((after.gain - 1).abs().max()) < 1e-3


def test_a_calibrated_network_has_what_the_network_has():
    network = Estimate(OBJECTIVES["x0"], lambda x_t, level: x_t)
    network.preconditioning = "edm"
    found = calibrate(OBJECTIVES["x0"], network, images(4))
    assert found.preconditioning == "edm"
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = found.nothing_like_it


def test_a_comparison_has_the_calibrated_baseline_as_a_row_without_training_it(tiny, tmp_path):
    config = tiny()
    arms = compare.with_yardstick(config, compare.resolve_arms(config, ["amplitude"]))
    assert list(arms) == ["none", "calibrated", "amplitude"]
    result = compare.compare(config, tmp_path, arms, range(2), console=Console(quiet=True))
    cell = tmp_path / "calibrated-seed1"
    assert sorted(path.name for path in cell.iterdir()) == ["results.json", "samples"]
    ours, theirs = (
        json.loads((tmp_path / f"{arm}-seed1" / "results.json").read_text()) for arm in ("calibrated", "none")
    )
    assert ours["step"] == theirs["step"] == config.training.steps
    assert ours["metrics"]["denoising_error_db"] < theirs["metrics"]["denoising_error_db"]
    rows = [row for row in result["table"] if row["arm"] == "calibrated"]
    assert {row["n"] for row in rows} == {2}
    assert "calibrated" not in result["step_seconds"]
    assert ours["timing"] == {}
    written = (cell / "results.json").stat().st_mtime_ns
    compare.compare(config, tmp_path, arms, range(2), console=Console(quiet=True))
    assert (cell / "results.json").stat().st_mtime_ns == written


def test_the_calibrated_baseline_waits_for_the_baseline(tiny, tmp_path):
    """With several processes the baseline may be in another one's hands."""
    from specreg import evaluation
    from specreg.compare.comparison import Comparison

    config = tiny()
    config = config.model_copy(update={"arms": compare.with_yardstick(config, {"none": None})})
    comparison = Comparison(config, tmp_path, [0], evaluation.load_truth(config), "")
    assert comparison.waits("calibrated", 0)
    assert not comparison.waits("none", 0)


def test_kinds_of_data_that_are_not_calibrated_say_so():
    from specreg import modalities
    from specreg.recipes import RECIPES

    config = modalities.parse(RECIPES["diffwave-small"](), [])
    with pytest.raises(ConfigError, match="cannot be calibrated"):
        compare.resolve_arms(config, ["calibrated", "amplitude"])
    assert list(compare.with_yardstick(config, {"none": None})) == ["none"]
