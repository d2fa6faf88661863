"""Checkpoints that are either whole or not there: written beside their final name, then renamed.

A checkpoint is a folder `step-00001000` with `model.safetensors` and `ema.safetensors` (config in the metadata),
`optimizer.pt` (tensors and numbers only: read with weights_only=True), `state.json`, and `checksums.json` with the
SHA-256 of each, checked on load.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from specreg._files import flush_to_disk, read_json, write_json, write_safetensors

_NAME = re.compile(r"step-(\d{8})")


class Checkpoint(NamedTuple):
    """All that a run needs to resume."""

    step: int
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Any]
    state: dict[str, Any]  # shape of one x0, network, sources, EMA updates, seconds, states of scaler and λ


class Source(NamedTuple):
    """A file or folder that a run is made of."""

    path: str  # absolute
    content: str | None  # digest of its content; None where nothing is there

    def same(self, other: Source) -> bool:
        """Return whether both are the same data; where one is not there any more, whether they were at one place."""
        if self.content is None or other.content is None:
            return self.path == other.path
        return self.content == other.content


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: which file, and why."""


def save(folder: Path, checkpoint: Checkpoint, *, config: str, keep: int) -> Path:
    """Write a checkpoint into `folder`, keep the last `keep`, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{checkpoint.step:08d}"
    partial = folder / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    metadata = {"config": config, "step": str(checkpoint.step)}
    write_safetensors(partial / "model.safetensors", _contiguous(checkpoint.model), metadata)
    write_safetensors(partial / "ema.safetensors", _contiguous(checkpoint.ema), metadata)
    torch.save(checkpoint.optimizer, partial / "optimizer.pt")
    write_json(partial / "state.json", {"step": checkpoint.step, **checkpoint.state})
    sums = {path.name: _sha256(path) for path in sorted(partial.iterdir())}
    write_json(partial / "checksums.json", sums)
    for path in partial.iterdir():
        flush_to_disk(path)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    for old in _steps(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`, if there is one."""
    found = _steps(folder)
    return found[-1] if found else None


def load(path: Path) -> Checkpoint:
    """Read a checkpoint, verifying every file against its checksum."""
    _verify(path)
    state = read_json(path / "state.json")
    optimizer = torch.load(path / "optimizer.pt", weights_only=True, map_location="cpu")
    step = state.pop("step")
    return Checkpoint(
        step, load_file(path / "model.safetensors"), load_file(path / "ema.safetensors"), optimizer, state
    )


def load_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint's numbers alone, without its tensors."""
    state: dict[str, Any] = read_json(path / "state.json")
    return state


def sources(state: Mapping[str, Any]) -> dict[str, Source]:
    """Return the files and folders that a run is made of, by the names of their fields, from a checkpoint's state."""
    return {key: Source(*source) for key, source in state.get("sources", {}).items()}


def load_ema(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what sampling needs of a checkpoint, verified: the averaged weights, and the state with the step."""
    _verify(path)
    return load_file(path / "ema.safetensors"), read_json(path / "state.json")


def _verify(path: Path) -> None:
    for name, expected in read_json(path / "checksums.json").items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{file}: is missing from the checkpoint")
        if _sha256(file) != expected:
            raise CheckpointError(
                f"{file}: does not match its checksum; move {path} elsewhere to resume from the checkpoint before it"
            )


def _steps(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
