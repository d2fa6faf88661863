"""makani's losses with the term, against stand-ins of its signatures (commits in the module): it is on no index."""

import importlib
import sys
import types

import pytest
import torch
from torch import nn

import specreg

KEYS = ("img_shape", "crop_shape", "crop_offset", "channel_names", "grid_type", "spatial_distributed")


class LossType:
    Deterministic = 1
    Probabilistic = 2


class GeometricBaseLoss(nn.Module):
    def __init__(self, img_shape, crop_shape, crop_offset, channel_names, grid_type, spatial_distributed=False):
        super().__init__()
        self.channel_names, self.spatial_distributed = channel_names, spatial_distributed

    @property
    def n_channels(self):
        return len(self.channel_names)

    def compute_channel_weighting(self, kind, time_diff_scale=None):
        return torch.ones(self.n_channels) / self.n_channels


class L2(GeometricBaseLoss):
    type = LossType.Deterministic

    def __init__(self, **options):
        super().__init__(**{key: options[key] for key in KEYS})

    def forward(self, prd, tar, wgt=None, **kwargs):
        return (prd - tar).square().mean((-2, -1))


class LossHandler(nn.Module):
    """Builds, calls and sums losses as makani's handler does."""

    def __init__(self, losses, shape=(6, 8), crop=(6, 8)):
        super().__init__()
        self.loss_fn, weights = nn.ModuleList([]), []
        for loss in losses:
            made = self._parse_loss_type(loss["type"])(
                img_shape=shape, crop_shape=crop, crop_offset=(0, 0), channel_names=["u", "v"], pole_mask=0, bias=None,
                scale=None, grid_type="equiangular", spatial_distributed=False, ensemble_distributed=False,
                **loss.get("parameters", {}),
            )  # fmt: skip
            self.loss_fn.append(made)
            chw = made.compute_channel_weighting("constant").reshape(1, -1)
            weights.append(chw * loss.get("relative_weight", 1.0))
        self.weights = torch.cat(weights, 1)

    def _parse_loss_type(self, loss_type):
        if loss_type not in {"l2"}:
            raise NotImplementedError(loss_type)
        return L2

    def forward(self, prd, tar, wgt=None):
        prdm = prd.mean(1) if prd.dim() == 5 else prd
        step = {"lead_time_step": None, "training_progress": None, "n_future": 0}
        vals = [fn(prdm if fn.type == LossType.Deterministic else prd, tar, wgt, **step) for fn in self.loss_fn]
        return (self.weights * torch.cat(vals, -1)).sum(1).mean(0)


@pytest.fixture
def ours(monkeypatch):
    base = types.ModuleType("makani.utils.losses.base_loss")
    base.GeometricBaseLoss, base.LossType = GeometricBaseLoss, LossType
    for name in ("makani", "makani.utils", "makani.utils.losses"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, base.__name__, base)
    monkeypatch.delitem(sys.modules, "specreg.integrations.makani", raising=False)
    yield importlib.import_module("specreg.integrations.makani")
    sys.modules.pop("specreg.integrations.makani", None)


def both(**parameters):
    return [{"type": "l2"}, {"type": "specreg", "relative_weight": 0.25, "parameters": parameters}]


def test_the_handler_adds_the_term_by_channel(ours):
    prd, tar = torch.randn(2, 3, 2, 6, 8).unbind(0)
    handler = ours.with_term(LossHandler)(both(loss="haar"))
    found = handler(prd, tar)
    term = specreg.losses.build("haar")(prd, tar).mean()
    torch.testing.assert_close(found, (prd - tar).square().mean() + 0.25 * term)
    with pytest.raises(NotImplementedError):
        ours.with_term(LossHandler)([{"type": "unheard"}])


def test_members_are_compared_and_not_their_mean(ours):
    prd, tar = torch.randn(3, 4, 2, 6, 8), torch.randn(3, 2, 6, 8)
    (_, loss) = ours.with_term(LossHandler)(both(loss="fft:amplitude")).loss_fn
    members = torch.stack([specreg.losses.build("fft:amplitude")(member, tar) for member in prd.unbind(1)], 1)
    assert loss(prd, tar).shape == (3, 2)
    torch.testing.assert_close(loss(prd, tar).mean(1), members.mean(1))
    assert loss.type == LossType.Probabilistic


def test_the_sphere_takes_makani_s_grid(ours):
    pytest.importorskip("torch_harmonics")
    prd, tar = torch.randn(2, 3, 2, 6, 8).unbind(0)
    common = {"img_shape": (6, 8), "crop_shape": (6, 8), "crop_offset": (0, 0), "channel_names": ["u", "v"]}
    loss = ours.SpectralLoss(**common, grid_type="legendre-gauss", loss="sht:amse")
    expected = specreg.losses.build("sht(grid=legendre-gauss):amse")(prd, tar)
    torch.testing.assert_close(loss(prd, tar).mean(1), expected)
    assert hasattr(loss, "sht")  # makani leaves such losses uncompiled
    with pytest.raises(ValueError, match=r"whole globe, \(6, 8\); got a crop of \(4, 8\)"):
        ours.SpectralLoss(**{**common, "crop_shape": (4, 8)}, grid_type="equiangular", loss="sht:amse")


def test_mistakes_are_said(ours):
    common = {"img_shape": (6, 8), "crop_shape": (6, 8), "crop_offset": (0, 0), "channel_names": ["u"]}
    common["grid_type"] = "equiangular"
    with pytest.raises(ValueError, match="whole fields"):
        ours.SpectralLoss(**common, spatial_distributed=True)
    x = torch.zeros(1, 1, 6, 8)
    with pytest.raises(ValueError, match="no wgt"):
        ours.SpectralLoss(**common)(x, x, x)
