"""cBottle's EDM loss with the term, against a stand-in of its signature (commit in the module): it is on no index."""

import dataclasses
import importlib
import pickle
import sys
import types

import pytest
import torch

import specreg


@dataclasses.dataclass
class Output:
    total: torch.Tensor
    denoising: torch.Tensor
    sigma: torch.Tensor
    classification: torch.Tensor | None = None


class EDMLoss:
    """Draws σ, masks channels with NaN and returns the loss by pixel, as cBottle's does."""

    def __init__(self, P_mean=-1.2, P_std=1.2, sigma_data=0.5, distribution="log_normal", sigma_max=1000.0,
                 sigma_min=0.02, classifier_weight=0.1):  # fmt: skip
        self.P_mean, self.P_std, self.sigma_data = P_mean, P_std, sigma_data

    def __call__(self, net, images, classifier_labels=None):
        sigma = (torch.randn(len(images), 1, 1, 1) * self.P_std + self.P_mean).exp()
        mask = ~torch.isnan(images).any(dim=(2, 3), keepdim=True)
        weight = 1 / sigma**2 + 1 / self.sigma_data**2
        out = net(torch.where(mask, images + torch.randn_like(images) * sigma, 0), sigma)
        loss = weight * (out.out - torch.where(mask, images, 0)).square()
        loss = torch.where(mask, loss, 0) / mask.float().mean()
        return Output(total=loss, denoising=loss, sigma=sigma)


@pytest.fixture
def ours(monkeypatch):
    home = types.ModuleType("cbottle.loss")
    home.EDMLoss = EDMLoss
    monkeypatch.setitem(sys.modules, "cbottle", types.ModuleType("cbottle"))
    monkeypatch.setitem(sys.modules, home.__name__, home)
    monkeypatch.delitem(sys.modules, "specreg.integrations.cbottle", raising=False)
    yield importlib.import_module("specreg.integrations.cbottle")
    sys.modules.pop("specreg.integrations.cbottle", None)


def network(x, sigma):
    return types.SimpleNamespace(out=0.7 * x, logits=None)


def called(loss_fn, images):
    torch.manual_seed(3)
    return loss_fn(network, images)


def regularizer(**options):
    return specreg.SpectralRegularizer("dct:amplitude", **{"weight": 0.3, **options})


def test_sums_over_pixels_get_the_term_of_the_faces(ours):
    images = torch.randn(2, 3, 2, 12 * 16).double()
    plain, loss_fn = called(EDMLoss(), images), ours.SpectralEDMLoss(regularizer())
    found = called(loss_fn, images)
    torch.testing.assert_close((found.total - plain.total).sum() / 2, loss_fn.term.loss.double(), rtol=1e-5, atol=1e-6)
    assert torch.equal(found.denoising, plain.denoising)
    torch.manual_seed(3)
    sigma = (torch.randn(2, 1, 1, 1) * 1.2 - 1.2).exp()
    x0_hat = 0.7 * (images + torch.randn_like(images) * sigma)
    by_face = [
        specreg.losses.build("dct:amplitude")(a[:, :, t, i : i + 16].reshape(2, 3, 4, 4), b)
        for t in range(2) for i in range(0, 192, 16)
        for a, b in [(x0_hat, images[:, :, t, i : i + 16].reshape(2, 3, 4, 4))]
    ]  # fmt: skip
    torch.testing.assert_close(loss_fn.term.per_sample, torch.stack(by_face).mean(0))


def test_missing_channels_are_masked_and_normalized_as_theirs(ours, monkeypatch):
    images = torch.randn(2, 2, 1, 12 * 4)
    loss_fn = ours.SpectralEDMLoss(regularizer(noise_weight="constant"))
    whole = called(loss_fn, images)
    share = (whole.total - whole.denoising).sum()
    gaps = torch.cat([images, torch.full_like(images, float("nan"))], 1)
    torch.manual_seed(3)
    noise = torch.randn(2, 1, 1, 1), torch.randn_like(images)
    torch.manual_seed(3)
    monkeypatch.setattr(torch, "randn_like", lambda y: noise[1].repeat(1, 2, 1, 1))
    found = loss_fn(net=network, images=gaps)  # by keyword, as its loop does
    assert bool(found.total.isfinite().all())
    torch.testing.assert_close((found.total - found.denoising).sum(), share)


def test_an_automatic_weight_and_snapshots(ours):
    layer = torch.nn.Parameter(torch.tensor(0.7))
    loss_fn = ours.SpectralEDMLoss(regularizer(weight="auto"))
    loss = loss_fn(lambda x, sigma: types.SimpleNamespace(out=layer * x, logits=None), torch.randn(2, 3, 1, 48))
    loss.total.sum().backward()
    assert float(loss_fn.term.gradient_ratio) == pytest.approx(1, rel=1e-3)
    assert layer.grad.isfinite()
    assert loss_fn.__getstate__()["term"] is None
    assert pickle.loads(pickle.dumps(loss_fn.regularizer)) is not None


def test_no_healpix_grid_is_said(ours):
    with pytest.raises(ValueError, match=r"twelve square faces; got \[1, 1, 1, 50\]"):
        ours.faces(torch.zeros(1, 1, 1, 50))
