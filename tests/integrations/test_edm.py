"""The loss class for EDM's loops against specreg's own objective, in a loop that reduces as theirs do."""

import copy
import pickle

import pytest
import torch
from torch import nn

import specreg
from specreg import objectives
from specreg.integrations.edm import SpectralLoss, SpectralLoss2


class Denoiser(nn.Module):
    """A denoiser with the signature of edm's networks: σ is [B, 1, 1, 1] or [B]."""

    def __init__(self, logvar=False):
        super().__init__()
        self.conv, self.logvar = nn.Conv2d(3, 3, 3, padding=1), logvar

    def forward(self, x, sigma, class_labels=None, *, augment_labels=None, return_logvar=False):
        sigma = sigma.reshape(-1, 1, 1, 1)
        out = self.conv(x / (sigma**2 + 0.25).sqrt())
        return (out, 0.1 * sigma.log()) if return_logvar else out


def step(loss_fn, net, images, augment_pipe=None, scale=1.0):
    """One pass as in both loops: the sum over everything, over the batch size."""
    loss = loss_fn(
        net=net, images=images, labels=None, **({} if augment_pipe is None else {"augment_pipe": augment_pipe})
    )
    loss.sum().mul(scale / len(images)).backward()
    return loss


@pytest.mark.parametrize("weight", [0.3, "auto"])
def test_the_loop_minimizes_the_objective_of_specreg(weight):
    images, net = torch.randn(4, 3, 16, 16).clamp(-1, 1), Denoiser()
    loss_fn = SpectralLoss(loss="amplitude", weight=weight)
    torch.manual_seed(3)
    loss = step(loss_fn, net, images)
    gradients = [p.grad.clone() for p in net.parameters()]
    torch.manual_seed(3)  # the same σ and noise, in the order of the class
    sigma = (torch.randn(4) * 1.2 - 1.2).exp()
    noise = torch.randn_like(images)
    objective = objectives.denoiser(regularizer=specreg.SpectralRegularizer("amplitude", weight=weight))
    twin = copy.deepcopy(net)
    twin.zero_grad()
    terms = objective(twin, images, sigma, noise)
    terms.loss.backward()
    assert float(loss.sum() / 4) == pytest.approx(float(terms.loss), rel=1e-4)
    for ours, theirs in zip(gradients, twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.grad, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(loss_fn.term.loss, terms.spectral.loss, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [SpectralLoss, SpectralLoss2])
@pytest.mark.parametrize("what", ["network", "loss"])
def test_compiled_steps_are_the_eager_ones(kind, what):
    images, net = torch.randn(4, 3, 16, 16).clamp(-1, 1), Denoiser(logvar=kind is SpectralLoss2)
    found = []
    for compiled in (False, True):
        torch._dynamo.reset()
        loss_fn = kind()
        network = torch.compile(net, backend="aot_eager") if compiled and what == "network" else net
        call = torch.compile(loss_fn, backend="aot_eager") if compiled and what == "loss" else loss_fn
        net.zero_grad()
        torch.manual_seed(3)
        step(call, network, images)
        found.append((loss_fn.term.lam, loss_fn.term.gradient_ratio, *(p.grad for p in net.parameters())))
    for ours, eager in zip(*found, strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-4)


def test_without_weight_it_is_edm_s_loss():
    images, net = torch.randn(2, 3, 8, 8), Denoiser()
    torch.manual_seed(0)
    loss = SpectralLoss(weight=0.0)(net, images)
    torch.manual_seed(0)
    sigma = (torch.randn(2) * 1.2 - 1.2).exp().reshape(-1, 1, 1, 1)
    x_t = images + sigma * torch.randn_like(images)
    expected = (sigma**2 + 0.25) / (sigma * 0.5) ** 2 * (net(x_t, sigma) - images) ** 2
    torch.testing.assert_close(loss, expected)


def test_augmented_images_are_their_own_target():
    images = torch.randn(2, 3, 8, 8)
    seen = []

    def net(x, sigma, labels, augment_labels=None):
        seen.append(augment_labels)
        return images.flip(-1)

    loss = SpectralLoss(weight=1.0)(net, images, augment_pipe=lambda x: (x.flip(-1), torch.ones(2, 9)))
    assert float(loss.abs().max()) == 0
    assert seen[0].shape == (2, 9)


def test_edm2_s_uncertainty_divides_the_base_loss_alone():
    images, net = torch.randn(3, 4, 8, 8), nn.Module()
    net.forward = lambda x, sigma, labels, return_logvar: (0.5 * x.requires_grad_(), torch.full((3, 1, 1, 1), 2.0))
    torch.manual_seed(1)
    loss = SpectralLoss2(loss="haar", weight=0.7)(net, images)
    torch.manual_seed(1)
    sigma = (torch.randn(3) - 0.4).exp()
    x0_hat = 0.5 * (images + sigma.reshape(-1, 1, 1, 1) * torch.randn_like(images))
    edm = ((sigma**2 + 0.25) / (sigma * 0.5) ** 2).reshape(-1, 1, 1, 1)
    base = edm / torch.e**2 * (x0_hat - images) ** 2 + 2
    term = specreg.SpectralRegularizer("haar", weight=0.7)(x0_hat, images, specreg.NoiseLevel.edm(sigma))
    assert float(loss.sum() / 3) == pytest.approx(float(base.sum() / 3 + term.loss), rel=1e-5)


def test_snapshots_pickle_the_loss_with_its_state():
    loss_fn, net = SpectralLoss(), Denoiser()
    step(loss_fn, net, torch.randn(2, 3, 8, 8))
    again = pickle.loads(pickle.dumps(loss_fn))
    assert torch.equal(again.regularizer.weight.value, loss_fn.regularizer.weight.value)
    assert float(again.regularizer.weight.value) > 0
    assert again.term is None


def test_what_a_config_can_say_of_lambda():
    """Options of the loops are JSON."""
    assert SpectralLoss(weight="auto:0.5").regularizer.weight.ratio == 0.5
    assert SpectralLoss(weight="edm").regularizer.noise_weight == specreg.noise_weights.EDMWeight()


def test_a_loss_can_be_copied_after_a_step():
    """Snapshots are copies of the loop's objects."""
    loss_fn, net = SpectralLoss(weight="auto"), Denoiser()
    loss_fn(net, torch.randn(2, 3, 8, 8))
    assert copy.deepcopy(loss_fn).term is None


def test_the_scaling_of_the_loop_is_not_doubled():
    """fp16 loops multiply the loss: λ is measured before, so the ratio of the gradients is as asked."""
    loss_fn, net = SpectralLoss(weight="auto"), Denoiser()
    step(loss_fn, net, torch.randn(2, 3, 16, 16), scale=1024.0)
    assert float(loss_fn.term.gradient_ratio) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_the_base_loss_is_kept_apart(weight):
    """What the loop reports as Loss/loss has the term in it; `base` is EDM's own loss of the same draw."""
    images, net = torch.randn(2, 3, 8, 8), Denoiser()
    found = {}
    for weighted in (0.0, weight):
        torch.manual_seed(0)
        loss_fn = SpectralLoss(weight=weighted)
        found[weighted] = loss_fn(net, images), loss_fn.base
    torch.testing.assert_close(found[weight][1], found[0.0][0].detach())
    assert found[weight][1].grad_fn is None
    assert pickle.loads(pickle.dumps(loss_fn)).base is None


@pytest.mark.parametrize("loss_fn", [SpectralLoss(), SpectralLoss2()])
def test_images_before_the_loop_s_scaling_are_refused(loss_fn):
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(TypeError, match=r"images must be floats in \[-1, 1\], as the loops pass them; got torch.uint8"):
        loss_fn(Denoiser(), images)
