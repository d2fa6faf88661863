"""DiffWave checkpoints in the public format: a dict with `model`, `params`, `step`, read without running any code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from specreg import _checks
from specreg._files import whole_file
from specreg._torch_files import load_plain, unusable
from specreg.models.diffwave import DiffWave, DiffWaveConfig


class LoadedDiffWave(NamedTuple):
    """Contents of a DiffWave checkpoint."""

    model: DiffWave  # on the device asked for, in evaluation mode
    step: int  # optimizer steps it was trained for; 0 where the file does not say
    other_params: dict[str, Any]  # entries of `params` beside the network's: batch size, learning rate, …


def load_diffwave(
    path: str | Path, *, device: torch.device | str = "cpu", config: DiffWaveConfig | None = None
) -> LoadedDiffWave:
    """Return the network in a DiffWave checkpoint (`.pt`), read with `weights_only=True`.

    Args:
        path: the file, with a dict of tensors under `model`.
        device: device of the returned network.
        config: of the network, for a file without `params`; refused where the file has its own and they differ.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not such a checkpoint, its `params` are out of range, or its tensors are not those of
            the network that `params` describe; missing, unexpected and misshapen tensors are named.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    stored = load_plain(path)
    tensors = stored.get("model") if isinstance(stored, dict) else None
    if not isinstance(tensors, Mapping) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        held = sorted(map(str, stored)) if isinstance(stored, dict) else type(stored).__name__
        raise ValueError(f"{path}: expected a dict with the network's tensors under 'model'; got {held}")

    config, other = _config(path, stored.get("params"), tensors, config)
    with torch.device("meta"):
        expected = {name: list(tensor.shape) for name, tensor in DiffWave(config).state_dict().items()}
    _compare(path, expected, {str(name): list(tensor.shape) for name, tensor in tensors.items()})
    if bad := [f"{name} is {fault}" for name, tensor in tensors.items() if (fault := unusable(tensor)) is not None]:
        raise ValueError(f"{path}: expected finite floating-point tensors; {', '.join(bad[:5])}")
    step = stored.get("step", 0)
    if type(step) is not int or step < 0:
        raise ValueError(f"{path}: step: expected a whole number of at least 0; got {_checks.shown(step)}")
    with torch.random.fork_rng(devices=[]):
        model = DiffWave(config)
    model.load_state_dict(tensors)
    return LoadedDiffWave(model.to(device).eval(), step, other)


def save_diffwave(
    path: str | Path,
    model: DiffWave,
    *,
    step: int = 0,
    other_params: Mapping[str, Any] | None = None,
    optimizer: Mapping[str, Any] | None = None,
    scaler: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint in the public format, whole or not at all.

    Args:
        path: the file; its folder is created.
        model: the network.
        step: optimizer steps it was trained for.
        other_params: entries of `params` beside the network's own, such as batch_size; plain values.
        optimizer: a torch optimizer's `state_dict()`; the public training code needs it to resume, not to sample.
        scaler: a gradient scaler's `state_dict()`, likewise.
    """
    path = Path(path)
    params = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(model.config).items()}
    stored: dict[str, Any] = {
        "step": step,
        "model": {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()},
        "params": {**(other_params or {}), **params},
    }
    stored |= {name: value for name, value in (("optimizer", optimizer), ("scaler", scaler)) if value is not None}
    with whole_file(path) as file:
        torch.save(stored, file)


def _config(
    path: Path, params: Any, tensors: Mapping[str, Tensor], given: DiffWaveConfig | None
) -> tuple[DiffWaveConfig, dict[str, Any]]:
    """Return the network's configuration and the other entries of `params`."""
    if params is None:
        if given is None:
            raise ValueError(f"{path}: holds no 'params'; pass config=DiffWaveConfig(…) of its network")
        return given, {}
    if not isinstance(params, Mapping):
        raise ValueError(f"{path}: expected a dict under 'params'; got {type(params).__name__}")
    known = {field.name for field in fields(DiffWaveConfig)}
    ours = {name: value for name, value in params.items() if name in known}
    # Older files, from before the unconditional network, lack this entry.
    ours.setdefault("unconditional", "spectrogram_upsampler.conv1.weight" not in tensors)
    # A file for another hop does not say its strides, but its kernels are twice as long as they are.
    kernels = [tensors.get(f"spectrogram_upsampler.conv{i}.weight") for i in (1, 2)]
    if "upsample_factors" not in ours and all(kernel is not None and kernel.ndim == 4 for kernel in kernels):
        ours["upsample_factors"] = tuple(kernel.shape[-1] // 2 for kernel in kernels if kernel is not None)
    try:
        config = DiffWaveConfig(**ours)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: params: {error}") from None
    if given is not None and given != config:
        differ = [name for name in sorted(known) if getattr(given, name) != getattr(config, name)]
        raise ValueError(f"{path}: its params differ from the config given in {', '.join(differ)}")
    return config, {str(name): value for name, value in params.items() if name not in known}


def _few(names: list[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f", … {len(names) - most} more" if len(names) > most else "")


def _compare(path: Path, expected: Mapping[str, list[int]], found: Mapping[str, list[int]]) -> None:
    misshapen = [
        f"{name} {found[name]} instead of {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    faults = {
        "missing": [name for name in expected if name not in found],
        "not expected": [name for name in found if name not in expected],
        "wrong shape": misshapen,
    }
    if any(faults.values()):
        listed = "; ".join(f"{kind}: {_few(names)}" for kind, names in faults.items() if names)
        raise ValueError(f"{path}: its tensors are not those of the DiffWave that its params describe ({listed})")
