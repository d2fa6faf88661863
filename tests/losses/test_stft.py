"""The multi-resolution STFT loss against auraloss, scipy and finite differences."""

import auraloss
import numpy as np
import pytest
import scipy.signal
import torch

import specreg
from specreg import losses

G = torch.Generator().manual_seed(0)
X0_HAT, X0 = 0.1 * torch.randn(2, 3, 1, 4000, generator=G)
SMALL = {"fft_sizes": (64, 32), "hop_sizes": (16, 10), "win_lengths": (48, 32)}


@pytest.mark.parametrize("weights", [(1.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.5, 2.0)])
def test_each_sample_s_loss_is_auraloss_s(weights):
    loss = losses.build("mr_stft", convergence=weights[0], log_amplitude=weights[1], linear_amplitude=weights[2])
    theirs = auraloss.freq.MultiResolutionSTFTLoss(w_sc=weights[0], w_log_mag=weights[1], w_lin_mag=weights[2])
    expected = torch.stack([theirs(X0_HAT[[k]], X0[[k]]) for k in range(3)])
    torch.testing.assert_close(loss(X0_HAT, X0), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss(X0_HAT[:, 0], X0[:, 0]), expected, rtol=1e-5, atol=1e-6)


def test_linear_distance_is_scipy_s_spectrogram_s():
    loss = losses.MultiResolutionSTFT(
        fft_sizes=[64], hop_sizes=[16], win_lengths=[64], convergence=0, log_amplitude=0, linear_amplitude=1
    )
    x, y = X0_HAT[0, 0].double(), X0[0, 0].double()

    def spectrogram(signal):
        padded = np.pad(signal.numpy(), 32, mode="reflect")
        _, _, spectrum = scipy.signal.stft(
            padded, window="hann", nperseg=64, noverlap=48, boundary=None, padded=False, scaling="spectrum"
        )
        return np.maximum(np.abs(spectrum) * scipy.signal.get_window("hann", 64).sum(), 1e-4)

    expected = np.abs(spectrogram(x) - spectrogram(y)).mean()
    assert loss(x[None], y[None]).item() == pytest.approx(expected, rel=1e-9)


def test_sum_is_mean_times_the_samples():
    mean, total = (losses.MultiResolutionSTFT(reduction=r, **SMALL)(X0_HAT, X0) for r in ("mean", "sum"))
    torch.testing.assert_close(total, mean * 4000)


def test_channels_are_transformed_one_by_one():
    loss = losses.MultiResolutionSTFT(convergence=0, **SMALL)
    stereo = loss(X0_HAT[:2].reshape(1, 2, -1), X0[:2].reshape(1, 2, -1))
    torch.testing.assert_close(stereo, loss(X0_HAT[:2], X0[:2]).mean(0, keepdim=True))


@pytest.mark.parametrize("scale", [0.0, 1e-42, 1e-30, 1e-8, 1.0, 1e6])
@pytest.mark.parametrize("truth", ["silence", "sound", "itself"])
def test_gradients_are_finite_whatever_comes(scale, truth):
    x0_hat = (scale * X0_HAT).requires_grad_()
    x0 = {"silence": torch.zeros_like(X0), "sound": X0, "itself": x0_hat.detach()}[truth]
    value = losses.MultiResolutionSTFT(linear_amplitude=1.0)(x0_hat, x0)
    value.sum().backward()
    assert value.isfinite().all()
    assert x0_hat.grad.isfinite().all()
    if truth == "itself":
        assert value.abs().max() == 0
    if truth == "sound" and scale == 1.0:
        assert x0_hat.grad.abs().max() > 0


def test_gradient_by_finite_differences():
    loss = losses.MultiResolutionSTFT(linear_amplitude=0.5, **SMALL)
    x = X0_HAT[:1, :, :96].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, X0[:1, :, :96].double()), (x,), atol=1e-4)


def test_a_frequency_weight_keeps_only_its_band():
    t = torch.arange(4000)
    low, high = (torch.sin(2 * torch.pi * f * t)[None, None] for f in (0.05, 0.4))
    loss = losses.MultiResolutionSTFT(log_amplitude=0, linear_amplitude=1)

    def weight(frequency):
        return (frequency < 0.2).float()[None]

    assert loss(low + 2 * high, low + high, frequency_weight=weight) < 0.05 * loss(low + 2 * high, low + high)
    torch.testing.assert_close(
        loss(X0_HAT, X0, frequency_weight=lambda f: torch.ones(1, len(f))), loss(X0_HAT, X0), rtol=0, atol=0
    )


def test_bands_show_where_the_error_is():
    t = torch.arange(4000)
    low, high = (torch.sin(2 * torch.pi * f * t)[None, None] for f in (0.05, 0.4))
    bands = losses.MultiResolutionSTFT().by_band(low, low + high)
    assert len(bands) == 8
    assert max(bands, key=lambda name: float(bands[name])) == "0.375-0.4375"


def test_it_is_a_term_like_the_others():
    regularizer = specreg.SpectralRegularizer("mr_stft", weight=0.5, band_weight="wiener", by_band=True)
    x0_hat = X0_HAT.clone().requires_grad_()
    term = regularizer(x0_hat, X0, specreg.NoiseLevel.ddpm(torch.tensor([0.9, 0.5, 0.1])))
    term.loss.backward()
    assert x0_hat.grad.abs().sum() > 0
    assert set(term.by_band) == set(losses.MultiResolutionSTFT().by_band(X0_HAT, X0))
    loss = losses.build("mr_stft", **SMALL)
    rebuilt = eval(repr(loss), {"MultiResolutionSTFT": losses.MultiResolutionSTFT})
    torch.testing.assert_close(rebuilt(X0_HAT, X0), loss(X0_HAT, X0), rtol=0, atol=0)


def test_float32_under_autocast():
    loss = losses.build("mr_stft")
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(X0_HAT, X0)
    torch.testing.assert_close(inside, loss(X0_HAT, X0), rtol=0, atol=0)
    assert loss(X0_HAT.bfloat16(), X0).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fft_sizes": [64]}, "one number for each resolution"),
        ({"fft_sizes": [64], "hop_sizes": [0], "win_lengths": [64]}, "hop >= 1"),
        ({"fft_sizes": [64], "hop_sizes": [16], "win_lengths": [65]}, "window <= FFT size"),
        ({"convergence": 0, "log_amplitude": 0}, "nor all 0"),
        ({"reduction": "none"}, "reduction must be one of"),
        ({"fft_size": 64}, "no option 'fft_size' .did you mean 'fft_sizes'"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        losses.build("mr_stft", **options)


def test_bad_input_is_refused():
    loss = losses.build("mr_stft")
    with pytest.raises(ValueError, match="needs more than 1024 samples"):
        loss(X0[..., :1024], X0[..., :1024])
    with pytest.raises(ValueError, match="mr_stft is for sound"):
        loss(torch.zeros(1, 1, 64, 64), torch.zeros(1, 1, 64, 64))
    with pytest.raises(ValueError, match="x0 must be finite"):
        loss(X0, X0 / 0)
