"""A third kind of data, 16-point vectors, trains, is compared and reported without a change to any other file."""

import hashlib
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from specreg import compare, modalities, objectives
from specreg.config import Config, DataSection, SamplingSection
from specreg.denoising import denoising_map
from specreg.diffusion import StackedGenerator, alphas_cumprod, ddim
from specreg.metrics.info import MetricInfo
from specreg.modalities import Denoised, Network, Prepared, Scores
from specreg.randomness import DataOrder, Stream, integer_seed
from specreg.report import build_report

TABLE = alphas_cumprod("cosine", 50).float()


class Line(nn.Linear):
    def forward(self, x, t):
        return super().forward(x)


class PointData(DataSection):
    kind: Literal["points"] = "points"
    count: int = 32


class PointSampling(SamplingSection):
    count: int = 6
    sampler: Literal["ddim"] = "ddim"


class PointConfig(Config):
    data: PointData = PointData()
    sampling: PointSampling = PointSampling()


def points(count: int, seed: int) -> torch.Tensor:
    phase = torch.from_numpy(np.random.default_rng(seed).uniform(0, 6.28, (count, 1, 1))).float()
    return torch.sin(2 * torch.pi * torch.arange(16) / 8 + phase)


class Items(torch.utils.data.Dataset):
    def __init__(self, config):
        self.x, self.order = points(config.data.count, 0), DataOrder(config.seed, config.data.count, 8)

    def __getitem__(self, place):
        return {"x0": self.x[self.order.item(*place)]}


class PointTruth(NamedTuple):
    x: torch.Tensor
    item_shape: Any = (1, 16)
    prompts: Any = None

    @property
    def fingerprint(self):
        return hashlib.sha256(self.x.numpy().tobytes()).hexdigest()

    def save(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "samples.npy", self.x.numpy())

    def record(self):
        return {"kind": "real waves", "unit": "waves", "samples": len(self.x), "metrics": {}}


class Points(modalities.Modality):
    config = PointConfig
    metrics = {  # noqa: RUF012
        "std": MetricInfo("standard deviation", "", "zero", 3, "of the samples"),
        "error": MetricInfo("denoising error", "dB", "lower", 3, "of real waves", side="denoising"),
    }

    def network(self, config, shape, saved):
        with torch.random.fork_rng():
            torch.manual_seed(integer_seed(config.seed, Stream.INIT))
            return Network(Line(16, 16), None)

    def prepare(self, config, saved):
        return Prepared(self.network(config, (1, 16), saved), Items(config), (1, 16))

    def objective(self, config, regularizer, *, device, saved):
        return objectives.ddpm(TABLE.to(device), "x0", regularizer)

    def truth(self, config, *, device, scored=True):
        return PointTruth(points(10, 1))

    def draw(self, config, network, shape, prompts, indices, *, device):
        noise = StackedGenerator([config.sampling.seed + i for i in indices], device).randn((len(indices), *shape))
        with torch.no_grad():
            return ddim(network, noise, TABLE, steps=5).cpu()

    def score(self, config, samples, truth):
        return Scores({"std": float(samples.std() - truth.x.std())})

    def denoise(self, config, objective, network, truth, *, device):
        found = denoising_map(objective, network, truth.x.to(device))
        return Denoised(found, {"error": found.error_db()})

    def save(self, samples, folder):
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "samples.npy", samples.numpy())


def test_a_third_kind_of_data_is_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(modalities.registry, "KINDS", {**modalities.KINDS})
    modalities.register("points", Points())
    tree = {"data": {"kind": "points"}, "title": "Waves", "training": {"steps": 200, "batch_size": 8, "lr": 3e-2}}
    config = modalities.parse(tree)
    arms = compare.resolve_arms(config, ["amplitude@auto:0.5"])
    result = compare.compare(config, tmp_path, arms, [0, 1], command="-", console=Console(quiet=True))
    rows = {(row["arm"], row["metric"]): row for row in result["table"]}
    assert rows["none", "error"]["mean"] < -5  # it has learned to denoise waves
    assert rows["amplitude@auto:0.5", "std"]["n"] == 2
    page = build_report(tmp_path).read_text()
    assert "Waves" in page
    assert "real waves" in page
    with pytest.raises(ValueError, match="'points' is taken"):
        modalities.register("points", Points())
