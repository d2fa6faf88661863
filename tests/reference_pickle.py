"""Write a network as the public checkpoints store theirs, through Python's own pickle: for tests and measurements."""

import pickle
import sys
import types
from contextlib import contextmanager

import torch

PERSISTENCE = "torch_utils.persistence"


def _reconstruct_persistent_obj(meta):
    raise AssertionError("this is only a name to pickle")


class _Persistent:
    """Pickles as the public code's persistent objects do."""

    def __init__(self, class_name, state):
        self.class_name, self.state = class_name, state

    def __reduce__(self):
        function = sys.modules[PERSISTENCE]._reconstruct_persistent_obj
        meta = {"type": "class", "version": 6, "module_src": "raise SystemExit('code was run')",
                "class_name": self.class_name, "state": self.state}  # fmt: skip
        return function, (meta,)


@contextmanager
def _names():
    module = types.ModuleType(PERSISTENCE)
    function = types.FunctionType(_reconstruct_persistent_obj.__code__, {}, "_reconstruct_persistent_obj")
    function.__module__, function.__qualname__ = PERSISTENCE, "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = function
    parent = types.ModuleType("torch_utils")
    parent.persistence = module
    sys.modules |= {"torch_utils": parent, PERSISTENCE: module}
    try:
        yield
    finally:
        del sys.modules["torch_utils"], sys.modules[PERSISTENCE]


def _module(tensors, prefix=""):
    """The state of a module: its own tensors, and its submodules by their first name."""
    own, below = {}, {}
    for name, tensor in tensors.items():
        head, dot, rest = name.partition(".")
        (below.setdefault(head, {}) if dot else own)[rest if dot else head] = tensor
    buffers = {name: tensor for name, tensor in own.items() if name in ("resample_filter", "freqs", "u")}
    parameters = {name: torch.nn.Parameter(t) for name, t in own.items() if name not in buffers}
    modules = {}
    for name, inner in below.items():
        state = _module(inner, f"{prefix}{name}.")
        if name in ("enc", "dec"):
            modules[name] = torch.nn.ModuleDict()
            modules[name].__dict__["_modules"] = state["_modules"]
        else:
            modules[name] = _Persistent("Module", state)
    return {"training": False, "_parameters": parameters, "_buffers": buffers, "_modules": modules,
            "_non_persistent_buffers_set": set(), "_init_args": (), "_init_kwargs": {}}  # fmt: skip


CLASSES = {"edm": "EDMPrecond", "vp": "VPPrecond", "ve": "VEPrecond", "iddpm": "iDDPMPrecond"}


def write(path, config, tensors, *, loss_fn=None):
    """Write `tensors` of a SongUNet or ADM `config` (a NetworkConfig with the preconditioning's default options)."""
    assert not config.preconditioning_options
    kinds = {"songunet": ("SongUNet", {"decoder_type": "standard"}), "adm": ("DhariwalUNet", {})}
    model_type, fixed = kinds[config.architecture]
    state = _module(tensors)
    keywords = {name: value for name, value in config.network.items() if name != "out_channels"}
    state["_init_kwargs"] = {**keywords, **fixed, "model_type": model_type, "use_fp16": False}
    with _names(), path.open("wb") as file:
        ema = _Persistent(CLASSES[config.preconditioning], state)
        pickle.dump({"ema": ema, "loss_fn": loss_fn, "augment_pipe": None,
                     "dataset_kwargs": {"class_name": "training.dataset.ImageFolderDataset"}}, file)  # fmt: skip


def write_tiny(path):
    """Write a small conditional NCSN++ for 32×32 images of 10 classes, as CIFAR-10's checkpoint is; return the path."""
    from specreg.models.network_config import NetworkConfig

    options = {"img_resolution": 32, "img_channels": 3, "label_dim": 10, "augment_dim": 9, "model_channels": 16,
               "channel_mult": [1, 1], "num_blocks": 1, "attn_resolutions": [16], "dropout": 0.13,
               "embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2,
               "resample_filter": [1, 3, 3, 1]}  # fmt: skip
    config = NetworkConfig("songunet", "edm", options)
    write(path, config, config.build(seed=0).state_dict())
    return path
