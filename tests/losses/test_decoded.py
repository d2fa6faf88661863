"""The loss on decoded latents against the loss of the decoded pixels, with a real autoencoder's decoder."""

import itertools

import diffusers
import pytest
import torch

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

import specreg
from specreg import losses

VAE = diffusers.AutoencoderKL(
    block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    latent_channels=4, norm_num_groups=4, layers_per_block=1,
).requires_grad_(False).eval()  # fmt: skip


def decode(z):
    return VAE.decode(z / 0.18215).sample


def latents(side=8):
    g = torch.Generator().manual_seed(0)
    return (torch.randn(2, 4, side, side, generator=g) for _ in range(2))


@pytest.mark.parametrize("recompute", [True, False])
def test_value_and_gradient_are_those_of_the_decoded_pixels(recompute):
    x0_hat, x0 = latents()
    ours = x0_hat.clone().requires_grad_()
    losses.Decoded(decode, "amplitude", recompute=recompute)(ours, x0).sum().backward()
    theirs = x0_hat.clone().requires_grad_()
    expected = losses.amplitude(decode(theirs), decode(x0))
    expected.sum().backward()
    torch.testing.assert_close(losses.Decoded(decode, "amplitude")(x0_hat, x0), expected)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_crop_is_decoded_alone_at_one_place_for_the_batch():
    x0_hat, x0 = latents(12)
    places = {}
    for top in range(9):
        for left in range(9):
            window = (..., slice(top, top + 4), slice(left, left + 4))
            places[top, left] = losses.amplitude(decode(x0_hat[window]), decode(x0[window]))
    found = losses.Decoded(decode, "amplitude", crop=4)(x0_hat, x0)
    assert sum(torch.allclose(found, value, rtol=1e-4) for value in places.values()) == 1


def test_every_nth_call_is_decoded_and_lambda_is_measured_there():
    x0_hat, x0 = latents()
    reg = specreg.SpectralRegularizer(losses.Decoded(decode, "haar", every=3), weight="auto")
    level, found = specreg.NoiseLevel.flow(torch.tensor([0.3, 0.6])), []
    for _ in range(6):
        output = x0_hat.clone().requires_grad_()
        term = reg(output, x0, level, base_loss=(output - x0).square().mean(), output=output)
        (gradient,) = torch.autograd.grad(term.loss, output)
        found.append(bool(gradient.abs().max() > 0))
    assert found == [True, False, False, True, False, False]
    assert int(reg.weight.skipped) == 4


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("weight", ["auto", 0.5])
def test_the_parts_of_a_batch_are_one_call(parts, weight):
    """Measured and trained on in the same step, or a term would be measured that is never trained on."""
    x0_hat, x0 = latents()
    reg = specreg.SpectralRegularizer(losses.Decoded(decode, "haar", every=2), weight=weight)
    level, measured, found = specreg.NoiseLevel.flow(torch.tensor([0.3, 0.6])), [], []
    for _ in range(4):
        norms = []
        with reg.held():
            for _ in range(parts if weight == "auto" else 0):
                output = x0_hat.clone().requires_grad_()
                norms.append(reg(output, x0, level, base_loss=(output - x0).square().mean(), output=output).norms)
        measured.append(all(norm[1] > 0 for norm in norms))
        reg.advance(torch.stack(norms) if norms else None)
        with reg.held():
            found.append([float(reg(x0_hat.clone().requires_grad_(), x0, level).loss) > 0 for _ in range(parts)])
    assert found == [[True] * parts, [False] * parts] * 2
    assert weight != "auto" or measured == [True, False, True, False]


def test_state_dicts_do_not_have_the_decoder():
    assert set(losses.Decoded(VAE.decoder, "amplitude").state_dict()) == {"calls"}
    reg = specreg.SpectralRegularizer(losses.Decoded(VAE.decoder), weight=1.0)
    assert set(reg.state_dict()) == {"calls", "spectral_loss.calls"}
    assert not torch.nn.ModuleList([reg]).state_dict()


def test_resuming_goes_on_with_the_next_call():
    x0_hat, x0 = latents()
    level, found = specreg.NoiseLevel.flow(torch.tensor([0.3, 0.6])), []
    reg = specreg.SpectralRegularizer(losses.Decoded(decode, "haar", every=3), weight=0.5)
    for _ in range(4):
        again = specreg.SpectralRegularizer(losses.Decoded(decode, "haar", every=3), weight=0.5)
        again.load_state_dict(reg.state_dict())
        reg = again
        found.append(float(reg(x0_hat.clone().requires_grad_(), x0, level).loss) > 0)
    assert found == [True, False, False, True]


