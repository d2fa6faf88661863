"""Flow matching and unrolled estimates on images: from config to samples."""

import json

import numpy as np
import pytest
import torch
from rich.console import Console

from specreg import evaluation, modalities, objectives
from specreg.config import ConfigError
from specreg.diffusion.noise_density import LogitNormal, UniformTime
from specreg.modalities.images.sampling import draw_images
from specreg.regularizer import SpectralRegularizer
from specreg.training.term import build_objective
from specreg.training.trainer import Trainer

FLOW = ("diffusion.objective=flow", "diffusion.prediction=flow", "sampling.sampler=heun")
QUIET = Console(quiet=True)


@pytest.mark.parametrize("prediction", ["flow", "x0"])
def test_flow_s_base_loss_is_the_squared_error_on_velocity_or_data(prediction):
    x0, noise = torch.randn(2, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.1, 0.5, 0.9])
    told = []

    def network(x, time):
        told.append(time)
        return 0.5 * x

    terms = objectives.flow(prediction=prediction)(network, x0, t, noise)
    s = t.numpy()[:, None, None, None]
    x_t = (1 - s) * x0.numpy() + s * noise.numpy()
    wanted = (noise - x0).numpy() if prediction == "flow" else x0.numpy()
    np.testing.assert_allclose(terms.base, ((0.5 * x_t - wanted) ** 2).mean((1, 2, 3)), rtol=1e-5)
    x0_hat = x_t - s * 0.5 * x_t if prediction == "flow" else 0.5 * x_t
    np.testing.assert_allclose(terms.x0_hat, x0_hat, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(told[0], 1000 * t)


def test_times_follow_the_density_of_the_config(tiny):
    for option, density in (("logit_normal", LogitNormal(0.5, 2.0)), ("uniform", UniformTime())):
        options = ["diffusion.density_options={mean: 0.5, std: 2}"] if option == "logit_normal" else []
        objective = build_objective(tiny(*FLOW, f"diffusion.density={option}", *options))
        drawn = [objective.time.draw(np.random.default_rng(k)) for k in range(2000)]
        expected = [density((k + 0.5) / 2000) for k in range(2000)]
        np.testing.assert_allclose(
            np.quantile(drawn, [0.1, 0.5, 0.9]), np.quantile(expected, [0.1, 0.5, 0.9]), atol=0.04
        )
    with pytest.raises(ConfigError, match=r"diffusion\.density must be logit_normal or uniform for flow; got edm"):
        tiny(*FLOW, "diffusion.density=edm")
    with pytest.raises(ConfigError, match=r"diffusion\.prediction must be flow or x0 for flow; got epsilon"):
        tiny(*FLOW, "diffusion.prediction=epsilon")
    with pytest.raises(ConfigError, match=r"sampling\.sampler must be heun or euler for flow; got ddim"):
        tiny(*FLOW, "sampling.sampler=ddim")


@pytest.mark.parametrize("prediction", ["flow", "x0"])
def test_a_flow_run_trains_with_the_term_and_is_sampled(tiny, tmp_path, prediction):
    config = tiny(
        *FLOW, f"diffusion.prediction={prediction}", "spectral.weight=auto", "training.steps=40", "training.lr=3e-3",
    )  # fmt: skip
    Trainer(config, tmp_path, console=QUIET).run()
    base = [json.loads(line)["base"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert np.mean(base[-8:]) < 0.9 * np.mean(base[:8])
    results = evaluation.evaluate(tmp_path, evaluation.load_truth(config))
    assert results["sampler"] == "Heun, 3 steps"
    assert np.isfinite(list(results["metrics"].values())).all()
    trained = evaluation.load_trained(tmp_path)
    drawn = draw_images(trained.config, trained.network, trained.shape, range(4))
    single = draw_images(trained.config, trained.network, trained.shape, range(2, 3))
    assert (drawn[2:3].int() - single.int()).abs().max() <= 1


class Scaled(torch.nn.Module):
    """A denoiser with one weight, counting its calls."""

    def __init__(self):
        super().__init__()
        self.weight, self.calls = torch.nn.Parameter(torch.tensor(0.6)), 0

    def forward(self, x, t):
        self.calls += 1
        return self.weight * x


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("build", [objectives.flow, objectives.denoiser], ids=["flow", "edm"])
def test_unrolled_estimates_of_images_are_euler_steps(build, recompute):
    """Three updates are three Euler steps of dx/ds = (x − D)/s from t to 0, written out in NumPy."""
    x0, noise = torch.randn(2, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    t, network = torch.tensor([0.3, 0.8]), Scaled()
    options = {} if build is objectives.denoiser else {"prediction": "x0"}
    regularizer = SpectralRegularizer("haar", weight=0.1)
    terms = build(regularizer=regularizer, updates=3, recompute=recompute, **options)(network, x0, t, noise)
    assert network.calls == 3
    flow = build is objectives.flow
    s = t.numpy()[:, None, None, None]
    shares = [1, 2 / 3, 1 / 3] if flow else [1, (2 / 3) ** 7, (1 / 3) ** 7]
    x = (1 - s) * x0.numpy() + s * noise.numpy() if flow else x0.numpy() + s * noise.numpy()
    for share, following in zip(shares, [*shares[1:], None], strict=True):
        x0_hat, level = 0.6 * x, s * share
        if following is not None:
            eps = (x - ((1 - level) if flow else 1) * x0_hat) / level
            after = s * following
            x = ((1 - after) if flow else 1) * x0_hat + after * eps
    np.testing.assert_allclose(terms.x0_hat.detach(), x0_hat, rtol=1e-4, atol=1e-6)
    terms.loss.backward()
    assert network.weight.grad.isfinite()
    assert network.calls == (5 if recompute else 3)  # all calls but the first run again


def test_an_unrolled_run_of_images_trains(tiny, tmp_path):
    config = tiny("diffusion.updates=2", "diffusion.recompute=true", "spectral.weight=0.1", "training.steps=2")
    Trainer(config, tmp_path, console=QUIET).run()
    assert modalities.of(config).objective(config, None, device="cpu", saved=None).updates == 2
