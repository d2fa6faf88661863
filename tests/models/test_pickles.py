"""Hostile checkpoints are refused by the offender's name and do nothing; honest ones load as they are."""

import importlib.util
import pickle
import sys
import tracemalloc
import types
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

import reference_pickle
import reference_vectors as vectors
from specreg.models import pretrained
from specreg.models.network_config import NetworkConfig
from specreg.models.pickle_steps import CheckpointRefused
from specreg.models.pickles import read_pickle

_spec = importlib.util.spec_from_file_location("hostile", Path(__file__).with_name("hostile.py"))
hostile = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hostile)

NAMES = [name for name, _, _ in hostile.cases(Path("canary"))]


def test_the_corpus_is_large_enough():
    assert len(NAMES) == len(set(NAMES)) >= 30


@pytest.mark.parametrize("name", NAMES)
def test_hostile_pickles_are_refused_by_name_without_side_effects(name, tmp_path):
    canary = tmp_path / "canary"
    content, offender = {n: (c, o) for n, c, o in hostile.cases(canary)}[name]
    path = tmp_path / "hostile.pkl"
    path.write_bytes(content)
    modules = set(sys.modules)
    tracemalloc.start()
    with pytest.raises(CheckpointRefused, match=offender) as refusal:
        pretrained.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 1000
    assert not canary.exists()
    assert "antigravity" not in set(sys.modules) - modules
    assert peak < 50e6


def test_code_in_pickles_would_have_run_elsewhere(tmp_path):
    """The corpus is not harmless by accident: Python's own reader runs its first case."""
    canary = tmp_path / "canary"
    pickle.loads(hostile.cases(canary)[0][1])
    assert canary.exists()


def test_modules_that_contain_themselves_are_refused(tmp_path):
    loop = hostile.program(
        b"}",
        hostile.text("ema"),
        hostile.persistent(
            ("type", hostile.text("class")),
            ("class_name", hostile.text("EDMPrecond")),
            (
                "state",
                b"}\x94(" + hostile.text("_init_args") + b")" + hostile.text("_init_kwargs") + b"}"
                + hostile.text("img_resolution") + b"K\x08s" + hostile.text("_modules") + b"}" + hostile.text("model")
                + hostile.persistent(
                    ("type", hostile.text("class")), ("class_name", hostile.text("SongUNet")), ("state", b"h\x00")
                )
                + b"su",
            ),
        ),
        b"s",
    )  # fmt: skip
    path = tmp_path / "loop.pkl"
    path.write_bytes(loop)
    with pytest.raises(CheckpointRefused, match="contain themselves"):
        pretrained.read(path)


def test_empty_and_missing_files(tmp_path):
    (tmp_path / "empty.pkl").write_bytes(b"")
    with pytest.raises(CheckpointRefused, match="expected 1 to"):
        pretrained.read(tmp_path / "empty.pkl")
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        pretrained.read(tmp_path / "none.pkl")
    (tmp_path / "x.ckpt").write_bytes(b"x")
    with pytest.raises(ValueError, match="suffix must be one of"):
        pretrained.read(tmp_path / "x.ckpt")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A function that writes a recorded network as the public code pickles it, once, and returns the file."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def write(name):
        path = folder / f"{name}.pkl"
        if not path.exists():
            config, _, _ = vectors.load(name)
            network, _ = vectors.denoiser(name)
            tensors = network.state_dict()
            if name == "iddpm_adm":
                tensors["u"] = public_levels()
            found = pretrained.NetworkConfig.from_reference(config.pop("precond"), config)
            reference_pickle.write(path, found, tensors)
        return path

    return write


def public_levels(steps=1000, c_1=0.001, c_2=0.008):
    """iDDPM's buffer `u` as the public class makes it: step by step in float32 (EDM, Table 1)."""
    j = torch.arange(steps + 1)
    alpha_bar = (0.5 * np.pi * j / steps / (c_2 + 1)).sin() ** 2
    u = torch.zeros(steps + 1)
    for i in range(steps, 0, -1):
        u[i - 1] = ((u[i] ** 2 + 1) / (alpha_bar[i - 1] / alpha_bar[i]).clip(min=c_1) - 1).sqrt()
    return u


@pytest.mark.parametrize("name", vectors.NETWORKS)
def test_networks_in_the_public_form_come_back_and_give_the_reference_s_outputs(name, checkpoint):
    found = pretrained.read(checkpoint(name))
    network, tensors = vectors.denoiser(name)
    expected = network.state_dict()
    assert found.config.preconditioning == name.partition("_")[0]
    assert found.tensors.keys() == expected.keys()
    assert all(torch.equal(found.tensors[key], expected[key]) for key in expected)
    network = found.build()
    assert not network.training
    with torch.no_grad():
        denoised = network(tensors["in/x"], tensors["in/sigma"], **vectors.condition(tensors))
    assert vectors.relative(denoised, tensors["out/denoised"]) < 5e-6
    assert "torch_utils" not in sys.modules


