"""Bad checkpoints of EDM networks and of DiffWave, converted and trained from."""

import io
import os
import warnings
from functools import cache, partial

import torch

from bad_inputs.case import Case, train
from models import hostile

OPTIONS = {"img_resolution": 16, "img_channels": 1, "model_channels": 8, "channel_mult": [1], "num_blocks": 1,
           "attn_resolutions": []}  # fmt: skip


@cache
def _tensors():
    from specreg.models.network_config import NetworkConfig

    return NetworkConfig("songunet", "edm", OPTIONS).build().state_dict()


def _saved(value) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(value, buffer)
    return buffer.getvalue()


def _network(tensors=None, **changes) -> bytes:
    """A .pt file of a network, with other options or tensors."""
    import json

    options = {**OPTIONS, **{name: value for name, value in changes.items() if name in OPTIONS or name[0] != "_"}}
    described = {"architecture": "songunet", "preconditioning": "edm", "network": options, **changes.get("_whole", {})}
    return _saved({"network": json.dumps(described), "tensors": tensors if tensors is not None else _tensors()})


def _with(change):
    name = "model.map_layer0.weight"
    return {**_tensors(), name: change(_tensors()[name])}


OPTION_CASES = [
    ("resample_filter", [0, 0], "resample_filter must be taps whose sum is positive"),
    ("resample_filter", [1, float("nan")], "resample_filter must be a finite number; got nan"),
    ("resample_filter", [], "resample_filter must not be empty"),
    ("img_resolution", 0, "img_resolution must be whole, from 1"),
    ("img_resolution", 10**9, "img_resolution must be whole, from 1"),
    ("img_resolution", True, "img_resolution must be whole, from 1"),
    ("img_channels", 0, "img_channels must be whole, from 1"),
    ("model_channels", 0, "model_channels must be whole, from 1"),
    ("model_channels", 10**9, "model_channels must be whole, from 1"),
    ("channel_mult", [], "channel_mult must not be empty"),
    ("channel_mult", [0], "channel_mult must be whole, from 1"),
    ("channel_mult", [1] * 100, "channel_mult must be a short list"),
    ("channel_mult", "abc", "channel_mult must be a short list"),
    ("num_blocks", 0, "num_blocks must be whole, from 1"),
    ("num_blocks", 10**9, "num_blocks must be whole, from 1"),
    ("num_blocks", 1.5, "num_blocks must be whole, from 1"),
    ("dropout", float("nan"), "dropout must be"),
    ("dropout", 2, "dropout must be at least 0 and below 1"),
    ("label_dim", -1, "label_dim must be whole, from 0"),
    ("label_dim", 10**30, "label_dim must be whole, from 0"),
    ("embedding_type", 3, "embedding_type must be a name"),
    ("embedding_type", "x" * 100_000, "embedding_type must be one of"),
    ("nothing", 3, "has no option 'nothing'"),
    ("_whole", {"architecture": "x"}, "architecture must be one of"),
    ("_whole", {"preconditioning": "x"}, "preconditioning must be one of"),
    ("_whole", {"network": []}, "expected the JSON|network"),
    ("_whole", {"architecture": [1]}, "architecture must be a name; got a list"),
    ("_whole", {"preconditioning_options": {"sigma_data": float("inf")}}, "sigma_data must be a finite number"),
    ("_whole", {"preconditioning_options": {"x": 1}}, "no option 'x'"),
    ("_whole", {"preconditioning_options": 3}, "error"),
    ("_whole", {"more": 3}, "expected the JSON"),
]
TENSOR_CASES = [
    ("complex", lambda t: t.to(torch.complex64), "model.map_layer0.weight is complex"),
    ("sparse", lambda t: t.to_sparse(), "model.map_layer0.weight is sparse|cannot be read as a torch file"),
    ("on meta", lambda t: t.to("meta"), "model.map_layer0.weight is without content"),
    ("NaN", lambda t: t * float("nan"), "model.map_layer0.weight is not finite"),
    ("infinite", lambda t: t.fill_(1).mul(float("inf")), "model.map_layer0.weight is not finite"),
    ("int64", lambda t: t.long(), "model.map_layer0.weight is of torch.int64"),
    ("bool", lambda t: t.bool(), "model.map_layer0.weight is of torch.bool"),
    ("of size 0", lambda t: t[:0], "1 misshapen"),
    ("of 10^12 repeats", lambda t: t.flatten()[:1].expand(10**6, 10**6), "1 misshapen|cannot be read"),
    ("text", lambda t: "x", "1 missing"),
]
FILES = [
    ("nothing", "x.pt", b"", "x.pt: cannot be read .*is empty"),
    ("text", "x.pt", b"hello world, this is text", "x.pt: cannot be read .*is text"),
    ("a web page", "x.pt", b"<!DOCTYPE html><title>404</title>", "x.pt: cannot be read .*is a web page"),
    ("an LFS pointer", "x.pkl", b"version https://git-lfs.github.com/spec/v1\n", "x.pkl: is a Git LFS pointer"),
    ("cut short", "x.pt", _saved({"a": torch.ones(99)})[:300], "x.pt: cannot be read"),
    ("a list", "x.pt", _saved([1, 2]), "x.pt: expected a dict of tensors; got list"),
    ("a dict of numbers", "x.pt", _saved({"a": 1}), "x.pt: expected a dict of tensors; got keys a"),
    ("no config", "x.pt", _saved({"a": torch.ones(2)}), "x.pt: does not say what network it holds"),
    ("a config of 10^5 levels", "x.pt", _saved({"network": "[" * 100_000, "tensors": {"a": torch.ones(1)}}), "x.pt"),
    ("10^5 characters", "x.pt", _saved({"network": "x" * 100_000, "tensors": {"a": torch.ones(1)}}), "x.pt"),
    ("code", "x.pt", _saved({"a": hostile.Call(os.system, "touch canary")}), r"x.pt: .*(posix|nt)\.system"),
    ("nothing", "x.safetensors", b"", "x.safetensors: cannot be read as safetensors: it is empty"),
    ("a header of 2^63", "x.safetensors", b"\xff" * 64, "x.safetensors: cannot be read as safetensors"),
    ("a header cut short", "x.safetensors", b"\x10" + bytes(7) + b"{", "x.safetensors: cannot be read as safetensors"),
    ("no tensors", "x.safetensors", b"\x02" + bytes(7) + b"{}", "x.safetensors: does not say what network"),
    ("another ending", "x.bin", b"x", "suffix must be one of"),
    ("nothing", "x.pkl", b"", "x.pkl: expected 1 to"),
]  # fmt: skip


