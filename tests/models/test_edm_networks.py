"""The EDM and iDDPM networks against what the public implementations computed from the same weights."""

import pytest
import torch

import reference_vectors as vectors
from specreg.diffusion import Preconditioned, heun, precond
from specreg.models.adm import ADM
from specreg.models.network_config import NetworkConfig

AGREEMENT = 5e-6  # relative; 1e-6 or less is seen, and other kernels sum in another order


@pytest.fixture(scope="module")
def recorded():
    """The recorded networks by name, each built once."""
    built = {}

    def get(name):
        if name not in built:
            built[name] = vectors.denoiser(name)
        return built[name]

    return get


@pytest.mark.parametrize("name", vectors.NETWORKS)
def test_denoised_is_the_reference_s(recorded, name):
    network, tensors = recorded(name)
    with torch.no_grad():
        found = network(tensors["in/x"], tensors["in/sigma"], **vectors.condition(tensors))
    assert vectors.relative(found, tensors["out/denoised"]) < AGREEMENT


@pytest.mark.parametrize("name", vectors.AUGMENTED)
def test_augment_labels_move_the_output_as_the_reference_s(recorded, name):
    network, tensors = recorded(name)
    condition = {**vectors.condition(tensors), "augment_labels": tensors["in/augment_labels"]}
    with torch.no_grad():
        found = network(tensors["in/x"], tensors["in/sigma"], **condition)
    assert vectors.relative(found, tensors["out/denoised_augmented"]) < AGREEMENT
    assert vectors.relative(found, tensors["out/denoised"]) > 1e-3


@pytest.mark.parametrize("name", vectors.NETWORKS)
def test_five_heun_steps_are_the_reference_s(recorded, name):
    network, tensors = recorded(name)
    condition = vectors.condition(tensors)
    samples = heun(
        lambda x, sigma: network(x, sigma, **condition),
        tensors["in/latents"],
        steps=5,
        preconditioning=network.preconditioning,
    )
    assert samples.dtype == torch.float64
    assert vectors.relative(samples, tensors["out/heun5"]) < 2e-5


@pytest.mark.parametrize("name", vectors.NETWORKS)
def test_the_range_of_sigma_is_the_reference_s(recorded, name):
    """The reference computes it in float32: VP's σ_min as √(e^x − 1) of a small x, iDDPM's by a thousand steps."""
    preconditioning = recorded(name)[0].preconditioning
    found = preconditioning.sigma_min, preconditioning.sigma_max
    assert found == pytest.approx(vectors.limits(name), rel=0.03 if name == "vp_ddpmpp" else 1e-3)


def test_an_adm_of_this_width_has_two_heads(recorded):
    network, _ = recorded("edm_adm_two_heads")
    assert {module.heads for module in network.modules() if getattr(module, "heads", 0)} == {2}


def test_iddpm_uses_the_first_channels_and_no_others(recorded):
    network, tensors = recorded("iddpm_adm")
    assert network.model.out_conv.weight.shape[0] == 6
    call = tensors["in/x"], tensors["in/sigma"]
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    weights["model.out_conv.weight"][3:] += 1
    options, _, _ = vectors.load("iddpm_adm")
    other = NetworkConfig.from_reference(options.pop("precond"), options).build().eval()
    other.load_state_dict(weights)
    with torch.no_grad():
        torch.testing.assert_close(other(*call), network(*call), rtol=0, atol=0)


def test_another_number_of_output_channels_is_refused():
    class Raw(torch.nn.Module):
        def forward(self, x, c_noise):
            return x[:, :1]

    with pytest.raises(ValueError, match=r"must return 3 or 6 channels; got \[2, 1, 4, 4\]"):
        Preconditioned(Raw(), precond.EDM())(torch.zeros(2, 3, 4, 4), torch.ones(2))
    with pytest.raises(ValueError, match=r"out_channels must equal img_channels, 3, .*; got 6 under edm"):
        NetworkConfig("adm", "edm", {"img_resolution": 16, "out_channels": 6})


