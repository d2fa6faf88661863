import pytest
import torch

from specreg import losses

X0_HAT, X0 = torch.randn(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("amplitude", {"reduction": "sum"}, lambda: losses.amplitude(X0_HAT, X0, reduction="sum")),
        (
            "amplitude_phase",
            {"coupling": "norm"},
            lambda: losses.amplitude_phase(X0_HAT, X0, coupling="norm"),
        ),
        ("haar", {}, lambda: losses.wavelet(X0_HAT, X0, wavelet="haar")),
        ("bior1.3", {"levels": 2}, lambda: losses.wavelet(X0_HAT, X0, wavelet="bior1.3", levels=2)),
        ("wavelet:db2", {"mode": "zero"}, lambda: losses.wavelet(X0_HAT, X0, wavelet="db2", mode="zero")),
        ("sym4", {}, lambda: losses.wavelet(X0_HAT, X0, wavelet="sym4")),
    ],
)
def test_names_build_the_functions(name, options, expected):
    torch.testing.assert_close(losses.build(name, **options)(X0_HAT, X0), expected(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("amplitud", {}, "did you mean 'amplitude'"),
        ("wavelet:bior1.33", {}, "did you mean 'bior1.3"),
        ("haar", {"level": 2}, "no option 'level' .did you mean 'levels'"),
        ("amplitude", {"coupling": "norm"}, "no option 'coupling'"),
        ("amplitude_phase", {"coupling": "product"}, "coupling must be one of"),
        ("haar", {"levels": 0}, "levels must be a whole number of at least 1"),
        ("haar", {"levels": "three"}, "levels must be a whole number of at least 1.*'three'"),
        ("haar", {"band_weights": [1.0, float("nan")]}, "band_weights must be finite numbers"),
        ("haar", {"mode": "mirror"}, "mode must be one of"),
        ("amplitude", {"ndim": "two"}, "ndim must be 1, 2 or 3.*'two'"),
        ("amplitude_phase", {"ndim": True}, "ndim must be 1, 2 or 3.*True"),
        ("haar", {"ndim": [2]}, r"ndim must be 1, 2 or 3.*\[2\]"),
        ("amplitude", {"layout": 5}, "layout must be a string.*got 5"),
        ("haar", {"wavelet": 5}, "wavelet must be a name.*got 5"),
        ("haar", {"levels": True}, "levels must be a whole number.*True"),
        ("haar", {"band_weights": 5}, "band_weights must be one number a level, or numbers by band.*got 5"),
        ("haar", {"band_weights": "1dd"}, "band_weights must be one number a level.*'1dd'"),
        ("haar", {"band_weights": {1: 1.0}}, "band_weights must be one number a level.*1: 1.0"),
        ("haar", {"band_weights": {"1dd": "x"}}, "band_weights must be finite numbers.*'x'"),
        ("mr_stft", {"fft_sizes": 512}, "fft_sizes must be whole numbers, one for each resolution; got 512"),
        ("mr_stft", {"hop_sizes": ["a"]}, r"hop_sizes must be whole numbers.*\['a'\]"),
        ("mr_stft", {"convergence": "much"}, "convergence must be a number; got 'much'"),
    ],
)
def test_unknown_names_and_options_are_refused_with_the_nearest(name, options, words):
    with pytest.raises(ValueError, match=words):
        losses.build(name, **options)


def test_repr_reads_as_the_constructor_call():
    loss = losses.Wavelet("bior1.3", levels=3)
    rebuilt = eval(repr(loss), {"Wavelet": losses.Wavelet})
    assert repr(rebuilt) == repr(loss)
    assert "wavelet='bior1.3', levels=3" in repr(loss)


def test_amplitude_bands_add_up_to_the_loss():
    bands = losses.Amplitude().by_band(X0_HAT, X0)
    assert len(bands) == 8
    from specreg.transforms import fourier
    from specreg.transforms.radial import band_index

    weights = fourier.bin_weights(16, dtype=torch.float64).expand(16, -1).flatten()
    counts = torch.zeros(8, dtype=torch.float64).index_add_(0, band_index((16, 16), 8).flatten(), weights)
    total = (torch.stack(list(bands.values()), 1).double() * counts).sum(1) / counts.sum()
    torch.testing.assert_close(total.float(), losses.amplitude(X0_HAT, X0), rtol=1e-5, atol=0)


def test_bands_show_where_the_error_is():
    n = torch.arange(16)
    stripes = (1 - 2 * (n % 2)).float().expand(1, 1, 16, 16)  # Nyquist along one axis
    bands = losses.AmplitudePhase().by_band(torch.zeros_like(stripes), stripes)
    assert max(bands, key=lambda name: float(bands[name])) == "0.4375-0.5"
    haar = losses.Wavelet(levels=2).by_band(torch.zeros_like(stripes), stripes)
    assert max(haar, key=lambda name: float(haar[name])) == "1ad"
    assert set(haar) == {"1ad", "1da", "1dd", "2ad", "2da", "2dd", "2aa"}
