"""Trained networks from files: EDM pickles (no code is run), .safetensors and .pt.

A safetensors file carries its `NetworkConfig` as JSON under "network" in its metadata; a .pt file written here is
{"network": JSON, "tensors": {...}}, read with weights_only=True.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from specreg import _checks
from specreg._files import said, whole_file
from specreg._torch_files import load_plain, load_safetensors, unusable
from specreg.diffusion import precond
from specreg.diffusion.precond import Preconditioned
from specreg.models.network_config import NetworkConfig
from specreg.models.pickle_steps import CheckpointRefused
from specreg.models.pickles import Record, read_pickle

SUFFIXES = (".pkl", ".safetensors", ".pt", ".pth")
_NESTED = ("tensors", "ema", "model", "state_dict", "params")
_MOST_MODULES = 100_000


class Pretrained(NamedTuple):
    """A network as read from a file: its config, its tensors and the file's name."""

    config: NetworkConfig
    tensors: dict[str, Tensor]
    source: str

    def build(self, *, dropout: float | None = None) -> Preconditioned:
        """Return the network with its weights, in float32 and evaluation mode; `dropout` replaces the file's own.

        Raises CheckpointRefused where tensors are missing, extra or misshapen, before memory is allocated.
        """
        changes: dict[str, Any] = {} if dropout is None else {"dropout": dropout}
        check_tensors(self.tensors, _skeleton(self.config, self.source), self.source)
        network = self.config.build(**changes)
        network.load_state_dict({name: tensor.float() for name, tensor in self.tensors.items()})
        return network.eval()


def read(path: str | Path, *, config: NetworkConfig | None = None) -> Pretrained:
    """Return the network in a file with one of `SUFFIXES`; `config` describes it where the file does not.

    Raises FileNotFoundError for a missing file, ValueError that names the file and its fault for others.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    _checks.choice(f"{path}: suffix", path.suffix, SUFFIXES)
    if path.suffix == ".pkl":
        return _from_pickle(path)
    text, tensors = _from_safetensors(path) if path.suffix == ".safetensors" else _from_torch(path)
    try:
        found = NetworkConfig.from_json(text) if text is not None else config
    except ValueError as error:
        raise CheckpointRefused(f"{path}: {error}") from None
    if found is None:
        raise CheckpointRefused(f"{path}: does not say what network it holds; expected a config beside it")
    return Pretrained(found, _without_levels(found, tensors, str(path)), str(path))


def save(path: str | Path, network: Pretrained | Preconditioned, *, config: NetworkConfig | None = None) -> None:
    """Write a network as .safetensors or .pt, whole or not at all; a module needs its `config`."""
    path = Path(path)
    _checks.choice(f"{path}: suffix", path.suffix, (".safetensors", ".pt"))
    if isinstance(network, Pretrained):
        config, tensors = network.config, network.tensors
    else:
        if config is None:
            raise TypeError("a module needs its config; got none")
        tensors = network.state_dict()
    where = network.source if isinstance(network, Pretrained) else f"{path}: the network to write"
    check_tensors(tensors, _skeleton(config, where), where)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with whole_file(path) as file:
        if path.suffix == ".pt":
            torch.save({"network": config.to_json(), "tensors": tensors}, file)
        else:
            from safetensors.torch import save as serialized

            file.write(serialized(tensors, metadata={"network": config.to_json()}))


def _skeleton(config: NetworkConfig, where: str) -> dict[str, Tensor]:
    """Return the tensors of a config's network without content; CheckpointRefused where there is no such network."""
    try:
        return config.skeleton().state_dict()
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:  # of sizes that no layer has, for example
        raise CheckpointRefused(f"{where}: {said(error)}") from None


def describe(network: Pretrained) -> str:
    """Return a network in words: architecture, preconditioning, number of parameters."""
    config = network.config
    parameters = sum(p.numel() for p in config.skeleton().parameters())
    return f"{config.architecture} under {config.preconditioning} preconditioning, {parameters:,} parameters"