def test_adm_label_embeddings_start_with_unit_variance():
    """Kaiming normal times √classes; uniform weights of the other layers' kind would start at 0.018."""
    torch.manual_seed(0)
    network = ADM(img_resolution=4, label_dim=1000, model_channels=16, channel_mult=(1,), channel_mult_emb=4,
                  num_blocks=1, attn_resolutions=())  # fmt: skip
    rows = network.map_label(torch.eye(1000)).detach()
    assert rows.shape == (1000, 64)
    assert rows.std().item() == pytest.approx(1, abs=0.02)
    assert rows.mean().item() == pytest.approx(0, abs=0.02)
    assert ((rows / rows.std()) ** 4).mean().item() == pytest.approx(3, abs=0.1)  # normal, not uniform


@pytest.mark.parametrize("name", ["edm_ddpmpp_cond", "edm_adm_two_heads"])
def test_class_indices_are_one_hot_rows(recorded, name):
    network, tensors = recorded(name)
    rows = tensors["in/class_labels"]
    with torch.no_grad():
        by_index = network(tensors["in/x"], tensors["in/sigma"], labels=rows.argmax(1))
        by_row = network(tensors["in/x"], tensors["in/sigma"], labels=rows)
    torch.testing.assert_close(by_index, by_row)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["edm_ddpmpp", "edm_ncsnpp", "edm_adm_two_heads"])
def test_half_precision_networks_keep_float32_preconditioning(name, dtype):
    network, tensors = vectors.denoiser(name)
    network.dtype = dtype
    with torch.no_grad():
        found = network(tensors["in/x"], tensors["in/sigma"], **vectors.condition(tensors))
    assert found.dtype == torch.float32
    error = (found - tensors["out/denoised"]).abs()
    # Half precision costs a share of the network's output times c_out, which is at most σ_data.
    assert float(error.max()) < 200 * torch.finfo(dtype).eps
    at_low_noise = network.preconditioning.coefficients(torch.tensor([0.002])).c_out
    assert float(at_low_noise) < 0.003


@pytest.mark.parametrize("name", ["edm_ncsnpp", "edm_adm_two_heads"])
def test_channels_last_changes_nothing(name):
    network, tensors = vectors.denoiser(name)
    network = network.to(memory_format=torch.channels_last)
    x = tensors["in/x"].to(memory_format=torch.channels_last)
    with torch.no_grad():
        found = network(x, tensors["in/sigma"], **vectors.condition(tensors))
    assert vectors.relative(found, tensors["out/denoised"]) < AGREEMENT


def test_networks_trace_without_a_graph_break(recorded):
    network, tensors = recorded("edm_ncsnpp")
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    with torch.no_grad():
        found = compiled(tensors["in/x"], tensors["in/sigma"], **vectors.condition(tensors))
    assert vectors.relative(found, tensors["out/denoised"]) < AGREEMENT


