"""DiffWave against vectors recorded from the public implementation (see ../vectors/README.md)."""

import pytest
import torch

import reference_vectors as vectors
from specreg.diffusion import StackedGenerator, ancestral
from specreg.diffusion.diffwave_sampler import diffwave, fast_steps
from specreg.models.diffwave import DiffWave, DiffWaveConfig
from specreg.models.diffwave_checkpoint import load_diffwave, save_diffwave

SMALL = DiffWaveConfig(residual_layers=2, residual_channels=4, dilation_cycle_length=2, n_mels=3, hop_samples=6)


@pytest.fixture(scope="module", params=vectors.DIFFWAVES)
def recorded(request):
    """One recorded network rebuilt, its recorded tensors, and its mel spectrogram or None."""
    config, tensors, weights = vectors.load(request.param)
    network = vectors.fill(DiffWave(DiffWaveConfig(**config)), weights)
    return network, tensors, tensors.get("in/mel")


@torch.no_grad()
def test_the_noise_is_the_public_network_s(recorded):
    network, arrays, mel = recorded
    x = arrays["in/x"]
    noise = network(x, arrays["in/t"], mel)
    torch.testing.assert_close(noise[:, None], arrays["out/eps"], rtol=2e-5, atol=2e-6)
    with_channel = network(x[:, None], arrays["in/t"], mel)
    torch.testing.assert_close(with_channel, noise[:, None], rtol=0, atol=0)


@torch.no_grad()
def test_fractional_steps_are_interpolated_as_the_public_network_does(recorded):
    network, arrays, mel = recorded
    noise = network(arrays["in/x"][:1], arrays["in/t_fractional"], None if mel is None else mel[:1])
    torch.testing.assert_close(noise[:, None], arrays["out/eps_fractional"], rtol=2e-5, atol=2e-6)


def test_the_fast_sampler_is_the_public_one(recorded):
    network, arrays, mel = recorded
    mel = None if mel is None else mel[:1]
    noises = list(arrays["in/sampler_noise"])

    class Replay:
        def randn(self, shape, dtype):
            return noises.pop(0).to(dtype)

    audio = diffwave(
        lambda x, t: network(x, t, mel),
        noises.pop(0),
        network.config.noise_schedule,
        inference_betas=network.config.inference_noise_schedule,
        generator=Replay(),
    )
    torch.testing.assert_close(audio, arrays["out/fast_audio"], rtol=2e-5, atol=2e-5)
    assert noises == []


def test_the_default_config_is_the_public_vocoder_s_size():
    with torch.device("meta"):
        network = DiffWave()
    state = network.state_dict()
    ends = (64 + 64) + (64 * 64 + 64) + (64 + 1) + 2 * (3 * 32 + 1)
    steps = (128 + 1) * 512 + (512 + 1) * 512
    layer = (64 * 3 + 1) * 128 + (512 + 1) * 64 + (80 + 1) * 128 + (64 + 1) * 128
    assert sum(p.numel() for p in network.parameters()) == ends + steps + 30 * layer
    assert state["residual_layers.29.conditioner_projection.weight"].shape == (128, 80, 1)
    assert network.residual_layers[19].dilated_conv.dilation == (512,)


@pytest.mark.parametrize(("hop", "factors"), [(256, (16, 16)), (300, (15, 20)), (200, (10, 20)), (7, (1, 7))])
def test_the_upsampler_follows_the_hop(hop, factors):
    config = DiffWaveConfig(residual_layers=1, residual_channels=2, n_mels=4, hop_samples=hop)
    assert config.upsample_factors == factors
    network = DiffWave(config)
    assert network.spectrogram_upsampler(torch.rand(2, 4, 5)).shape == (2, 4, 5 * hop)
    assert network(torch.randn(2, 5 * hop), torch.tensor([0, 7]), torch.rand(2, 4, 5)).shape == (2, 5 * hop)