def test_iddpm_levels_other_than_the_config_s_are_refused(tmp_path):
    config = pretrained.NetworkConfig("adm", "iddpm", {"img_resolution": 4, "out_channels": 6, "model_channels": 8,
                                      "channel_mult": [1], "num_blocks": 1, "attn_resolutions": []})  # fmt: skip
    tensors = config.build().state_dict()
    for levels, said in (
        (public_levels(c_2=0.1), r"`u` \[1001\] are not"),
        (public_levels(500), r"`u` \[501\] are not"),
    ):
        reference_pickle.write(tmp_path / "x.pkl", config, {**tensors, "u": levels})
        with pytest.raises(CheckpointRefused, match=said):
            pretrained.read(tmp_path / "x.pkl")


class Loss:
    """A user's own loss, with what makes a pickle hard: keys that are no names, members of sets, a subclass of dict."""

    class Named(dict):
        pass

    def __init__(self, **parts):
        self.parts = self.Named({("a", 1): 2.5, None: torch.float32}, again=self, **parts)
        self.seen, self.kinds = {None, (1, 2)}, [np.zeros(2), np.float64(3.0), np.array([1, "a"], dtype=object)]


def losses():
    from specreg.integrations.edm import SpectralLoss

    return {
        "specreg": SpectralLoss(loss=["amplitude", "haar"], weight="auto", warmup=5),
        "own": Loss(),
        "function": torch.nn.functional.mse_loss,
    }


@pytest.mark.parametrize("kind", ["specreg", "own", "function"])
def test_snapshots_with_a_user_s_own_loss_give_their_network(kind, tmp_path):
    options = {"img_resolution": 8, "img_channels": 1, "model_channels": 8, "channel_mult": [1], "num_blocks": 1}
    config = NetworkConfig("songunet", "edm", {**options, "attn_resolutions": []})
    network = config.build(seed=0)
    reference_pickle.write(tmp_path / "x.pkl", config, network.state_dict(), loss_fn=losses()[kind])
    found = pretrained.read(tmp_path / "x.pkl")
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(found.tensors[name], tensor)


def test_a_loss_is_never_run_and_stays_alone(tmp_path):
    """What a pickle names is not called, also where it is skipped; and a skipped object is used nowhere else."""
    canary, path = tmp_path / "canary", tmp_path / "x.pkl"
    call = hostile.Call(__import__("os").system, f"touch {canary}")
    network = hostile.network(("img_resolution", b"K\x08"))

    def snapshot(*parts):
        path.write_bytes(hostile.program(b"}(", hostile.text("ema"), network, *parts, b"u"))
        return read_pickle(path)

    skipped = hostile.call("os", "system", f"touch {canary}") + b"\x94"
    content = snapshot(hostile.text("loss_fn"), skipped)
    assert (content["ema"].class_name, str(content["loss_fn"])) == ("EDMPrecond", "os.system")
    path.write_bytes(pickle.dumps({"ema": 1, "loss_fn": Loss(call=call)}))
    assert read_pickle(path)["ema"] == 1
    for key in ("augment_pipe", "ema"):
        with pytest.raises(CheckpointRefused, match=r"os\.system"):
            snapshot(hostile.text("loss_fn"), skipped, hostile.text(key), b"h\x00")
    with pytest.raises(CheckpointRefused, match=r"os\.system"):
        snapshot(hostile.text("loss_fn"), skipped, b"h\x00", b"N")
    assert not canary.exists()


def test_module_source_is_never_kept(checkpoint):
    path = checkpoint("edm_ddpmpp")
    assert b"raise SystemExit" in path.read_bytes()
    assert set(vars(read_pickle(path)["ema"])) == {"class_name", "state"}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("name", ["vp_ddpmpp", "iddpm_adm"])
def test_converted_files_hold_the_same_network(name, suffix, checkpoint, tmp_path):
    original = pretrained.read(checkpoint(name))
    pretrained.save(tmp_path / f"x{suffix}", original)
    pretrained.save(tmp_path / f"y{suffix}", original.build(), config=original.config)
    for stem in "xy":
        again = pretrained.read(tmp_path / f"{stem}{suffix}")
        assert again.config.to_dict() == original.config.to_dict()
        assert all(torch.equal(again.tensors[key], original.tensors[key]) for key in original.tensors)
        again.build()
    assert not list(tmp_path.glob(".*"))