@pytest.mark.parametrize("architecture", ["songunet", "adm"])
def test_gradients_reach_every_weight(architecture):
    options = {"img_resolution": 8, "model_channels": 64, "channel_mult": [1, 2], "num_blocks": 1,
               "attn_resolutions": [4], "label_dim": 3, "augment_dim": 9, "dropout": 0.1}  # fmt: skip
    network = NetworkConfig(architecture, "edm", options).build(seed=1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    x = torch.randn(2, 3, 8, 8)
    network(x, torch.ones(2), labels=torch.tensor([0, 2]), augment_labels=torch.ones(2, 9)).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_initial_weights_are_a_function_of_the_seed_and_leave_the_global_state():
    config = NetworkConfig("songunet", "edm", {"img_resolution": 8, "model_channels": 16, "channel_mult": [1]})
    state = torch.get_rng_state()
    a, b, c = (config.build(seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_the_real_checkpoints_architecture_has_62_million_parameters():
    """EDM, Table 7: 62 million for AFHQv2 and FFHQ at 64×64, 56 million for CIFAR-10."""
    common = {"img_channels": 3, "augment_dim": 9, "model_channels": 128, "num_blocks": 4, "attn_resolutions": [16]}
    large = NetworkConfig("songunet", "edm", {**common, "img_resolution": 64, "channel_mult": [1, 2, 2, 2]})
    small = NetworkConfig("songunet", "edm", {**common, "img_resolution": 32, "channel_mult": [2, 2, 2]})
    counts = [sum(p.numel() for p in config.skeleton().parameters()) / 1e6 for config in (large, small)]
    assert counts == pytest.approx([62, 56], abs=0.8)


def test_config_survives_json_and_refuses_what_no_network_has():
    config = NetworkConfig("adm", "vp", {"img_resolution": 16, "channel_mult": (1, 2)}, {"beta_d": 19.0})
    again = NetworkConfig.from_json(config.to_json())
    assert again.to_dict() == config.to_dict()
    for options, said in [
        ({"img_resolution": 16, "widht": 3}, "no option 'widht'"),
        ({"img_resolution": 10**9}, "img_resolution must be whole"),
        ({"img_resolution": 16, "num_blocks": 10**9}, "num_blocks must be whole"),
        ({"img_resolution": 16, "dropout": 2.0}, "dropout must be"),
        ({"channel_mult": [1]}, "needs img_resolution"),
        ({"img_resolution": 16, "channel_mult": "12"}, "short list"),
    ]:
        with pytest.raises(ValueError, match=said):
            NetworkConfig("songunet", "edm", options)
    with pytest.raises(ValueError, match="decoder_type must be 'standard'"):
        NetworkConfig.from_reference("EDMPrecond", {"img_resolution": 16, "decoder_type": "skip"})
    with pytest.raises(ValueError, match="the network's class must be one of"):
        NetworkConfig.from_reference("Evil", {})


def test_wrong_calls_say_what_was_expected():
    network = NetworkConfig(
        "songunet", "edm", {"img_resolution": 8, "model_channels": 16, "channel_mult": [1, 1]}
    ).build()
    with pytest.raises(ValueError, match=r"x must be \[B, 3, H, W\]; got \[1, 1, 8, 8\]"):
        network(torch.zeros(1, 1, 8, 8), torch.ones(1))
    with pytest.raises(ValueError, match="multiples of 2"):
        network(torch.zeros(1, 3, 7, 8), torch.ones(1))
    with pytest.raises(ValueError, match="without classes"):
        network(torch.zeros(1, 3, 8, 8), torch.ones(1), labels=torch.zeros(1, dtype=torch.int64))


def test_a_periodic_network_moves_with_its_image():
    """By multiples of the coarsest level's pixels; zeros beyond the edges break it."""
    options = {"img_resolution": 16, "img_channels": 1, "model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1,
               "attn_resolutions": [8], "dropout": 0.0}  # fmt: skip
    x, sigma = torch.randn(2, 1, 16, 16), torch.tensor([0.5, 2.0])
    errors = []
    for more in ({"periodic": True}, {}):
        config = NetworkConfig.from_json(NetworkConfig("songunet", "edm", {**options, **more}).to_json())
        network = config.build()
        torch.manual_seed(0)
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.1)
        moved, straight = network(x.roll((2, 4), (2, 3)), sigma), network(x, sigma).roll((2, 4), (2, 3))
        errors.append(float((moved - straight).abs().max()))
    assert errors[0] < 1e-5 < 1e-3 < errors[1]


@pytest.mark.parametrize(("more", "says"), [
    ({"periodic": 1}, "periodic must be true or false; got 1"),
    ({"periodic": True, "encoder_type": "residual"}, "periodic needs encoder_type standard; got residual"),
    ({"periodic": True, "resample_filter": [1, 3, 3, 1]}, r"periodic needs resample_filter \(1, 1\); got \(1, 3, 3, 1"),
])  # fmt: skip
def test_what_periodic_cannot_be(more, says):
    with pytest.raises(ValueError, match=says):
        NetworkConfig("songunet", "edm", {"img_resolution": 16, **more}).build()