def test_every_parameter_takes_part():
    network = DiffWave(SMALL)
    torch.nn.init.normal_(network.output_projection.weight)
    network(torch.randn(2, 18), torch.tensor([0, 9]), torch.rand(2, 3, 3)).square().sum().backward()
    # What goes on from the last layer reaches nothing, as in the paper.
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_bad_calls_are_refused():
    network = DiffWave(SMALL)
    x, t, mel = torch.randn(2, 18), torch.tensor([0, 9]), torch.rand(2, 3, 3)
    with pytest.raises(ValueError, match="conditioned on a mel spectrogram; got none"):
        network(x, t)
    with pytest.raises(ValueError, match=r"mel must be .* \[2, 3, 3\] for 18 samples at a hop of 6; got \[2, 3, 4\]"):
        network(x, t, torch.rand(2, 3, 4))
    with pytest.raises(ValueError, match=r"steps must be between 0 and 49; got \[0.0, 49.5\]"):
        network(x, torch.tensor([0, 49.5]), mel)
    with pytest.raises(ValueError, match="t must be"):
        network(x, torch.tensor([0, 1, 2]), mel)
    with pytest.raises(ValueError, match=r"x_t must be \[B, T\]"):
        network(torch.randn(2, 2, 18), t, mel)
    unconditional = DiffWave(DiffWaveConfig(residual_layers=1, residual_channels=2, unconditional=True))
    with pytest.raises(ValueError, match="given to an unconditional"):
        unconditional(x, t, mel)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hop_samples": 0}, "hop_samples must be a whole number from 1 to 65,536; got 0"),
        ({"upsample_factors": (4, 4)}, "product is hop_samples, 256; got"),
        ({"noise_schedule": [0.1, 1.5]}, "noise_schedule must hold numbers between 0 and 1"),
        ({"inference_noise_schedule": []}, "at least one; got"),
        ({"unconditional": 1}, "unconditional must be true or false; got 1"),
    ],
)
def test_bad_configs_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        DiffWaveConfig(**options)


def test_fast_steps_of_the_training_schedule_are_its_own():
    betas = DiffWaveConfig().noise_schedule
    torch.testing.assert_close(fast_steps(betas, betas), torch.arange(50, dtype=torch.float64), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="must keep ᾱ within the training schedule's"):
        fast_steps(betas, [1e-4, 0.9])


def test_the_full_schedule_is_ddpm_s_ancestral_sampler():
    """Which is itself tested against diffusers."""
    table = DiffWaveConfig().alphas_cumprod

    def noise(x, t):
        return (x.roll(1, -1) * (1.5 - t[:, None, None] / 50)).tanh()

    def x0_hat(x, t):
        alpha_bar = table[t].to(x)[:, None, None]
        return (x - (1 - alpha_bar).sqrt() * noise(x, t)) / alpha_bar.sqrt()

    latents = torch.randn(2, 1, 64, dtype=torch.float64)
    ours = diffwave(noise, latents, DiffWaveConfig().noise_schedule, generator=StackedGenerator([1, 2]), clip=None)
    theirs = ancestral(x0_hat, latents, table, generator=StackedGenerator([1, 2]))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)  # the network sees its steps in float32


def test_a_sample_depends_on_its_seed_and_not_on_its_batch():
    def sample(seeds):
        generator = StackedGenerator(seeds)
        latents = generator.randn((len(seeds), 1, 32))
        return diffwave(lambda x, t: 0.5 * x + x * x * 0.01, latents, [0.01, 0.1, 0.2], generator=generator)

    batch = sample([5, 6, 7])
    assert all(torch.equal(batch[[k]], sample([seed])) for k, seed in enumerate([5, 6, 7]))
    assert batch.abs().max() <= 1


def test_a_checkpoint_comes_back_whole(tmp_path):
    network = DiffWave(SMALL)
    optimizer = torch.optim.Adam(network.parameters())
    path = tmp_path / "new" / "weights.pt"
    save_diffwave(
        path, network, step=1_000_578, other_params={"batch_size": 16}, optimizer=optimizer.state_dict(), scaler={}
    )
    assert [p.name for p in path.parent.iterdir()] == ["weights.pt"]
    before = torch.random.get_rng_state()
    loaded = load_diffwave(path)
    assert torch.equal(before, torch.random.get_rng_state())
    assert loaded.model.config == SMALL
    assert (loaded.step, loaded.other_params) == (1_000_578, {"batch_size": 16})
    x, t, mel = torch.randn(1, 12), torch.tensor([3]), torch.rand(1, 3, 2)
    assert torch.equal(loaded.model(x, t, mel), network(x, t, mel))


