"""stable-audio-tools' own training wrappers, with tiny networks."""

import types

import pytest
import torch
from torch import nn

import specreg
from specreg.integrations import stable_audio

wrappers = pytest.importorskip("stable_audio_tools.training.diffusion")


class Network(nn.Module):
    def __init__(self, objective):
        super().__init__()
        self.model, self.pretransform, self.dist_shift = nn.Conv1d(2, 2, 3, padding=1), None, None
        self.diffusion_objective, self.conditioner = objective, lambda metadata, device: {}

    def forward(self, x, t, cond=None, cfg_dropout_prob=0.0, mask=None):
        return self.model(x)


def trained(wrapper, batch):
    """One training step in Lightning's absence, from one seed; returns what the network saw, and the loss."""
    wrapper.log_dict = lambda *args, **kwargs: None
    wrapper._trainer = types.SimpleNamespace(optimizers=[types.SimpleNamespace(param_groups=[{"lr": 0.1}])])
    type(wrapper).trainer = property(lambda self: self._trainer)
    seen = []
    hook = wrapper.diffusion.register_forward_hook(lambda module, given, output: seen.append((*given[:2], output)))
    torch.manual_seed(3)
    wrapper.rng = torch.quasirandom.SobolEngine(1, scramble=True, seed=5)
    loss = wrapper.training_step(batch, 0)
    hook.remove()
    return seen[0], loss


@pytest.mark.parametrize("objective", ["v", "rectified_flow", "rf_denoiser", "unconditional"])
def test_the_term_compares_the_clip_at_its_level(objective):
    clip, kind = torch.randn(3, 2, 128), "v" if objective == "unconditional" else objective
    network = Network(kind)
    if objective == "unconditional":
        make, batch = lambda: wrappers.DiffusionUncondTrainingWrapper(network), (clip,)
    else:
        padding = [{"padding_mask": [torch.ones(128)]}] * 3
        make, batch = lambda: wrappers.DiffusionCondTrainingWrapper(network, lr=1e-3, use_ema=False), (clip, padding)
    _, plain = trained(make(), batch)
    wrapper, regularizer = make(), specreg.SpectralRegularizer("amplitude", weight=0.5)
    found = stable_audio.add_term(wrapper, regularizer)
    (x_t, t, output), loss = trained(wrapper, batch)
    level, name = stable_audio.level(t, kind), stable_audio.NAMES[kind]
    noise = (x_t - level.alpha[:, None, None] * clip) / level.sigma[:, None, None]
    target = specreg.diffusion.target(clip, noise, level, prediction=name)
    specreg.check_wiring(target, x_t, clip, level, prediction=name)
    expected = regularizer(specreg.recover_x0(output, x_t, level, prediction=name), clip, level)
    torch.testing.assert_close(found.term.loss, expected.loss, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, plain + expected.loss, rtol=1e-4, atol=1e-5)
    assert wrapper.state_dict().keys() == make().state_dict().keys()


def test_padding_has_no_term_and_no_part_in_the_ratio():
    network, clip = Network("v"), torch.randn(2, 2, 128)
    mask = torch.ones(128)
    mask[64:] = 0
    wrapper = wrappers.DiffusionCondTrainingWrapper(network, lr=1e-3, use_ema=False, mask_padding=True)
    found = stable_audio.add_term(wrapper, specreg.SpectralRegularizer("amplitude", weight="auto"))
    (_, _, output), _ = trained(wrapper, (clip, [{"padding_mask": [mask.bool()]}] * 2))
    (gradient,) = torch.autograd.grad(found.term.loss, output)
    assert float(gradient[..., 64:].abs().max()) == 0
    assert float(gradient[..., :64].abs().max()) > 0
    assert float(found.term.gradient_ratio) == pytest.approx(1, rel=1e-3)


def test_other_wrappers_are_refused():
    with pytest.raises(TypeError, match="got Linear"):
        stable_audio.add_term(nn.Linear(1, 1), specreg.SpectralRegularizer())
    wrapper = wrappers.DiffusionCondTrainingWrapper(Network("other"), lr=1e-3, use_ema=False)
    with pytest.raises(ValueError, match="got 'other'"):
        stable_audio.add_term(wrapper, specreg.SpectralRegularizer())
