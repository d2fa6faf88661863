import pytest
import torch

from specreg import models
from specreg.models import SmallUNet
from specreg.models.small_unet import timestep_embedding

OPTIONS = {"resolution": 16, "width": 32, "multipliers": (1, 2), "blocks": 1, "attention": (1,)}
X = torch.randn(3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
T = torch.tensor([0, 500, 999])


def filled(model, seed=0):
    """The model with no layer left at its zero initialization."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if not p.any():
                p.copy_(0.1 * torch.randn(p.shape, generator=g))
    return model.eval()


@pytest.mark.parametrize("kind", models.KINDS)
def test_weights_are_a_function_of_the_seed_and_global_state_is_left_alone(kind):
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    a, b, c = (models.build(kind, channels=2, seed=seed, **OPTIONS) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    same = [torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True)]
    assert all(same)
    assert any(not torch.equal(p, q) for p, q in zip(a.parameters(), c.parameters(), strict=True))


@pytest.mark.parametrize("kind", models.KINDS)
def test_samples_of_a_batch_do_not_meet(kind):
    model = filled(models.build(kind, channels=2, **OPTIONS))
    with torch.no_grad():
        batch = model(X, T)
        alone = torch.cat([model(X[i : i + 1], T[i : i + 1]) for i in range(3)])
        other_times = model(X, T.flip(0))
    assert batch.shape == X.shape
    torch.testing.assert_close(batch, alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(batch, other_times, atol=0.01)


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_attention_lets_every_pixel_see_every_other(patch_size):
    model = filled(SmallUNet(1, width=16, multipliers=(1, 2), attention=(1,), patch_size=patch_size))
    x = torch.zeros(1, 1, 32, 32, requires_grad=True)
    model(x, torch.tensor([3]))[0, 0, 0, 0].backward()
    assert (x.grad != 0).all()


def test_every_parameter_takes_part():
    model = filled(SmallUNet(1, width=16, multipliers=(1, 2, 2), attention=(1,), blocks=2, classes=4)).train()
    model(torch.randn(2, 1, 16, 16), torch.tensor([1, 2]), torch.tensor([0, 4])).square().sum().backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert unused == []


def test_classes_matter_and_none_is_a_class():
    model = filled(SmallUNet(1, width=16, multipliers=(1,), attention=(), classes=3))
    x, t = torch.randn(1, 1, 8, 8), torch.tensor([5])
    torch.testing.assert_close(model(x, t), model(x, t, torch.tensor([3])), rtol=0, atol=0)
    assert not torch.allclose(model(x, t), model(x, t, torch.tensor([1])))


def test_a_new_network_predicts_zero():
    assert SmallUNet(2, width=16)(X, T).abs().max() == 0


def test_timestep_embedding_is_the_sinusoidal_one():
    embedding = timestep_embedding(torch.tensor([7.0]), 8)
    frequencies = 10_000.0 ** (-torch.arange(4) / 4)
    expected = torch.cat([(7 * frequencies).cos(), (7 * frequencies).sin()])[None]
    torch.testing.assert_close(embedding, expected)


def test_bad_calls_are_refused():
    with pytest.raises(ValueError, match=r"multiples of 4; got \[1, 1, 10, 8\]"):
        SmallUNet(1, width=16)(torch.zeros(1, 1, 10, 8), torch.tensor([0]))
    with pytest.raises(ValueError, match="without classes"):
        SmallUNet(1, width=16)(torch.zeros(1, 1, 8, 8), torch.tensor([0]), torch.tensor([0]))
    with pytest.raises(ValueError, match="did you mean 'small_unet'"):
        models.build("small_unt", channels=1, **OPTIONS)
    with pytest.raises(ValueError, match="unet2d has no patch_size"):
        models.build("unet2d", channels=1, patch_size=2, **OPTIONS)