def _without_levels(config: NetworkConfig, tensors: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return `tensors` without iDDPM's buffer `u`, the noise levels, which follow from the config.

    Raises CheckpointRefused where the file's levels differ from the config's: c_noise would be wrong.
    """
    if config.preconditioning != "iddpm" or "u" not in tensors:
        return tensors
    expected = precond.IDDPM(**config.preconditioning_options).levels()
    levels = tensors["u"]
    same_shape = levels.shape == expected.shape and unusable(levels) is None
    # The public class computes the levels one from another in float32: its smallest are off by 5e-4.
    if not same_shape or not torch.allclose(levels.double(), expected, rtol=1e-3, atol=0.0):
        raise CheckpointRefused(
            f"{where}: its noise levels `u` {list(levels.shape)} are not those of iDDPM with "
            f"{config.preconditioning_options or 'default options'}, {len(expected)} from {expected[0]:.5g} to 0"
        )
    return {name: tensor for name, tensor in tensors.items() if name != "u"}


def check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> None:
    """Raise CheckpointRefused that names the missing, extra, misshapen and unusable tensors of `found`."""
    problems = []
    for kind, names in (("missing", expected.keys() - found.keys()), ("extra", found.keys() - expected.keys())):
        if names:
            problems.append(f"{len(names)} {kind}: {_few(sorted(names))}")
    wrong = [
        f"{name} is {list(found[name].shape)}, expected {list(expected[name].shape)}"
        for name in sorted(expected.keys() & found.keys())
        if found[name].shape != expected[name].shape
    ]
    if wrong:
        problems.append(f"{len(wrong)} misshapen: {_few(wrong)}")
    if not problems:
        bad = [f"{name} is {fault}" for name in sorted(found) if (fault := unusable(found[name])) is not None]
        if bad:
            raise CheckpointRefused(f"{where}: expected finite floating-point tensors; {_few(bad)}")
    if problems:
        raise CheckpointRefused(f"{where}: its tensors are not this network's; {'; '.join(problems)}")


def _few(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f", … {len(names) - most} more" if len(names) > most else "")


def _from_pickle(path: Path) -> Pretrained:
    content = read_pickle(path)
    network = content.get("ema") if isinstance(content, dict) else None
    if not isinstance(network, Record):
        raise CheckpointRefused(f"{path}: expected a dict with the network under 'ema'; got {_described(content)}")
    keywords, positional = network.state.get("_init_kwargs"), network.state.get("_init_args")
    if not isinstance(keywords, dict) or positional:
        raise CheckpointRefused(f"{path}: expected the network's keyword arguments under _init_kwargs; there are none")
    try:
        config = NetworkConfig.from_reference(network.class_name, keywords)
        return Pretrained(config, _without_levels(config, _tensors(network), str(path)), str(path))
    except CheckpointRefused as refusal:
        raise CheckpointRefused(f"{path}: {refusal}") from None
    except ValueError as error:
        raise CheckpointRefused(f"{path}: {error}") from None


def _described(content: Any) -> str:
    return f"keys {', '.join(map(str, content))}"[:200] if isinstance(content, dict) else type(content).__name__


def _tensors(network: Record) -> dict[str, Tensor]:
    """Return parameters and buffers of a record and its submodules, by their dotted names."""
    tensors: dict[str, Tensor] = {}
    visited = 0

    def walk(record: Any, prefix: str, above: tuple[int, ...]) -> None:
        nonlocal visited
        visited += 1
        if not isinstance(record, Record):
            raise CheckpointRefused(f"{prefix.rstrip('.')}: expected a module; got {type(record).__name__}")
        if id(record) in above or len(above) > 32 or visited > _MOST_MODULES:
            raise CheckpointRefused(f"{prefix.rstrip('.')[:200]}: modules contain themselves, or are too many")
        for kind in ("_parameters", "_buffers"):
            for name, tensor in _entries(record, kind, prefix):
                if isinstance(tensor, Tensor):
                    tensors[f"{prefix}{name}"] = tensor
                elif tensor is not None:
                    raise CheckpointRefused(f"{prefix}{name}: expected a tensor; got {type(tensor).__name__}")
        for name, module in _entries(record, "_modules", prefix):
            if module is not None:
                walk(module, f"{prefix}{name}.", (*above, id(record)))

    walk(network, "", ())
    return tensors


def _entries(record: Record, kind: str, prefix: str) -> list[tuple[Any, Any]]:
    found = record.state.get(kind, {})
    if not isinstance(found, dict):
        raise CheckpointRefused(f"{prefix}{kind}: expected a dict; got {type(found).__name__}")
    return list(found.items())


def _from_safetensors(path: Path) -> tuple[str | None, dict[str, Tensor]]:
    try:
        metadata, tensors = load_safetensors(path)
    except ValueError as error:
        raise CheckpointRefused(str(error)) from None
    return metadata.get("network"), tensors


def _from_torch(path: Path) -> tuple[str | None, dict[str, Tensor]]:
    """Return config and tensors of a .pt file: one that `save` wrote, a state dict, or a dict that holds one."""
    try:
        content = load_plain(path)
    except ValueError as error:
        raise CheckpointRefused(str(error)) from None
    if not isinstance(content, dict):
        raise CheckpointRefused(f"{path}: expected a dict of tensors; got {type(content).__name__}")
    text = content.get("network")
    nested = next((content[key] for key in _NESTED if isinstance(content.get(key), dict)), content)
    tensors = {str(name): value for name, value in nested.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointRefused(f"{path}: expected a dict of tensors; got {_described(content)}")
    return (text if isinstance(text, str) else None), tensors