def test_crops_are_all_over_the_latents():
    x = torch.zeros(1, 1, 9, 9).index_put_((torch.tensor(0), torch.tensor(0)), torch.arange(81.0).reshape(9, 9))
    seen, loss = [], losses.Decoded(lambda z: seen.append(int(z[0, 0, 0, 0])) or z, "haar", crop=2, recompute=False)
    for _ in range(640):
        loss(x, x)
    counts = torch.bincount(torch.tensor(seen[::2]), minlength=81).reshape(9, 9)[:8, :8].double()
    assert counts.sum() == 640
    assert 30 < float((counts - 10).square().sum() / 10) < 104  # chi², 63 degrees of freedom: 99.8% of draws


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_decoder_in_half_precision_is_given_its_dtype(dtype):
    decoder = torch.nn.Conv2d(4, 3, 1).to(dtype).requires_grad_(False)
    x0_hat, x0 = latents()
    level = specreg.NoiseLevel.flow(torch.tensor([0.3, 0.6]))
    reg = specreg.SpectralRegularizer(losses.Decoded(decoder, "amplitude", dtype=dtype), weight="auto")
    output = x0_hat.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        term = reg.from_output(output, x0, level, prediction="x0", x0=x0)
    expected = losses.amplitude(decoder(x0_hat.to(dtype)).float(), decoder(x0.to(dtype)).float())
    torch.testing.assert_close(term.per_sample, expected)
    term.loss.backward()
    assert output.grad.dtype == torch.float32
    assert bool(output.grad.isfinite().all())


def test_refusals():
    x0_hat, x0 = latents()
    with pytest.raises(TypeError, match=r"must return a tensor; got DecoderOutput \(of diffusers"):
        losses.Decoded(VAE.decode)(x0_hat, x0)
    with pytest.raises(ValueError, match=r"at most the size of the latents, \[8, 8\]; got 9"):
        losses.Decoded(decode, crop=9)(x0_hat, x0)
    for options in ({"crop": 0}, {"every": 0}, {"every": True}):
        with pytest.raises(ValueError, match="must be a whole number of at least 1"):
            losses.Decoded(decode, **options)
    with pytest.raises(TypeError, match="decode must be a function"):
        losses.Decoded("vae")


# --- properties, with a linear decoder whose losses are known ------------------------------------------------------


def upsampled(z, matrix):
    """Mix channels `[B, C, *space]` by a matrix and repeat every value twice along each axis: 3 to 2 channels."""
    x = torch.einsum("oc,bc...->bo...", matrix.to(z), z)
    for axis in range(2, x.ndim):
        x = x.repeat_interleave(2, axis)
    return x


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    space=st.lists(st.integers(1, 12), min_size=1, max_size=3), batch=st.integers(1, 3), seed=st.integers(0, 2**32),
    name=st.sampled_from(["amplitude", "haar", "dct:log_power"]), recompute=st.booleans(), half=st.booleans(),
)  # fmt: skip
def test_linear_decoders_at_any_shape(space, batch, seed, name, recompute, half):
    g = torch.Generator().manual_seed(seed)
    matrix = torch.randn(2, 3, generator=g)
    dtype = torch.bfloat16 if half else torch.float32
    x0_hat, x0 = (torch.randn(batch, 3, *space, generator=g).to(dtype) for _ in range(2))
    at, same = x0_hat.clone().requires_grad_(), x0_hat.clone().requires_grad_()
    value = losses.Decoded(lambda z: upsampled(z, matrix), name, recompute=recompute)(at, x0)
    expected = losses.build(name)(upsampled(same, matrix).float(), upsampled(x0, matrix).float())
    torch.testing.assert_close(value, expected)
    for loss in (value, expected):
        loss.sum().backward()
    torch.testing.assert_close(at.grad, same.grad)
    assert x0.grad is None


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    space=st.lists(st.integers(2, 10), min_size=1, max_size=2), crop=st.integers(1, 10), seed=st.integers(0, 2**32)
)  # fmt: skip
def test_a_crop_is_one_of_its_places_and_depends_on_the_calls_alone(space, crop, seed):
    g = torch.Generator().manual_seed(seed)
    matrix = torch.randn(2, 3, generator=g)
    x0_hat, x0 = (torch.randn(2, 3, *space, generator=g) for _ in range(2))
    loss = losses.Decoded(lambda z: upsampled(z, matrix), "amplitude", crop=crop)
    loss.calls += seed % 1000
    if crop > min(space):
        with pytest.raises(ValueError, match="crop must be at most the size of the latents"):
            loss(x0_hat, x0)
        return
    before = torch.get_rng_state()
    with torch.no_grad():
        found = loss(x0_hat, x0)
    torch.testing.assert_close(loss(x0_hat, x0), found)
    assert torch.equal(torch.get_rng_state(), before)
    places = itertools.product(*(range(n - crop + 1) for n in space))
    windows = [(..., *(slice(start, start + crop) for start in place)) for place in places]
    each = [losses.amplitude(upsampled(x0_hat[w], matrix), upsampled(x0[w], matrix)) for w in windows]
    assert any(torch.allclose(found, value, rtol=1e-5, atol=1e-6) for value in each)


@settings(deadline=None, derandomize=True, max_examples=20)
@given(every=st.integers(1, 5), calls=st.lists(st.booleans(), min_size=1, max_size=12))
def test_calls_count_while_gradients_are_on_and_the_others_decode(every, calls):
    x = torch.randn(1, 3, 4, 4)
    loss, counted = losses.Decoded(lambda z: upsampled(z, torch.eye(2, 3)), "haar", every=every), 0
    for learning in calls:
        with torch.set_grad_enabled(learning):
            value = loss(2 * x, x)
        assert bool(value > 0) == (not learning or counted % every == 0)
        counted += learning