def test_the_public_layout_loads(recorded, tmp_path):
    """As the public code writes it: params without our own entries, a step, an optimizer, a scaler."""
    network, arrays, mel = recorded
    config = network.config
    params = {name: getattr(config, name) for name in ("residual_layers", "residual_channels", "n_mels")}
    params |= {
        "dilation_cycle_length": config.dilation_cycle_length,
        "batch_size": 16,
        "max_grad_norm": None,
        "learning_rate": 2e-4,
    }
    params |= {"noise_schedule": list(config.noise_schedule)}
    torch.save(
        {"step": 7, "model": network.state_dict(), "optimizer": {}, "params": params, "scaler": {}},
        tmp_path / "public.pt",
    )
    loaded = load_diffwave(tmp_path / "public.pt")
    assert loaded.model.config == config
    assert set(loaded.other_params) == {"batch_size", "max_grad_norm", "learning_rate"}
    with torch.no_grad():
        noise = loaded.model(arrays["in/x"], arrays["in/t"], mel)
    torch.testing.assert_close(noise[:, None], arrays["out/eps"], rtol=2e-5, atol=2e-6)


def stored(**changes):
    network = DiffWave(SMALL)
    whole = {"step": 1, "model": dict(network.state_dict()), "params": {"hop_samples": 6}}
    whole["params"] |= {"residual_layers": 2, "residual_channels": 4, "dilation_cycle_length": 2, "n_mels": 3}
    for name, change in changes.items():
        whole[name] = change(whole[name])
    return whole


def without(name):
    return lambda entries: {key: value for key, value in entries.items() if key != name}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": without("skip_projection.bias")}, "missing: skip_projection.bias"),
        ({"model": lambda m: {**m, "more": torch.zeros(1)}}, "not expected: more"),
        (
            {"model": lambda m: {**m, "skip_projection.bias": torch.zeros(5)}},
            r"wrong shape: skip_projection.bias \[5\] instead of \[4\]",
        ),
        ({"params": lambda p: {**p, "residual_layers": 3}}, "missing: residual_layers.2.dilated_conv.weight"),
        ({"params": lambda p: {**p, "unconditional": True}}, "not expected: spectrogram_upsampler.conv1.weight"),
        ({"params": lambda p: {**p, "hop_samples": 8}}, "params: upsample_factors must be two whole numbers.*got"),
        ({"params": lambda p: {**p, "n_mels": "80"}}, "params: n_mels must be a whole number"),
        ({"params": lambda p: None}, "holds no 'params'; pass config="),
        ({"model": lambda m: [1]}, "expected a dict with the network's tensors under 'model'"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(changes, words, tmp_path):
    path = tmp_path / "bad.pt"
    torch.save(stored(**changes), path)
    with pytest.raises(ValueError, match=words):
        load_diffwave(path)


def test_a_checkpoint_without_params_loads_with_a_config_and_a_contradicting_one_is_refused(tmp_path):
    torch.save(stored(params=lambda p: None), tmp_path / "bare.pt")
    assert load_diffwave(tmp_path / "bare.pt", config=SMALL).model.config == SMALL
    torch.save(stored(), tmp_path / "whole.pt")
    with pytest.raises(ValueError, match="differ from the config given in sample_rate"):
        load_diffwave(tmp_path / "whole.pt", config=DiffWaveConfig(**{**vars(SMALL), "sample_rate": 16_000}))


class Payload:
    def __reduce__(self):
        return print, ("code ran",)


def test_no_code_runs_and_damage_is_named(tmp_path, capsys):
    torch.save({"model": {}, "params": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil.pt: cannot be read as a torch file of tensors and plain values"):
        load_diffwave(tmp_path / "evil.pt")
    assert capsys.readouterr().out == ""
    (tmp_path / "text.pt").write_text("not a checkpoint")
    with pytest.raises(ValueError, match=r"text.pt: cannot be read"):
        load_diffwave(tmp_path / "text.pt")
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        load_diffwave(tmp_path / "none.pt")
