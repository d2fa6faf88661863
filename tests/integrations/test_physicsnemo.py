"""PhysicsNeMo's own losses with the term: its values without it, and the same step as specreg's own objective."""

import pytest
import torch
from torch import nn

import specreg

metrics = pytest.importorskip("physicsnemo.diffusion.metrics")
schedulers = pytest.importorskip("physicsnemo.diffusion.noise_schedulers")
ours = pytest.importorskip("specreg.integrations.physicsnemo")


class Denoiser(nn.Module):
    """A network with the signatures of EDM's and CorrDiff's preconditioned ones."""

    def __init__(self, condition=0):
        super().__init__()
        self.conv = nn.Conv2d(3 + condition, 3, 3, padding=1)

    def forward(self, x, *rest, **named):
        inputs = [x, *(part for part in rest if part is not None and part.shape[2:] == x.shape[2:])]
        return self.conv(torch.cat(inputs, 1))


def drawn(call):
    torch.manual_seed(7)
    return call()


@pytest.mark.parametrize("name", ["EDMLoss", "EDMLossLogUniform"])
def test_sums_over_pixels_get_the_term_of_the_same_sample(name):
    images, net = torch.randn(4, 3, 16, 16).double(), Denoiser().double()
    plain = drawn(lambda: getattr(metrics, name)()(net, images))
    regularizer = specreg.SpectralRegularizer("amplitude", weight=0.3)
    loss_fn = getattr(ours, f"Spectral{name}")(regularizer)
    loss = drawn(lambda: loss_fn(net, images))
    torch.testing.assert_close((loss - plain).sum() / 4, loss_fn.term.loss)
    without = getattr(ours, f"Spectral{name}")(specreg.SpectralRegularizer(weight=0.0))
    assert torch.equal(drawn(lambda: without(net, images)), plain)


def test_the_term_compares_the_augmented_image_at_its_sigma():
    images, net = torch.randn(2, 3, 8, 8), Denoiser()
    seen = []
    watched = net.register_forward_hook(lambda module, given, output: seen.append((given, output)))
    loss_fn = ours.SpectralEDMLoss(specreg.SpectralRegularizer("amplitude", weight=1.0))
    loss_fn(net, images, augment_pipe=lambda x: (x.flip(-1), None))
    watched.remove()
    (x_t, sigma, _), x0_hat = seen[0]
    specreg.check_wiring(images.flip(-1), x_t, images.flip(-1), specreg.NoiseLevel.edm(sigma), prediction="x0")
    expected = specreg.SpectralRegularizer("amplitude", weight=1.0)(
        x0_hat, images.flip(-1), specreg.NoiseLevel.edm(sigma)
    )
    torch.testing.assert_close(loss_fn.term.loss, expected.loss)


def test_corrdiff_s_residual_in_patches_is_what_the_term_sees():
    from physicsnemo.diffusion.multi_diffusion import RandomPatching2D

    clean, low = torch.randn(2, 3, 16, 16), torch.randn(2, 2, 16, 16)
    regression = lambda zeros, y_lr, augment_labels=None: zeros + 0.25  # noqa: E731
    for patching, condition in ((None, 2), (RandomPatching2D((16, 16), (8, 8), 3), 4)):
        net = Denoiser(condition)
        call = lambda loss_fn: drawn(lambda: loss_fn(net, clean, low, patching=patching))  # noqa: B023, E731
        plain = call(metrics.ResidualLoss(regression))
        loss_fn = ours.SpectralResidualLoss(specreg.SpectralRegularizer("haar", weight=0.5), regression)
        loss = call(loss_fn)
        torch.testing.assert_close((loss - plain).sum() / len(loss), loss_fn.term.loss, rtol=1e-3, atol=1e-3)
        count = 2 if patching is None else 6
        assert loss_fn.term.per_sample.shape == (count,)


@pytest.mark.parametrize("prediction", ["x0", "epsilon", "score"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_score_matching_reduces_base_and_term_alike(prediction, reduction):
    scheduler = schedulers.VPNoiseScheduler()
    convert = {"score": {"score_to_x0_fn": scheduler.score_to_x0},
               "epsilon": {"epsilon_to_x0_fn": scheduler.epsilon_to_x0}}  # fmt: skip
    net = Denoiser()
    model = lambda x, t, condition=None: net(x)  # noqa: E731
    x0, t = torch.randn(3, 3, 8, 8), torch.tensor([0.1, 0.5, 0.9])
    options = convert.get(prediction, {})
    plain = drawn(lambda: metrics.MSEDSMLoss(model, scheduler, prediction, reduction="none", **options)(x0, t))
    regularizer = specreg.SpectralRegularizer("amplitude", weight=0.2)
    loss_fn = ours.SpectralMSEDSMLoss(regularizer, model, scheduler, prediction, reduction=reduction, **options)
    loss = drawn(lambda: loss_fn(x0, t))
    expected = plain.mean() + loss_fn.term.loss
    found = loss / plain.numel() if reduction == "sum" else loss.mean()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    x_t = drawn(lambda: scheduler.add_noise(x0, t))
    x0_hat = loss_fn._to_x0(net(x_t), x_t, t)
    level = specreg.NoiseLevel(scheduler.alpha(t), scheduler.sigma(t))
    torch.testing.assert_close(
        loss_fn.term.loss, regularizer(x0_hat, x0, level, prediction=prediction).loss, rtol=1e-4, atol=1e-5
    )


def test_an_automatic_weight_holds_its_ratio_beside_every_reduction():
    scheduler, net = schedulers.EDMNoiseScheduler(), Denoiser()
    x0, t = torch.randn(3, 3, 8, 8), torch.tensor([0.1, 0.5, 0.9])
    lams = []
    for reduction in ("mean", "sum"):
        regularizer = specreg.SpectralRegularizer("amplitude", weight="auto")
        loss_fn = ours.SpectralMSEDSMLoss(
            regularizer, lambda x, t, condition=None: net(x), scheduler, reduction=reduction
        )
        drawn(lambda: loss_fn(x0, t))  # noqa: B023
        assert float(loss_fn.term.gradient_ratio) == pytest.approx(1, rel=1e-3)
        lams.append(float(loss_fn.term.lam))
    assert lams[0] == pytest.approx(lams[1])


def test_values_without_weight_are_not_seen():
    scheduler = schedulers.EDMNoiseScheduler()
    x0, t = torch.randn(2, 3, 8, 8), torch.tensor([0.1, 0.5])
    weight = torch.ones_like(x0)
    weight[..., 4:] = 0
    wrong = x0.clone().requires_grad_()
    model = lambda x, t, condition=None: torch.where(weight == 0, wrong + 5, wrong)  # noqa: E731
    loss_fn = ours.SpectralWeightedMSEDSMLoss(specreg.SpectralRegularizer(weight=1.0), model, scheduler)
    assert float(loss_fn(x0, weight, t)) == pytest.approx(0, abs=1e-6)
    with pytest.raises(TypeError, match="without alpha"):
        ours.SpectralMSEDSMLoss(specreg.SpectralRegularizer(), model, object())
