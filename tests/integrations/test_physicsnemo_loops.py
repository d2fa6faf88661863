"""PhysicsNeMo's loops with the term: compiled networks and losses, patches in several passes, masked reductions."""

import pytest
import torch
from torch import nn

import specreg

metrics = pytest.importorskip("physicsnemo.diffusion.metrics")
schedulers = pytest.importorskip("physicsnemo.diffusion.noise_schedulers")
ours = pytest.importorskip("specreg.integrations.physicsnemo")


class Denoiser(nn.Module):
    def __init__(self, condition=0):
        super().__init__()
        self.conv = nn.Conv2d(3 + condition, 3, 3, padding=1)

    def forward(self, x, *rest, **named):
        inputs = [x, *(part for part in rest if part is not None and part.shape[2:] == x.shape[2:])]
        return self.conv(torch.cat(inputs, 1))


def regression(zeros, y_lr, augment_labels=None):
    return zeros + 0.25


def stepped(net, call):
    """Return loss and gradients of one step with seeded draws."""
    net.zero_grad()
    torch.manual_seed(7)
    loss = call()
    loss.sum().backward()
    return loss.detach(), [weight.grad.clone() for weight in net.parameters()]


def same(found, expected):
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-5)
    for one, other in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def families():
    """Return each family as (name, network, call of (network, loss maker's loss), loss)."""
    images, low = torch.randn(2, 3, 16, 16), torch.randn(2, 2, 16, 16)
    times = torch.tensor([0.3, 0.8])
    weight = specreg.SpectralRegularizer
    plain, residual = Denoiser(), Denoiser(2)
    edm = ours.SpectralEDMLoss(weight(weight=0.2))
    corrdiff = ours.SpectralResidualLoss(weight(weight=0.2), regression)
    yield "edm", plain, lambda net: edm, lambda loss, net: loss(net, images)
    yield "corrdiff", residual, lambda net: corrdiff, lambda loss, net: loss(net, images, low)
    scheduler = schedulers.EDMNoiseScheduler()
    yield (
        "score matching", plain,
        lambda net: ours.SpectralMSEDSMLoss(weight(weight=0.2), lambda x, t, condition=None: net(x), scheduler),
        lambda loss, net: loss(images, times),
    )  # fmt: skip


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("what", ["network", "loss"])
def test_compiled_steps_are_the_eager_ones(index, what):
    """Their training compiles the network; a loop that compiles the loss as a whole gets the same step."""
    _, net, make, call = list(families())[index]
    expected = stepped(net, lambda: call(make(net), net))
    torch._dynamo.reset()
    if what == "network":
        compiled = torch.compile(net, backend="aot_eager")
        found = stepped(net, lambda: call(make(compiled), compiled))
    else:
        step = torch.compile(lambda: call(make(net), net), backend="aot_eager")
        found = stepped(net, step)
    same(found, expected)


@pytest.mark.parametrize("what", ["network", "loss"])
def test_an_automatic_weight_is_measured_in_compiled_steps(what):
    images, net = torch.randn(2, 3, 16, 16), Denoiser()
    found = []
    for compiled in (False, True):
        torch._dynamo.reset()
        network = torch.compile(net, backend="aot_eager") if compiled and what == "network" else net
        loss_fn = ours.SpectralEDMLoss(specreg.SpectralRegularizer(weight="auto"))
        step = lambda: loss_fn(network, images)  # noqa: B023, E731
        stepped(net, torch.compile(step, backend="aot_eager") if compiled and what == "loss" else step)
        found.append((float(loss_fn.term.lam), float(loss_fn.term.gradient_ratio)))
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert found[0][1] == pytest.approx(2, rel=1e-3)


def test_a_network_that_is_compiled_stays_so_inside_the_loss():
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    counter, net = CompileCounter(), Denoiser()
    network = torch.compile(net, backend=counter)
    loss_fn = ours.SpectralEDMLoss(specreg.SpectralRegularizer(weight=0.2))
    loss_fn(network, torch.randn(2, 3, 16, 16))
    assert counter.frame_count == 1


def test_corrdiff_s_passes_over_patches_each_have_their_term():
    """`use_patch_grad_acc` keeps the regression of the first pass; each pass draws patches, noise and its own term."""
    from physicsnemo.diffusion.multi_diffusion import RandomPatching2D

    clean, low, net = torch.randn(2, 3, 16, 16), torch.randn(2, 2, 16, 16), Denoiser(4)
    regressions = []

    def counted(zeros, y_lr, augment_labels=None):
        regressions.append(1)
        return zeros + 0.25

    loss_fn = ours.SpectralResidualLoss(specreg.SpectralRegularizer("haar", weight=0.5), counted)
    base_fn = metrics.ResidualLoss(regression)
    patching = RandomPatching2D((16, 16), (8, 8), 3)
    for seed in range(2):
        patching.reset_patch_indices()
        losses = []
        for fn in (loss_fn, base_fn):
            torch.manual_seed(seed)
            losses.append(fn(net, clean, low, patching=patching, use_patch_grad_acc=True))
        share = (losses[0] - losses[1]).sum() / len(losses[0])
        torch.testing.assert_close(share, loss_fn.term.loss, rtol=1e-3, atol=1e-3)
        assert loss_fn.term.per_sample.shape == (6,)
    assert sum(regressions) == 1


def test_a_mask_over_pixels_takes_its_share_of_the_term():
    """A loop that masks the loss of each pixel and sums keeps as much of the term as of the pixels."""
    images, net = torch.randn(4, 3, 16, 16).double(), Denoiser().double()
    loss_fn = ours.SpectralEDMLoss(specreg.SpectralRegularizer("amplitude", weight=0.3))
    torch.manual_seed(7)
    loss = loss_fn(net, images)
    torch.manual_seed(7)
    plain = metrics.EDMLoss()(net, images)
    mask = torch.zeros_like(images)
    mask[..., :4] = 1
    term = ((loss - plain) * mask).sum() / 4
    torch.testing.assert_close(term, loss_fn.term.loss / 4)


@pytest.mark.parametrize("weight", ["auto", 0.3])
def test_a_loop_as_corrdiff_s_trains(weight):
    """Both networks compiled, autocast, patches in two passes, sums over pixels, and validation without gradients."""
    from physicsnemo.diffusion.multi_diffusion import RandomPatching2D

    class Regression(nn.Module):
        def forward(self, zeros, y_lr, augment_labels=None):
            return zeros + 0.25

    torch._dynamo.reset()
    net = torch.compile(Denoiser(4), backend="aot_eager")
    regularizer = specreg.SpectralRegularizer("dct:amplitude", weight=weight, warmup=10)
    loss_fn = ours.SpectralResidualLoss(regularizer, torch.compile(Regression(), backend="aot_eager"))
    patching = RandomPatching2D((16, 16), (8, 8), 3)
    clean, low = torch.randn(2, 3, 16, 16), torch.randn(2, 2, 16, 16)
    calls = {"net": net, "img_clean": clean, "img_lr": low, "augment_pipe": None, "patching": patching}
    loss_fn.y_mean = None
    for count in (2, 1):
        patching.set_patch_num(count)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_fn(**calls, use_patch_grad_acc=True)
        (loss.sum() / 2).backward()
        assert loss_fn.term.per_sample.dtype == torch.float32
    assert all(bool(one.grad.isfinite().all()) for one in net.parameters())
    assert int(regularizer.calls) == 2
    with torch.no_grad():
        assert bool(loss_fn(**calls).isfinite().all())
