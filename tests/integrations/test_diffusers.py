"""What the diffusers examples rely on, against diffusers' own functions."""

import pytest
import torch

import specreg

diffusers = pytest.importorskip("diffusers")


def test_unpacking_is_the_inverse_of_flux_s_own_packing():
    pytest.importorskip("transformers")  # without it diffusers has no FluxPipeline
    latents = torch.randn(2, 4, 6, 8)
    tokens = diffusers.FluxPipeline._pack_latents(latents, 2, 4, 6, 8)
    assert torch.equal(specreg.unpack_tokens(tokens, 6, 8), latents)


def test_shifted_timesteps_of_sd3_are_their_sigma():
    """Its script indexes the shifted tables: the level from the timestep and that from σ are one."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    index = torch.tensor([0, 10, 500, 999])
    t, sigma = scheduler.timesteps[index], scheduler.sigmas[index]
    ours, theirs = specreg.NoiseLevel.from_diffusers(scheduler, t), specreg.NoiseLevel.flow(sigma)
    torch.testing.assert_close(ours.sigma, theirs.sigma)
    torch.testing.assert_close(ours.alpha, theirs.alpha, atol=1e-6, rtol=1e-5)


def test_a_second_chunk_of_the_output_is_named():
    """Prior preservation: the term of one half is measured on the chunk that the base loss was made of."""
    whole, target = torch.randn(4, 1, 8, 8, requires_grad=True) * 1.0, torch.randn(4, 1, 8, 8)
    level = specreg.NoiseLevel.flow(torch.tensor([0.3, 0.6]))
    output, _ = whole.chunk(2)
    loss = (output - target[:2]).square().mean()
    regularizer = specreg.SpectralRegularizer("amplitude", weight="auto")
    given = {"prediction": "flow", "x0": torch.zeros(2, 1, 8, 8), "base_loss": loss}
    term = regularizer.from_output(output, target[:2], level, **given)
    assert float(term.gradient_ratio) == pytest.approx(1, rel=1e-3)
    with pytest.raises(ValueError, match="output"):
        regularizer.from_output(whole.chunk(2)[0], target[:2], level, **given)
