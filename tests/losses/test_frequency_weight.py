"""Weights by sample and frequency, inside each loss and through the regularizer."""

import pytest
import torch

from specreg import NoiseLevel, SpectralRegularizer, losses
from specreg.losses.functional import band_centres
from specreg.transforms import radial

SHAPES = [(3, 2, 12), (3, 2, 9, 8), (2, 1, 4, 6, 5)]


def pair(shape, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    return (torch.randn(shape, generator=g, dtype=dtype) for _ in range(2))


def smooth(batch):
    """One weight function a sample, e^(−(k+1) f)."""
    return lambda f: torch.exp(-torch.arange(1, batch + 1).to(f)[:, None] * f)


def full_grid(shape):
    axes = [torch.fft.fftfreq(n, dtype=torch.float64) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("coupling", [None, "frequency", "norm", "projection"])
def test_value_and_gradient_match_the_formula_on_the_full_spectrum(shape, coupling):
    x0_hat, x0 = pair(shape)
    axes = tuple(range(2, len(shape)))
    w = smooth(shape[0])(full_grid(shape[2:]).flatten()).reshape(shape[0], 1, *shape[2:])

    def formula(x0_hat):
        a, b = torch.fft.fftn(x0_hat, dim=axes, norm="ortho"), torch.fft.fftn(x0, dim=axes, norm="ortho")
        error, delta = (a.abs() - b.abs()).abs(), (a * b.conj()).angle().abs()
        if coupling == "norm":
            return (w * error).flatten(1).mean(1) * (1 + (w * delta).flatten(1).mean(1))
        factor = {None: error, "frequency": error * (1 + delta), "projection": error + a.abs() * (1 - delta.cos())}
        return (w * factor[coupling]).flatten(1).mean(1)

    loss = losses.Amplitude() if coupling is None else losses.AmplitudePhase(coupling=coupling)
    x0_hat = 3 * x0_hat.requires_grad_()
    ours, expected = loss(x0_hat, x0, frequency_weight=smooth(shape[0])), formula(x0_hat)
    torch.testing.assert_close(ours, expected)
    gradients = [torch.autograd.grad(value.sum(), x0_hat, retain_graph=True)[0] for value in (ours, expected)]
    limited = coupling in ("frequency", "norm")  # the phase gradient is held where Â is small
    near = (gradients[0] - gradients[1]).norm() <= (0.2 if limited else 1e-6) * gradients[1].norm()
    assert near


@pytest.mark.parametrize("name", ["amplitude", "amplitude_phase", "haar", "bior1.3"])
def test_weights_of_one_change_nothing_and_weights_of_zero_leave_nothing(name):
    x0_hat, x0 = pair((3, 2, 16, 16))
    loss = losses.build(name)
    torch.testing.assert_close(loss(x0_hat, x0, frequency_weight=lambda f: torch.ones(1, len(f))), loss(x0_hat, x0))
    assert torch.equal(loss(x0_hat, x0, frequency_weight=lambda f: torch.zeros(3, len(f))), torch.zeros(3).double())


def test_fewer_axes_than_the_data_has():
    x0_hat, x0 = pair((2, 3, 4, 10))
    by_row = losses.Amplitude(ndim=1)(x0_hat, x0, frequency_weight=smooth(2))
    rows = losses.Amplitude()(
        x0_hat.reshape(2, 12, 10), x0.reshape(2, 12, 10), frequency_weight=smooth(2)
    )  # the same rows as channels of signals
    torch.testing.assert_close(by_row, rows)


def test_wavelet_bands_are_weighed_at_their_centres():
    assert band_centres(("1d", "2d", "2a")).tolist() == pytest.approx([0.375, 0.1875, 0.0625])
    assert band_centres(("1ad",)).tolist() == pytest.approx([(0.125**2 + 0.375**2) ** 0.5])
    x0_hat, x0 = pair((2, 1, 16, 16))
    fine_only = losses.Wavelet(levels=2)(x0_hat, x0, frequency_weight=lambda f: (f > 0.3).to(f)[None])
    zero = {"2da": 0.0, "2ad": 0.0, "2dd": 0.0, "2aa": 0.0}
    torch.testing.assert_close(fine_only, losses.Wavelet(levels=2, band_weights=zero)(x0_hat, x0))


def test_weights_of_a_wrong_shape_are_refused():
    x0_hat, x0 = pair((3, 1, 8, 8))
    with pytest.raises(ValueError, match=r"frequency_weight must return \[3 or 1, 40\].*got \[2, 40\]"):
        losses.Amplitude()(x0_hat, x0, frequency_weight=lambda f: torch.ones(2, len(f)))


def test_no_gradient_flows_through_weights():
    x0_hat, x0 = pair((2, 1, 8, 8))
    knob = torch.ones((), requires_grad=True)
    loss = losses.Amplitude()(x0_hat.requires_grad_(), x0, frequency_weight=lambda f: knob * torch.ones(1, len(f)))
    loss.sum().backward()
    assert knob.grad is None


@pytest.mark.parametrize("name", ["amplitude", "haar"])
def test_the_regularizer_gives_weights_the_level_and_the_spectrum_of_x0(name):
    g = torch.Generator().manual_seed(0)
    x0 = torch.randn(4, 2, 16, 16, generator=g)
    x0_hat = x0 + torch.randn(4, 2, 16, 16, generator=g)
    level = NoiseLevel.edm(torch.tensor([0.1, 0.5, 1.0, 4.0]))
    seen = {}

    def spy(level, frequency, power):
        seen.update(frequency=frequency, power=power)
        return (level.sigma < 0.3).to(frequency)[:, None] * (frequency < 0.2)

    term = SpectralRegularizer(name, weight=1.0, band_weight=spy)(x0_hat, x0, level)
    spectrum = radial.power_spectrum(x0)
    nearest = (seen["frequency"][:, None] - spectrum.frequency).abs().argmin(1)
    torch.testing.assert_close(seen["power"], spectrum.power.mean(0)[nearest])
    assert term.per_sample[0] > 0
    assert term.per_sample[1:].abs().max() == 0


def test_white_noise_has_flat_power_and_gates_at_its_own_level():
    x0 = torch.randn(64, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    level = NoiseLevel.edm(torch.tensor([0.5]))
    plain, gated, shut = (
        SpectralRegularizer("amplitude", weight=1.0, band_weight=w)(0 * x0, x0, lv).per_sample
        for w, lv in ((None, level), ("signal_gate", level), ("signal_gate", NoiseLevel.edm(torch.tensor([2.0]))))
    )
    torch.testing.assert_close(gated, plain)
    assert shut.abs().max() == 0


def test_band_weights_need_a_loss_that_takes_them():
    with pytest.raises(TypeError, match="band_weight needs one of specreg's losses"):
        SpectralRegularizer(lambda a, b: a.flatten(1).sum(1), band_weight="wiener")