def test_a_bare_state_dict_of_iddpm_loads_with_its_config(checkpoint, tmp_path):
    original = pretrained.read(checkpoint("iddpm_adm"))
    torch.save({**original.tensors, "u": public_levels()}, tmp_path / "bare.pt")
    again = pretrained.read(tmp_path / "bare.pt", config=original.config)
    assert again.build().state_dict().keys() == original.tensors.keys()


def test_partial_checkpoints_say_what_is_missing_extra_and_misshapen(checkpoint, tmp_path):
    original = pretrained.read(checkpoint("vp_ddpmpp"))
    tensors = dict(original.tensors)
    del tensors["model.map_layer0.weight"]
    tensors["model.surplus"] = torch.ones(1)
    tensors["model.map_layer1.bias"] = torch.ones(3)
    with pytest.raises(CheckpointRefused) as refusal:
        original._replace(tensors=tensors).build()
    said = str(refusal.value)
    assert "1 missing: model.map_layer0.weight" in said
    assert "1 extra: model.surplus" in said
    assert "1 misshapen: model.map_layer1.bias is [3], expected [128]" in said
    torch.save({"state_dict": tensors}, tmp_path / "bare.pt")
    with pytest.raises(CheckpointRefused, match="does not say what network"):
        pretrained.read(tmp_path / "bare.pt")
    with pytest.raises(CheckpointRefused, match="1 missing"):
        pretrained.read(tmp_path / "bare.pt", config=original.config).build()


def test_foreign_pt_files_with_code_are_refused_by_name(tmp_path):
    canary = tmp_path / "canary"
    torch.save({"model": hostile.Call(__import__("os").system, f"touch {canary}")}, tmp_path / "x.pt")
    with pytest.raises(CheckpointRefused, match=r"(posix|nt)\.system"):
        pretrained.read(tmp_path / "x.pt")
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(CheckpointRefused, match="cannot be read as safetensors"):
        pretrained.read(tmp_path / "x.safetensors")
    assert not canary.exists()


def test_diffusers_folders_load_and_say_what_is_wrong(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    from specreg.models.unet2d import from_folder, from_options, options_of

    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip
    unet.save_pretrained(tmp_path / "pipeline" / "unet")
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 7])
    for folder in (tmp_path / "pipeline", tmp_path / "pipeline" / "unet"):
        network = from_folder(folder).eval()
        with torch.no_grad():
            torch.testing.assert_close(network(x, t), unet(x, t).sample)
    again = from_options(options_of(network)).eval()
    again.load_state_dict(network.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(again(x, t), unet(x, t).sample)
    with pytest.raises(FileNotFoundError, match=r"unet/config.json"):
        from_folder(tmp_path)


def _alone(kind):
    """A checkpoint whose network is of class `kind`."""
    return hostile.program(b"}", hostile.text("ema"), hostile.network(("img_resolution", b"K\x08"), kind=kind), b"s")


def test_networks_of_the_second_generation_are_named(tmp_path):
    """EDM2 keeps a network of class Precond in an EasyDict; neither name is a misspelling of one of EDM's."""
    words = r"x\.pkl: is a network of EDM2, .*; expected one of EDM's, of class EDMPrecond, VPPrecond, VEPrecond or iDD"
    (tmp_path / "x.pkl").write_bytes(_alone("Precond"))
    with pytest.raises(CheckpointRefused, match=words) as caught:
        pretrained.read(tmp_path / "x.pkl")
    assert "did you mean" not in str(caught.value)

    easy = type("EasyDict", (dict,), {"__module__": "dnnlib.util"})
    modules = {"dnnlib": types.ModuleType("dnnlib"), "dnnlib.util": types.ModuleType("dnnlib.util")}
    modules["dnnlib.util"].EasyDict = easy
    for protocol in (2, 5):
        with mock.patch.dict(sys.modules, modules):
            (tmp_path / "x.pkl").write_bytes(pickle.dumps(easy(ema=None, loss_fn=None), protocol))
        with pytest.raises(CheckpointRefused, match=words):
            pretrained.read(tmp_path / "x.pkl")


def test_a_class_in_a_file_is_no_misspelling(tmp_path):
    (tmp_path / "x.pkl").write_bytes(_alone("WPPrecond"))
    with pytest.raises(CheckpointRefused, match=r"must be one of EDMPrecond, .*; got 'WPPrecond'$"):
        pretrained.read(tmp_path / "x.pkl")