def _convert(name, content, folder):
    (folder / name).write_bytes(content() if callable(content) else content)
    return ["convert", name, "out.safetensors"]


def _train(name, content, folder):
    (folder / name).write_bytes(content() if callable(content) else content)
    return train(folder, "model.kind=pretrained", f"model.checkpoint={name}", "diffusion.objective=edm",
                 "diffusion.prediction=null", "sampling.sampler=heun")  # fmt: skip


def _device(folder):
    (folder / "x.pkl").symlink_to("/dev/zero")
    return ["convert", "x.pkl", "out.safetensors"]


def _folder(folder):
    (folder / "x").mkdir()
    return ["convert", "x", "out.safetensors"]


def _fast_pickles():
    """The hostile pickles of the reader's own tests; the canary is seen by the rule that nothing is written."""
    return [(name, content) for name, content, _ in hostile.cases("canary")]


def _vocoder(change):
    def make(folder):
        from specreg.models.diffwave import DiffWave, DiffWaveConfig

        small = {"residual_layers": 2, "residual_channels": 4, "n_mels": 8, "n_fft": 128, "hop_samples": 32,
                 "sample_rate": 8000, "crop_mel_frames": 16, "upsample_factors": [4, 8]}  # fmt: skip
        network = DiffWave(DiffWaveConfig(**{**small, "upsample_factors": (4, 8)}))
        stored = {"step": 3, "model": dict(network.state_dict()), "params": small}
        change(stored)
        torch.save(stored, folder / "x.pt")
        (folder / "clips").mkdir()
        (folder / "sound.yaml").write_text(
            "data: {kind: audio, path: clips, held_out: 0.5}\nmodel: {kind: pretrained, checkpoint: x.pt}\n"
        )
        return ["train", "sound.yaml", "training.steps=1"]

    return make


