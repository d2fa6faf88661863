"""On a device without float64 everything runs, and gives what the CPU gives: see `apple`."""

import accelerate.state
import numpy as np
import pytest
import torch
from rich.console import Console

from apple import MPS, Apple, AppleTensor
from specreg import AutoWeight, SpectralRegularizer, diffusion, evaluation, losses, objectives
from specreg.denoising import denoising_map
from specreg.diffusion import NoiseLevel, StackedGenerator, precond, schedules
from specreg.diffusion.diffwave_sampler import diffwave
from specreg.metrics import frechet, spectra
from specreg.metrics.kernel_distance import kernel_distance
from specreg.training.trainer import Trainer
from specreg.transforms import radial, wavelet

LOSSES = [
    ("amplitude", {}),
    ("amplitude_phase", {"coupling": "frequency"}),
    ("amplitude_phase", {"coupling": "norm"}),
    ("amplitude_phase", {"coupling": "projection"}),
    ("haar", {}),
    ("bior1.3", {"levels": 2}),
    ("amplitude+haar", {}),
]


@pytest.fixture
def apple():
    with Apple():
        yield


def pair(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def agree(ours, expected, rtol=1e-4):
    assert ours.device.type == "mps"
    np.testing.assert_allclose(ours.detach().cpu().numpy(), expected.detach().numpy(), rtol=rtol, atol=1e-5)


def test_the_stand_in_refuses_float64_and_mixed_devices(apple):
    x = torch.ones(2, device="mps")
    for refused in (
        lambda: x.double(),
        lambda: x.to(torch.float64),
        lambda: torch.ones(2, dtype=torch.float64).to(MPS),
        lambda: torch.full((2,), 1.0, dtype=torch.float64, device=MPS),
        lambda: x.to(torch.complex128),
    ):
        with pytest.raises(TypeError, match="doesn't support float64"):
            refused()
    with pytest.raises(RuntimeError, match="one device"):
        x + torch.ones(2)
    assert isinstance(torch.ones(2, dtype=torch.float64).to(x), AppleTensor)
    assert x.cpu().double().dtype == torch.float64


@pytest.mark.parametrize(("name", "options"), LOSSES)
@pytest.mark.parametrize("shape", [(2, 1, 16, 12), (2, 3, 9, 7)])
def test_losses_and_gradients(apple, name, options, shape):
    loss = losses.build(name, **options)
    x0_hat, x0 = pair(*shape)
    found = []
    for device in ("cpu", "mps"):
        x = x0_hat.to(device, copy=True).requires_grad_()
        value = loss(x, x0.to(device), lambda f: torch.exp(-f)[None])
        value.sum().backward()
        found.append((value, x.grad, loss.by_band(x0_hat.to(device), x0.to(device))))
    for ours, expected in zip(found[1][:2], found[0][:2], strict=True):
        agree(ours, expected)
    for band, expected in found[0][2].items():
        agree(found[1][2][band], expected)


def test_multi_resolution_stft(apple):
    loss = losses.build("mr_stft", fft_sizes=[64, 32], hop_sizes=[16, 8], win_lengths=[64, 32])
    x0_hat, x0 = pair(2, 1, 256)
    agree(loss(x0_hat.to(MPS), x0.to(MPS)), loss(x0_hat, x0))
    for name, expected in loss.by_band(x0_hat, x0).items():
        agree(loss.by_band(x0_hat.to(MPS), x0.to(MPS))[name], expected)


def test_transforms_and_spectra(apple):
    x, _ = pair(2, 1, 12, 8)
    agree(radial.power_spectrum(x.to(MPS)).power, radial.power_spectrum(x).power)
    agree(wavelet.wavedecn(x.to(MPS), "db2", levels=2).approx, wavelet.wavedecn(x, "db2", levels=2).approx)
    torch.testing.assert_close(spectra.mean_spectrum(x.to(MPS)).power, spectra.mean_spectrum(x).power)
    bands = torch.ones(12, 8, dtype=torch.bool)
    assert spectra.band_energy_share(x.to(MPS), bands.to(MPS)) == pytest.approx(1, rel=1e-12)
    features = x.flatten(1).repeat(4, 1)
    expected = kernel_distance(features, 2 * features)
    assert kernel_distance(features.to(MPS), 2 * features.to(MPS)) == pytest.approx(expected, rel=1e-12)
    sums = [frechet.FeatureAccumulator(96) for _ in range(2)]
    for each, device in zip(sums, ("cpu", "mps"), strict=True):
        each.add(features.to(device))
    torch.testing.assert_close(sums[1].statistics().covariance, sums[0].statistics().covariance)


@pytest.mark.parametrize("automatic", [False, True])
@pytest.mark.parametrize("band_weight", [None, "wiener", "signal_gate"])
def test_regularizer(apple, automatic, band_weight):
    from specreg.diffusion import band_weight as band_weights

    def term(device):
        x0_hat, x0 = (x.to(device) for x in pair(3, 1, 16, 16))
        x0_hat = x0_hat.requires_grad_()
        regularizer = SpectralRegularizer(
            losses.build("amplitude"), weight=AutoWeight() if automatic else 0.1,
            band_weight=band_weights.build(band_weight) if band_weight else None, warmup=2,
        ).to(device)  # fmt: skip
        level = NoiseLevel.edm(torch.tensor([0.1, 1.0, 3.0], device=device))
        for _ in range(2):
            term = regularizer(x0_hat, x0, level, base_loss=(x0_hat - x0).square().mean(), output=x0_hat)
        term.loss.backward()
        return term, x0_hat.grad

    (ours, gradient), (expected, expected_gradient) = term("mps"), term("cpu")
    agree(ours.per_sample, expected.per_sample)
    agree(gradient, expected_gradient)


def denoise(x, sigma):
    """Return the posterior mean of data with variance 1/4."""
    share = 0.25 / (0.25 + sigma.reshape(-1, 1, 1, 1).to(x) ** 2)
    return share * x


@pytest.mark.parametrize("known", ["edm", "vp", "ve", "iddpm"])
@pytest.mark.parametrize("churn", [None, diffusion.Churn(10, noise=1.003)])
def test_heun(apple, known, churn):
    preconditioning = precond.build(known)

    def sample(device):
        generator = StackedGenerator([0, 1], device)
        network = diffusion.Preconditioned(lambda x, t: 0.1 * x, preconditioning)
        return diffusion.heun(network, generator.randn((2, 1, 4, 4)), steps=6, churn=churn, generator=generator,
                              preconditioning=preconditioning)  # fmt: skip

    agree(sample("mps"), sample("cpu"), rtol=1e-3)


def test_other_samplers(apple):
    table = schedules.alphas_cumprod("cosine", 20)

    def sample(sampler, device):
        generator = StackedGenerator([0, 1], device)
        latents = generator.randn((2, 1, 4, 4))
        if sampler == "flow":
            return diffusion.flow(denoise, latents, steps=5)
        if sampler == "diffwave":
            return diffwave(lambda x, t: 0.5 * x, latents, [0.01, 0.1, 0.2], generator=generator)
        predict = lambda x, t: 0.5 * x  # noqa: E731
        if sampler == "ancestral":
            return diffusion.ancestral(predict, latents, table, generator=generator)
        return diffusion.ddim(predict, latents, table.float().to(device), steps=5, eta=1.0, generator=generator)

    for sampler in ("flow", "diffwave", "ancestral", "ddim"):
        agree(sample(sampler, "mps"), sample(sampler, "cpu"))


def test_fractional_timesteps(apple):
    table = schedules.alphas_cumprod("linear", 100)
    level = NoiseLevel.ddpm(table[[3, 50]].float())
    found = schedules.fractional_timestep(table, level.to(MPS))
    np.testing.assert_allclose(found.cpu().numpy(), [3, 50], atol=1e-2)


@pytest.mark.parametrize("kind", ["ddpm", "denoiser", "flow", "diffwave"])
def test_denoising_map(apple, kind):
    table = schedules.alphas_cumprod("cosine", 50).float()
    x0, _ = pair(3, 1, 16, 16)

    def measure(device):
        regularizer = SpectralRegularizer(losses.build("amplitude"), weight=0.1)
        given = (table.to(device),) if kind in ("ddpm", "diffwave") else ()
        objective = getattr(objectives, kind)(*given, regularizer=regularizer)
        return denoising_map(objective, lambda x, t: 0.5 * x, x0.to(device), levels=3)

    ours, expected = measure("mps"), measure("cpu")
    for name, value in expected._asdict().items():
        found = getattr(ours, name)
        assert (found.device.type, found.dtype) == ("cpu", value.dtype), name
        np.testing.assert_allclose(found.numpy(), value.numpy(), rtol=1e-3, atol=1e-6, err_msg=name)


RUNS = {
    "ddpm": ["spectral.weight=auto", "spectral.noise_weight=constant"],
    "ancestral": ["sampling.sampler=ancestral", "diffusion.timesteps=10", "diffusion.updates=2", "spectral.weight=0.1"],
    "edm": ["diffusion.objective=edm", "diffusion.prediction=null", "model.kind=ddpmpp", "model.patch_size=1",
            "sampling.sampler=heun", "sampling.churn=5", "spectral.name=haar"],
    "flow": ["diffusion.objective=flow", "diffusion.prediction=flow", "sampling.sampler=heun", "spectral.weight=auto"],
}  # fmt: skip


@pytest.fixture
def on_apple(apple):
    """Let Accelerate find the stand-in, as it finds an Apple GPU."""
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.PartialState(cpu=True).device = MPS
    yield
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("run", RUNS)
def test_a_run_trains_resumes_samples_and_is_measured(on_apple, tiny, tmp_path, run):
    config = tiny(*RUNS[run])
    quiet = Console(quiet=True)
    half = config.model_copy(update={"training": config.training.model_copy(update={"steps": 4, "decay": "constant"})})
    whole = config.model_copy(update={"training": config.training.model_copy(update={"decay": "constant"})})
    Trainer(half, tmp_path, console=quiet).run()
    trainer = Trainer(whole, tmp_path, console=quiet)
    assert trainer.step == 4
    trainer.run()
    assert all(isinstance(weight, AppleTensor) for weight in trainer.model.parameters())
    truth = evaluation.load_truth(whole, device=trainer.device)
    found = evaluation.evaluate(tmp_path, truth, device=trainer.device)
    assert found["step"] == 6
    assert np.isfinite(np.array(found["denoising"]["error_db"])[:, 1:]).all()  # boards have no mean
    assert (tmp_path / "samples" / "samples.npy").exists()
