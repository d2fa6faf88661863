"""Description of an EDM network as data, in JSON: architecture, preconditioning and their options."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from torch import nn

from specreg import _checks
from specreg._files import said
from specreg.diffusion import precond
from specreg.diffusion.precond import Preconditioned
from specreg.models.adm import ADM
from specreg.models.pickles import SECOND_GENERATION
from specreg.models.songunet import SongUNet

ARCHITECTURES: dict[str, type[nn.Module]] = {"songunet": SongUNet, "adm": ADM}

# The public checkpoints' names of the same classes and options.
_REFERENCE_NETWORKS = {"SongUNet": "songunet", "DhariwalUNet": "adm"}
_REFERENCE_PRECONDITIONINGS = {"EDMPrecond": "edm", "VPPrecond": "vp", "VEPrecond": "ve", "iDDPMPrecond": "iddpm"}
_REFERENCE_DEFAULT = {"edm": "DhariwalUNet", "vp": "SongUNet", "ve": "SongUNet", "iddpm": "DhariwalUNet"}
_REFERENCE_OPTIONS = {"M": "steps", "C_1": "c_1", "C_2": "c_2"}
# Options of the public classes: those that must have this value here, and one that says nothing about the weights.
_FIXED = {"decoder_type": "standard", "label_dropout": 0}
_IGNORED = ("use_fp16",)

# Far beyond any known network. A config may come from a file of unknown origin, and building it must stay cheap.
_LARGEST = {
    "img_resolution": 4096,
    "img_channels": 1024,
    "out_channels": 2048,
    "label_dim": 100_000,
    "augment_dim": 1024,
    "model_channels": 4096,
    "channel_mult": 64,
    "channel_mult_emb": 64,
    "channel_mult_noise": 64,
    "num_blocks": 64,
    "attn_resolutions": 4096,
}

_MAY_BE_ZERO = ("label_dim", "augment_dim", "channel_mult_noise")


@dataclass(frozen=True)
class NetworkConfig:
    """Description of an EDM network without its weights.

    Args:
        architecture: "songunet" (DDPM++ and NCSN++) or "adm".
        preconditioning: "edm", "vp", "ve" or "iddpm".
        network: the architecture's keyword arguments.
        preconditioning_options: keyword arguments of the preconditioning, e.g. sigma_data.

    Raises ValueError for unknown names and for values that no such network has.
    """

    architecture: Literal["songunet", "adm"]
    preconditioning: Literal["edm", "vp", "ve", "iddpm"]
    network: Mapping[str, Any]
    preconditioning_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("architecture", "preconditioning"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be a name; got {_checks.shown(getattr(self, name))}")
        for name in ("network", "preconditioning_options"):
            if not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"{name} must be options with values; got {_checks.shown(getattr(self, name))}")
        _checks.choice("architecture", self.architecture, ARCHITECTURES)
        known = list(inspect.signature(ARCHITECTURES[self.architecture]).parameters)
        for name, value in self.network.items():
            if name not in known:
                raise ValueError(
                    f"{self.architecture} has no option {name!r}{_checks.nearest(name, known)}; "
                    f"it has {', '.join(known)}"
                )
            _check_option(name, value)
        if "img_resolution" not in self.network:
            raise ValueError(f"{self.architecture} needs img_resolution; got {', '.join(self.network) or 'no option'}")
        for name, value in self.preconditioning_options.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e30:
                raise ValueError(f"{name} must be a finite number; got {_checks.shown(value)}")
            if name == "steps" and not (isinstance(value, int) and 1 < value <= 100_000):
                raise ValueError(f"steps must be whole, from 2 to 100000; got {_checks.shown(value)}")
        channels = self.network.get("img_channels", 3)
        outputs = self.network.get("out_channels", channels)
        if outputs not in ((channels, 2 * channels) if self.preconditioning == "iddpm" else (channels,)):
            raise ValueError(
                f"out_channels must equal img_channels, {channels}, or be twice as many under iddpm preconditioning; "
                f"got {outputs} under {self.preconditioning}"
            )
        precond.build(self.preconditioning, **self.preconditioning_options)

    @classmethod
    def from_reference(cls, preconditioning: str, keywords: Mapping[str, Any]) -> NetworkConfig:
        """Return the config for a class name and keyword arguments as the public checkpoints record them."""
        if preconditioning == "Precond":
            raise ValueError(SECOND_GENERATION)
        _known_class("the network's class", preconditioning, _REFERENCE_PRECONDITIONINGS)
        kind = _REFERENCE_PRECONDITIONINGS[preconditioning]
        given = dict(keywords)
        model_type = given.pop("model_type", _REFERENCE_DEFAULT[kind])
        if not isinstance(model_type, str):
            raise ValueError(f"model_type must be a name; got {_checks.shown(model_type)}")
        _known_class("model_type", model_type, _REFERENCE_NETWORKS)
        for name, expected in _FIXED.items():
            if given.pop(name, expected) != expected:
                raise ValueError(f"{name} must be {expected!r} here; got {_checks.shown(keywords[name])}")
        for name in _IGNORED:
            given.pop(name, None)
        names = {item.name for item in fields(precond.PRECONDITIONINGS[kind])}
        options = {_REFERENCE_OPTIONS.get(name, name): value for name, value in given.items()}
        if kind == "iddpm":
            # The class doubles the channels by itself: the second half predicts a variance.
            channels = options.setdefault("img_channels", 3)
            _check_option("img_channels", channels)
            options["out_channels"] = 2 * channels
        return cls(
            _REFERENCE_NETWORKS[model_type],  # type: ignore[arg-type]
            kind,  # type: ignore[arg-type]
            {name: value for name, value in options.items() if name not in names},
            {name: value for name, value in options.items() if name in names},
        )

    @classmethod
    def from_json(cls, text: str) -> NetworkConfig:
        """Return the config that `to_json` wrote; raises ValueError for any other text."""
        try:
            tree = json.loads(text)
            return cls(**tree)
        except (TypeError, RecursionError) as error:
            raise ValueError(f"expected the JSON of a network config; got {text[:80]!r} ({said(error)})") from None

    def to_json(self) -> str:
        """Return the config as one line of JSON."""
        return json.dumps(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the config as plain values that JSON can hold."""
        return {item.name: _plain(getattr(self, item.name)) for item in fields(self)}

    def build(self, *, seed: int = 0, **changes: Any) -> Preconditioned:
        """Return the network with initial weights that depend on `seed` alone; `changes` replace its options."""
        options = {**self.network, **changes}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = ARCHITECTURES[self.architecture](**options)
        return Preconditioned(model, precond.build(self.preconditioning, **self.preconditioning_options))

    def skeleton(self, **changes: Any) -> Preconditioned:
        """Return the network on the meta device: names and shapes of its tensors without memory."""
        with torch.device("meta"):
            return self.build(**changes)