def _set(key, name, value):
    return lambda stored: stored[key].__setitem__(name, value)


WEIGHT = "residual_layers.0.dilated_conv.weight"
VOCODERS = [
    ("a NaN weight", lambda s: s["model"][WEIGHT].fill_(float("nan")), f"x.pt: .*{WEIGHT} is not finite"),
    ("a complex weight", lambda s: s["model"].update({WEIGHT: s["model"][WEIGHT].to(torch.complex64)}), "is complex"),
    ("no model", lambda s: s.pop("model"), "x.pt: expected a dict with the network's tensors under 'model'"),
    ("no params", lambda s: s.pop("params"), "x.pt: holds no 'params'"),
    ("params of a list", lambda s: s.update(params=[1]), "x.pt: expected a dict under 'params'"),
    ("10^9 layers", _set("params", "residual_layers", 10**9), "x.pt: params: residual_layers must be"),
    ("0 channels", _set("params", "residual_channels", 0), "x.pt: params: residual_channels must be"),
    ("channels of true", _set("params", "residual_channels", True), "x.pt: params: residual_channels must be"),
    ("a schedule of text", _set("params", "noise_schedule", "x"), "x.pt: params: noise_schedule must be"),
    ("a schedule of NaN", _set("params", "noise_schedule", [float("nan")]), "x.pt: params: noise_schedule must hold"),
    ("other factors", _set("params", "upsample_factors", [0.5, 64]), "x.pt: params: upsample_factors must be"),
    ("factors of a number", _set("params", "upsample_factors", 5), "x.pt: params: upsample_factors must be"),
    ("a step of text", lambda s: s.update(step="x"), "x.pt: step: expected a whole number"),
    ("a negative step", lambda s: s.update(step=-1), "x.pt: step: expected a whole number"),
    ("a missing weight", lambda s: s["model"].pop(WEIGHT), f"x.pt: .*missing: {WEIGHT}"),
    ("a weight more", lambda s: s["model"].update(x=torch.ones(1)), "x.pt: .*not expected: x"),
]

CASES = [
    *(Case(f"pickle: {name}", partial(_convert, "x.pkl", content), r"x\.pkl: ") for name, content in _fast_pickles()),
    *(Case(f"{file}: {name}", partial(_convert, file, content), words) for name, file, content, words in FILES),
    *(Case(f"option: {name} = {str(value)[:30]}", partial(_convert, "x.pt", partial(_network, **{name: value})),
           rf"x\.pt: .*({words})" if words != "error" else r"x\.pt: ") for name, value, words in OPTION_CASES),
    *(Case(f"tensor: {name}", partial(_convert, "x.pt", lambda change=change: _network(_with(change))),
           rf"x\.pt: .*({words})") for name, change, words in TENSOR_CASES),
    *(Case(f"train: tensor {name}", partial(_train, "x.pt", lambda change=change: _network(_with(change))), words)
      for name, change, words in TENSOR_CASES[:5]),
    *(Case(f"vocoder: {name}", _vocoder(change), words) for name, change, words in VOCODERS),
    Case("a link to /dev/zero", _device, "no such checkpoint: x.pkl"),
    Case("an empty folder", _folder, "x: expected a run folder with a config.yaml"),
]  # fmt: skip
