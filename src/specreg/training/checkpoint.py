"""Checkpoints that are either whole or not there: written beside their final name, then renamed.

A checkpoint is a folder `step-00001000` with `model.safetensors` and `ema.safetensors` (config in the metadata),
`optimizer.pt` (tensors and numbers only: read with weights_only=True), `state.json`, and `checksums.json` with the
SHA-256 of each, checked on load. Only states whose numbers are all finite are written and read.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import secrets
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from specreg._files import WriteError, create, read_json, sha256, sync, write_json, write_safetensors

FILES = ("model.safetensors", "ema.safetensors", "optimizer.pt", "state.json")
"""Files of a checkpoint besides `checksums.json`, which has an entry for each."""

_NAME = re.compile(r"step-(\d{8})")
_NUMBERS = ("shape", "ema_updates", "seconds")  # what every reader of state.json needs besides the step
_DAMAGE = (
    OSError, EOFError, SafetensorError, RuntimeError, ValueError, TypeError, LookupError, AttributeError,
    ArithmeticError, struct.error,
)  # fmt: skip


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
    """Write a checkpoint into `folder`, keep the last `keep`, and return its path.

    At every moment the newest of the finished checkpoints is in the folder, whole. Raises WriteError, which says what
    is safe, and leaves nothing half written; ValueError for a state that is not finite.
    """
    if bad := non_finite(checkpoint):
        raise ValueError(f"step {checkpoint.step}: {bad}; such a state is not saved")
    final = folder / f"step-{checkpoint.step:08d}"
    token = f"{os.getpid()}-{secrets.token_hex(4)}"  # processes of several machines may have one number
    partial, replaced = (folder / f".{final.name}.{token}.{end}" for end in ("partial", "replaced"))
    try:
        folder.mkdir(exist_ok=True)  # without its parents: a deleted run does not come back as checkpoints alone
        partial.mkdir()
        metadata = {"config": config, "step": str(checkpoint.step)}
        _save_tensors(partial / "model.safetensors", checkpoint.model, metadata)
        _save_tensors(partial / "ema.safetensors", checkpoint.ema, metadata)
        with create(partial / "optimizer.pt") as file:
            torch.save(checkpoint.optimizer, file)
        write_json(partial / "state.json", {"step": checkpoint.step, **checkpoint.state})
        write_json(partial / "checksums.json", {name: sha256(partial / name) for name in sorted(FILES)})
        for path in (*partial.iterdir(), partial):
            sync(path)
        if final.exists():
            final.rename(replaced)
        partial.rename(final)
        sync(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if replaced.exists() and not final.exists():
            replaced.rename(final)
        raise WriteError(_unwritten(final, checkpoint, error)) from error
    shutil.rmtree(replaced, ignore_errors=True)
    for old in _steps(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def latest(folder: Path) -> Path | None:
    """The newest checkpoint in `folder`, if there is one; whether it is damaged is seen when it is loaded."""
    found = _steps(folder)
    return found[-1] if found else None


def newest_whole(folder: Path, warn: Callable[[str], None]) -> tuple[Path, Checkpoint] | None:
    """The newest checkpoint that is not damaged, if there is one; damaged ones are set aside, each with a warning.

    Only for the process that may write to the run: what another left half done is removed or completed first.
    """
    tidy(folder)
    for path in reversed(_steps(folder)):
        try:
            return path, load(path)
        except CheckpointError as error:
            aside = _free(path.with_name(f"damaged-{path.name}"))
            path.rename(aside)
            before = latest(folder)
            instead = f"resuming from {before.name}" if before else "no checkpoint is left: training starts anew"
            warn(f"{error}; {path.name} is set aside as {aside.name}, {instead}")
    return None


def newest_averaged(folder: Path, warn: Callable[[str], None]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return what `load_ema` does of the newest checkpoint that is not damaged; None where there is no checkpoint.

    Nothing is set aside, and another process may train meanwhile: for a checkpoint that it replaces the next is taken.
    Raises CheckpointError, about the newest, where all are damaged.
    """
    tried: dict[Path, CheckpointError] = {}
    while left := [path for path in _steps(folder) if path not in tried]:
        try:
            found = load_ema(left[-1])
        except CheckpointError as error:
            tried[left[-1]] = error
            continue
        for path, fault in tried.items():
            if path.exists():
                warn(f"{fault}; {left[-1].name} is read instead")
        return found
    if tried:
        raise next(iter(tried.values()))
    return None


def tidy(folder: Path) -> None:
    """Remove what a killed process left half written; only for the process that may write to the run."""
    for path in folder.glob(".step-*.replaced"):
        final = folder / path.name.split(".")[1]
        if not final.exists():
            path.rename(final)
    for end in ("partial", "replaced"):
        for path in folder.glob(f".step-*.{end}"):
            shutil.rmtree(path, ignore_errors=True)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint, verifying every file against its checksum. Raises CheckpointError."""
    state = load_state(path)
    step = state.pop("step")
    optimizer = _read(path / "optimizer.pt", lambda file: torch.load(file, weights_only=True, map_location="cpu"))
    model, ema = (_read(path / name, load_file) for name in ("model.safetensors", "ema.safetensors"))
    found = Checkpoint(step, model, ema, optimizer, state)
    if bad := non_finite(found):
        raise CheckpointError(f"{path}: {bad}")
    return found


def load_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint's numbers alone, verified as a whole. Raises CheckpointError."""
    _verify(path)
    state: Any = _read(path / "state.json", read_json)
    if not isinstance(state, dict):
        raise CheckpointError(f"{path / 'state.json'}: expected an object; got {type(state).__name__}")
    if missing := [name for name in ("step", *_NUMBERS) if name not in state]:
        raise CheckpointError(f"{path / 'state.json'}: expected {missing[0]!r} in it; there is none")
    if f"step-{state['step']:08d}" != path.name:
        raise CheckpointError(f"{path / 'state.json'}: expected the step of its folder; got {state['step']}")
    return state


