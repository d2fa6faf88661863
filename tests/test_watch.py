"""Watching a network, and tokens back to latents."""

import copy
import pickle
from types import SimpleNamespace

import diffusers
import pytest
import torch

import specreg
from specreg.integrations import musubi

WRAPS = [
    lambda x: x, lambda x: (x,), lambda x: {"sample": x}, lambda x: [x, None], lambda x: SimpleNamespace(sample=x)
]  # fmt: skip


class Net(torch.nn.Module):
    def __init__(self, wrap=lambda x: x):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(2.0))
        self.wrap = wrap

    def forward(self, x, t, *, context=None):
        return self.wrap(self.scale * x)


@pytest.mark.parametrize("wrap", WRAPS)
def test_the_last_call_is_remembered_by_position_and_by_keyword(wrap):
    network, a, b = Net(wrap), torch.randn(2, 3), torch.randn(2, 3)
    seen = specreg.watch(network)
    network(a, 1)
    assert seen.x_t is a
    network(t=torch.tensor([1]), x=b)
    assert seen.x_t is b
    torch.testing.assert_close(seen.output, 2 * b)
    seen.output.sum().backward()
    assert float(network.scale.grad) == pytest.approx(float(b.sum()), rel=1e-5)
    seen.remove()
    network(a, 1)
    with pytest.raises(RuntimeError, match="was not called since"):
        _ = seen.x_t


def test_diffusers_networks_are_watched():
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(32,), down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",), layers_per_block=1,
    )  # fmt: skip
    x = torch.randn(1, 1, 8, 8)
    with specreg.watch(unet) as seen:
        output = unet(x, timestep=torch.tensor([3])).sample
        assert seen.output is output
        assert seen.x_t is x


def test_a_name_can_be_given():
    network, x, context = Net(), torch.randn(2, 3), torch.randn(2, 5)
    with specreg.watch(network, name="context") as seen:
        network(x, 1, context=context)
        assert seen.x_t is context
        with pytest.raises(TypeError, match="not called with a tensor context=; got no keyword"):
            network(x, 1)


def test_what_is_no_tensor_is_refused():
    network = Net(lambda x: "text")
    with specreg.watch(network), pytest.raises(TypeError, match="to return a tensor; got str"):
        network(torch.ones(1), 1)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_tokens_are_patches_in_the_order_of_pixel_unshuffle(patch):
    """Flux's packing is pixel_unshuffle by 2 with the positions as tokens."""
    latents = torch.randn(2, 16, 8, 12)
    tokens = torch.nn.functional.pixel_unshuffle(latents, patch).flatten(2).mT
    assert torch.equal(specreg.unpack_tokens(tokens, 8, 12, patch=patch), latents)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"expected 24 tokens of a multiple of 4 values for 8×12; got \[2, 23, 64\]"):
        specreg.unpack_tokens(torch.zeros(2, 23, 64), 8, 12)
    with pytest.raises(ValueError, match="in multiples of 2; got"):
        specreg.unpack_tokens(torch.zeros(2, 24, 64), 7, 12)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_watched_network_can_be_copied_after_a_step(copied):
    network, x = torch.nn.Linear(3, 3), torch.randn(2, 3)
    seen = specreg.watch(network)
    network(x).sum().backward()
    average = copied(network)
    average(x + 1).sum().backward()
    assert seen.x_t is x


def test_a_module_that_keeps_its_last_call_is_pickled_as_any_module_is():
    """Without what `compile` has put into it, as torch's own."""
    module = musubi.SpectralLoss()
    module.term = torch.ones(2, requires_grad=True) * 2
    module.compile()
    again = pickle.loads(pickle.dumps(module))
    assert again.term is None
    assert again.prediction == module.prediction
    assert module.term is not None


def test_an_average_of_a_watched_network_follows_it():
    network = torch.nn.Linear(3, 3)
    specreg.watch(network)
    network(torch.randn(2, 3)).sum().backward()
    average = torch.optim.swa_utils.AveragedModel(network)
    average.update_parameters(network)
    torch.testing.assert_close(average.module.weight, network.weight)
