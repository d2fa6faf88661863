"""Tensors in other orders of axes, against NumPy and PyWavelets."""

import re
import warnings

import numpy as np
import pytest
import pywt
import torch

import specreg
from specreg import _checks, losses

G = torch.Generator().manual_seed(0)
VIDEO_HAT, VIDEO = torch.randn(2, 2, 5, 3, 8, 6, generator=G, dtype=torch.float64)  # [B, T, C, H, W]
TOKENS_HAT, TOKENS = torch.randn(2, 3, 16, 5, generator=G, dtype=torch.float64)  # [B, L, C]
LEVEL = specreg.NoiseLevel.edm(torch.tensor([0.3, 1.0]))


def amplitude(x0_hat, x0, axes):
    """Mean |A − Â| of one sample over the axes of space and all others, by NumPy's full transform."""
    spectra = (np.abs(np.fft.fftn(x.numpy(), axes=axes, norm="ortho")) for x in (x0_hat, x0))
    return np.abs(np.subtract(*spectra)).mean()


def test_video_frame_by_frame_is_the_mean_over_frames():
    expected = [np.mean([amplitude(VIDEO_HAT[b, t], VIDEO[b, t], (-2, -1)) for t in range(5)]) for b in range(2)]
    found = losses.amplitude(VIDEO_HAT, VIDEO, layout="btchw", ndim=2)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_video_is_transformed_over_time_too_by_default():
    expected = [amplitude(VIDEO_HAT[b], VIDEO[b], (0, 2, 3)) for b in range(2)]
    np.testing.assert_allclose(losses.amplitude(VIDEO_HAT, VIDEO, layout="btchw"), expected, rtol=1e-12)


def test_tokens_are_transformed_along_their_length():
    expected = [amplitude(TOKENS_HAT[b], TOKENS[b], (0,)) for b in range(3)]
    np.testing.assert_allclose(losses.amplitude(TOKENS_HAT, TOKENS, layout="blc"), expected, rtol=1e-12)
    coefficients = [np.concatenate(pywt.wavedec(d, "db2", "periodization", level=2, axis=1), axis=1)
                    for d in [(TOKENS_HAT - TOKENS).numpy()]]  # fmt: skip
    found = losses.wavelet(TOKENS_HAT, TOKENS, wavelet="db2", levels=2, layout="blc")
    np.testing.assert_allclose(found, np.abs(coefficients[0]).mean((1, 2)), rtol=1e-12)


@pytest.mark.parametrize("layout", ["bhw", "hbw", "bhwc", "hwcb", "wbh"])
def test_images_in_any_order_are_the_same_images(layout):
    x0_hat, x0 = torch.randn(2, 3, 2 if "c" in layout else 1, 8, 6, generator=G, dtype=torch.float64)
    order = ["bchw".index(letter) for letter in layout]
    if layout.index("w") < layout.index("h"):
        x0_hat, x0 = x0_hat.mT, x0.mT  # spatial axes keep the order that they have in the tensor
        order = ["bcwh".index(letter) for letter in layout]
    moved = [x.permute(*order, *([] if "c" in layout else [1])).reshape([x.shape[k] for k in order])
             for x in (x0_hat, x0)]  # fmt: skip
    for name in ("amplitude", "amplitude_phase", "haar", "bior1.3"):
        torch.testing.assert_close(losses.build(name, layout=layout)(*moved), losses.build(name)(x0_hat, x0))


@pytest.mark.parametrize("name", ["amplitude", "amplitude_phase", "haar"])
@pytest.mark.parametrize("where", ["loss", "regularizer"])
def test_the_term_and_its_gradient_are_those_of_the_usual_order(name, where):
    options = {"weight": 0.3, "band_weight": "wiener", "by_band": True}
    usual = specreg.SpectralRegularizer(losses.build(name, ndim=2), **options)
    if where == "loss":
        other = specreg.SpectralRegularizer(losses.build(name, ndim=2, layout="btchw"), **options)
    else:
        other = specreg.SpectralRegularizer(losses.build(name, ndim=2), layout="btchw", **options)
    x, y = VIDEO_HAT.clone().requires_grad_(), VIDEO_HAT.clone().requires_grad_()
    expected = usual(x.transpose(1, 2), VIDEO.transpose(1, 2), LEVEL)
    found = other(y, VIDEO, LEVEL)
    torch.testing.assert_close(found.logs(), expected.logs())
    expected.loss.backward()
    found.loss.backward()
    torch.testing.assert_close(y.grad, x.grad)


def test_sound_with_channels_last():
    x0_hat, x0 = torch.randn(2, 2, 3, 4000, generator=G)
    found = losses.build("mr_stft", layout="btc")(x0_hat.mT, x0.mT)
    torch.testing.assert_close(found, losses.build("mr_stft")(x0_hat, x0))


@pytest.mark.parametrize("layout", ["bchwt2", "chw", "bc", "bcthwd", "bbhw", "bxyz", ""])
def test_layouts_that_are_none_are_refused(layout):
    for make in (lambda: losses.build("haar", layout=layout), lambda: specreg.SpectralRegularizer(layout=layout)):
        with pytest.raises(ValueError, match=re.escape(f"got {layout!r}")):
            make()


def test_layouts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"layout 'bchw' names 4 axes; x0 has 5: \[2, 5, 3, 8, 6\]"):
        losses.amplitude(VIDEO_HAT, VIDEO, layout="bchw")
    with pytest.raises(ValueError, match=r"layout belongs to the loss or to the regularizer, not both"):
        specreg.SpectralRegularizer(losses.Amplitude(layout="bhwc"), layout="bhwc")


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2, 5, 3, 8, 6), r'read as \[B, C, T, H, W\]; video \[B, T, C, H, W\] is layout="btchw"'),
        ((3, 16, 5), r'read as \[B, C, T\]; tokens \[B, L, C\] are layout="blc"'),
        ((2, 8, 8), r'read as \[B, C, T\].* images \[B, H, W\] layout="bhw"'),
        ((2, 8, 9, 3), r'read as \[B, C, H, W\]; images \[B, H, W, C\] are layout="bhwc"'),
    ],
)
def test_shapes_that_look_like_another_order_warn_once(shape, words, monkeypatch):
    monkeypatch.setattr(_checks, "_WARNED", set())
    x = torch.zeros(shape)
    with pytest.warns(UserWarning, match=words) as caught:
        [losses.amplitude(x, x) for _ in range(2)]
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 5, 3, 8, 6), {"layout": "bcthw"}),
        ((2, 5, 3, 8, 6), {"ndim": 2}),
        ((3, 16, 5), {"layout": "bct"}),
        ((1, 4, 16, 64, 64), {}),
        ((2, 1, 4, 6, 5), {}),
        ((2, 2, 1000), {}),
        ((2, 3, 64, 64), {}),
        ((2, 512, 4, 4), {}),
        ((2, 1000), {}),
    ],
)
def test_other_shapes_do_not_warn(shape, options, monkeypatch):
    monkeypatch.setattr(_checks, "_WARNED", set())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses.amplitude(torch.zeros(shape), torch.zeros(shape), **options)