def _known_class(what: str, name: str, known: Mapping[str, str]) -> None:
    """Raise ValueError for another class; no name is near another one, because a program wrote them."""
    if name not in known:
        raise ValueError(f"{what} must be one of {', '.join(known)}; got {_checks.shown(name)}")


def _check_option(name: str, value: Any) -> None:
    """Raise ValueError for an option value that no network of these architectures has."""
    many = name in ("channel_mult", "attn_resolutions", "resample_filter")
    if many and not (isinstance(value, (list, tuple)) and len(value) <= 16):
        raise ValueError(f"{name} must be a short list of numbers; got {_checks.shown(value)}")
    for item in value if many else (value,):
        if name in _LARGEST:
            least = 0 if name in _MAY_BE_ZERO else 1
            if not (type(item) is int and least <= item <= _LARGEST[name]):
                raise ValueError(f"{name} must be whole, from {least} to {_LARGEST[name]}; got {_checks.shown(item)}")
        elif name == "periodic":
            if not isinstance(item, bool):
                raise ValueError(f"periodic must be true or false; got {_checks.shown(item)}")
        elif name in ("embedding_type", "encoder_type"):
            if not isinstance(item, str):
                raise ValueError(f"{name} must be a name; got {_checks.shown(item)}")
        elif isinstance(item, bool) or not isinstance(item, (int, float)) or not abs(item) < 1e30:
            raise ValueError(f"{name} must be a finite number; got {_checks.shown(item)}")
    if name == "dropout" and not 0 <= value < 1:
        raise ValueError(f"dropout must be at least 0 and below 1; got {value}")
    if name in ("channel_mult", "resample_filter") and not value:
        raise ValueError(f"{name} must not be empty")
    if name == "resample_filter" and not sum(value) > 0:
        raise ValueError(f"resample_filter must be taps whose sum is positive; got {list(value)}")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
