"""Inputs and outputs recorded from the public implementations; `vectors/README.md` says how and what each key holds."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).with_name("vectors")
AUGMENTED = ("edm_ddpmpp", "edm_ddpmpp_cond", "edm_ncsnpp", "vp_ddpmpp", "ve_ncsnpp", "edm_adm_two_heads")
NETWORKS = (*AUGMENTED, "iddpm_adm")
DIFFWAVES = ("diffwave", "diffwave_unconditional")


def weight(name, shape):
    """The tensor of a recorded network, a function of its name and shape."""
    z = np.random.Generator(np.random.Philox(key=zlib.crc32(name.encode()))).standard_normal(shape)
    if name.endswith("freqs"):
        z = 16 * z
    elif len(shape) >= 2:
        z = z / math.sqrt(math.prod(shape[1:]))
    else:
        z = 1 + 0.1 * z if name.endswith("weight") else 0.1 * z
    return torch.from_numpy(z.astype(np.float32))


def load(name):
    """The constructor's keywords, the tensors by their keys, and the weights by their names."""
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    config = json.loads(str(arrays.pop("config")))
    shapes = json.loads(str(arrays.pop("shapes")))
    tensors = {key: torch.from_numpy(value) for key, value in arrays.items() if value.ndim}
    return config, tensors, {key: weight(key, shape) for key, shape in shapes.items()}


def limits(name):
    """The smallest and the largest σ of a recorded network."""
    with np.load(FOLDER / f"{name}.npz") as file:
        found = json.loads(str(file["limits"]))
    return found["sigma_min"], found["sigma_max"]


def fill(network, weights):
    """Put recorded weights into a network; only the filters that follow from its construction stay as they are."""
    own = network.state_dict()
    assert weights.keys() <= own.keys()
    rest = own.keys() - weights.keys()
    assert rest == {name for name in own if name.endswith("resample_filter")}
    network.load_state_dict({**own, **weights})
    return network.eval()


def denoiser(name):
    """One of `NETWORKS`, rebuilt with its weights, and its recorded tensors."""
    from specreg.models.network_config import NetworkConfig

    config, tensors, weights = load(name)
    network = NetworkConfig.from_reference(config.pop("precond"), config).build()
    return fill(network, weights), tensors


def condition(tensors):
    """Keyword arguments of the recorded network's call."""
    return {"labels": tensors["in/class_labels"]} if "in/class_labels" in tensors else {}


def relative(found, expected):
    """Norm of the difference over the norm of the expected values."""
    return float((found - expected).norm() / expected.norm())