def sources(state: Mapping[str, Any]) -> dict[str, Source]:
    """Return the files and folders that a run is made of, by the names of their fields, from a checkpoint's state."""
    return {key: Source(*source) for key, source in state.get("sources", {}).items()}


def load_ema(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what sampling needs of a checkpoint, verified: the averaged weights, and the state with the step."""
    state, weights = load_state(path), _read(path / "ema.safetensors", load_file)
    if bad := _first_bad("averaged weight", weights.items()):
        raise CheckpointError(f"{path / 'ema.safetensors'}: {bad}")
    return weights, state


def non_finite(checkpoint: Checkpoint) -> str | None:
    """Say which tensor of a state has values that are not finite; None where all are finite."""
    moments = (
        (f"{parameter}.{name}", value)
        for parameter, values in checkpoint.optimizer.get("state", {}).items()
        for name, value in (values.items() if isinstance(values, Mapping) else ())
    )
    return (
        _first_bad("weight", checkpoint.model.items())
        or _first_bad("averaged weight", checkpoint.ema.items())
        or _first_bad("optimizer's state", moments)
    )


def _first_bad(kind: str, tensors: Any) -> str | None:
    found = [(name, t) for name, t in tensors if isinstance(t, Tensor) and t.is_floating_point()]
    finite: dict[torch.device, list[Tensor]] = {}
    for _, tensor in found:
        finite.setdefault(tensor.device, []).append(tensor.isfinite().all())
    if all(bool(torch.stack(flags).all()) for flags in finite.values()):  # one wait for each device
        return None
    name, bad = next((name, t) for name, t in found if not t.isfinite().all())
    return f"the {kind} {name!r} is not finite ({int((~bad.isfinite()).sum())} of {bad.numel()} values)"


def _save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors as .safetensors, with the same bytes for the same tensors and metadata. Raises OSError."""
    try:
        write_safetensors(path, {name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
    _sort_metadata(path)


def _sort_metadata(path: Path) -> None:
    """Sort the metadata in the header of a .safetensors file, whose order is another at each writing."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= size:  # as long as before: it is the same text in another order
            file.seek(8)
            file.write(text.ljust(size))


def _unwritten(final: Path, checkpoint: Checkpoint, error: OSError) -> str:
    """Return a sentence for a checkpoint that could not be written: why, what it needs, what is safe."""
    folder = final.parent
    if not folder.parent.is_dir():
        return f"{final}: cannot be written: the run's folder {folder.parent} is gone, and its checkpoints with it"
    tensors = [*checkpoint.model.values(), *checkpoint.ema.values(), *_tensors(checkpoint.optimizer)]
    needed = sum(t.numel() * t.element_size() for t in tensors)
    why = error.strerror or str(error)
    free = shutil.disk_usage(folder.parent).free
    kept = latest(folder)
    safe = f"{kept.name} is safe" if kept else "no earlier checkpoint is there"
    return (
        f"{final}: cannot be written ({why}); it needs {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free; {safe}: "
        f"remedy this and run the same command again to resume"
    )


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    for branch in tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, (list, tuple)) else ():
        yield from _tensors(branch)


def _verify(path: Path) -> None:
    """Raise CheckpointError unless all files are there and have the checksums that were written with them."""
    sums: Any = _read(path / "checksums.json", read_json)
    for name in FILES:
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{file}: is missing from the checkpoint")
        if not isinstance(sums, dict) or name not in sums:
            raise CheckpointError(f"{path / 'checksums.json'}: expected the checksum of {name}; there is none")
        if _read(file, sha256) != sums[name]:
            raise CheckpointError(f"{file}: does not match its checksum")


def _read(path: Path, reader: Callable[[Path], Any]) -> Any:
    """Read a file of a checkpoint; CheckpointError names it where it is missing, damaged or holds code."""
    if not path.is_file():
        raise CheckpointError(f"{path}: is missing from the checkpoint")
    try:
        return reader(path)
    except pickle.UnpicklingError:  # torch's words advise to load it all the same, and run its code
        raise CheckpointError(f"{path}: holds something else than tensors and numbers, and is not loaded") from None
    except _DAMAGE as error:
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: cannot be read ({said.removeprefix(f'{path}: ')})") from None


def step_of(path: Path) -> int:
    """Return the step of a checkpoint, from its name."""
    return int(path.name.removeprefix("step-"))


def _steps(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))


def _free(path: Path) -> Path:
    """Return `path`, or with a number at its end where that exists."""
    names = (path if n == 1 else path.with_name(f"{path.name}-{n}") for n in range(1, 10**6))
    return next(name for name in names if not name.exists())
